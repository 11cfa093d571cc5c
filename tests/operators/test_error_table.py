"""The table of errors is the test table: the sandbox says each row, hook and operator understand it."""

from __future__ import annotations

import json

import pytest

from airflow_provider_lingyang.gateway import error_codes
from airflow_provider_lingyang.gateway.error_classification import rule_for
from airflow_provider_lingyang.gateway.errors import (
    CallRefusedError,
    LingyangError,
    ReceiverLimitedError,
    Replay,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.rate_limiter import forget_limiters
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run

ROWS = [
    *((code, None, rule) for code, rule in error_codes.CODES.items()),
    *(
        (code, pattern.replace("*", tail) if pattern != "isv.*" else "isv.x", rule)
        for code, tail in (("15", ""), ("50", "-some.thing:x"))
        for pattern, rule in (error_codes.FINER | error_codes.SUB_CODES).items()
    ),
    # Under a code that refuses the call, too.
    *(
        (code, pattern.replace("*", ""), rule)
        for code in ("7", "25")
        for pattern, rule in error_codes.DOUBTFUL.items()
    ),
]
BOOKED = {
    ThrottledError: {"audience": 3, "not_sent": 3},
    CallRefusedError: {"audience": 3, "not_sent": 3},
    ReceiverLimitedError: {"audience": 3, "not_sent": 3},
    RequestRefusedError: {"audience": 3, "rejected": 1, "accepted": 2},
    ServiceError: {"audience": 3, "in_doubt": 1, "not_sent": 2},
}
TASK = {"biz_id": "B0", "phone_number": "10000000001", "input_params": {}, "output_params": {}}


@pytest.mark.parametrize(("code", "sub_code", "rule"), ROWS, ids=[f"{row[0]} {row[1] or ''}" for row in ROWS])
def test_a_row_is_understood_by_hook_and_operator(
    sandbox: SandboxProcess,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    sub_code: str | None,
    rule: error_codes.Rule,
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(sandbox.connection(max_attempts=1, result_query=None))
    )
    sandbox.add_fault(kind="error", code=int(code), sub_code=sub_code, sub_msg="说明", times=2)

    with pytest.raises(LingyangError) as caught:
        LingyangHook().submit_batch({"task_unique_code": "c", "plan_id": 1, "task_list": [TASK]})
    error = caught.value
    assert type(error) is rule.error
    assert error.replay is (rule.replay or rule.error.default_replay)
    assert (error.code, error.sub_code, error.sub_msg) == (code, sub_code, "说明")
    assert error.request_id
    assert rule.hint
    assert rule.hint.rstrip(".") in str(error)

    forget_limiters()  # as in another process
    audience = [
        TASK | {"biz_id": f"B{n}", "phone_number": f"1000000000{n}", "batch_num": str(n)} for n in range(3)
    ]
    operator = LingyangSubmitBatchOperator(task_id="submit", plan_id=1, audience=audience)
    if rule.error is RequestRefusedError:
        run.execute(operator)
        assert code in str(run.manifest()["reasons"]["rejected"])
    elif rule.wait:
        run.waits(operator)
        assert rule.what in str(run.manifest()["reasons"]["not_sent"])
    else:
        message = run.fails(operator)
        assert rule.what in message
        assert rule.hint.rstrip(".") in message
    assert run.counts() == BOOKED[rule.error]
    assert max(sandbox.record()["executions"]["by_biz_id"].values(), default=0) <= 1


def test_an_error_that_no_table_knows_falls_to_the_safe_side(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(sandbox.connection(result_query=None)))
    sandbox.add_fault(kind="error", code=4711, sub_code="new.thing")
    operator = LingyangSubmitBatchOperator(task_id="submit", plan_id=1, audience=[TASK])
    assert "not in the platform's tables" in run.fails(operator)
    assert run.counts() == {"audience": 1, "in_doubt": 1}
    assert len(sandbox.record()["requests"]) == 1


def test_the_safe_side_is_ambiguous() -> None:
    rule = rule_for("4711", "new.thing")
    assert (rule.replay or rule.error.default_replay) is Replay.AMBIGUOUS
