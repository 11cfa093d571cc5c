"""One table of waits, in every mode: the same value or the same exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_provider_lingyang.results.completion import PollError
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from tests.conftest import FillDb, Run
from tests.helpers.campaigns import submitted
from tests.sensors.conftest import Waiting

NO_STATUS = {
    key: value
    for key, value in RESULT_QUERY.items()
    if key not in ("status_field", "done_values", "failed_values")
}


@pytest.fixture
def settle(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the connection's ``lookup_settle``, the seconds after which the look-up knows all recipients."""

    def set_to(seconds: float) -> None:
        connection = sandbox.connection(timeout=seconds, lookup_settle=seconds)
        monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(connection))

    return set_to


def counts(value: Any) -> dict[str, int]:
    assert not isinstance(value, Exception), value
    return {state: count for state, count in value["counts"].items() if count}


# --- ends well ---------------------------------------------------------------------------------------------------


def test_all_recipients_are_finished(waiting: Waiting, sandbox: SandboxProcess, run: Run) -> None:
    value = waiting(campaign=submitted(run))
    assert counts(value) == {"recipients": 60, "finished": 60, "answered": 58, "not_reached": 2}
    assert sum(value["slots"]["a"].values()) == 58
    assert len(value["results"]) == 60
    assert value["results"]["B1"]["slots"].keys() == {"a"}


def test_deferrable_overrides_mode(deferred: Waiting, sandbox: SandboxProcess, run: Run) -> None:
    manifest = submitted(run, 3)
    fault = {"kind": "http", "status": 503, "method": LOOKUP, "times": None}
    sandbox.add_fault(**fault)
    value = deferred(sandbox.clear_faults, campaign=manifest, mode="reschedule", timeout=60)
    assert counts(value) == {"recipients": 3, "finished": 3, "answered": 3}
    assert len(deferred.deferrals) == 1


def test_undefined_statuses_are_named_and_then_warned_of(
    waiting: Waiting,
    sandbox: SandboxProcess,
    run: Run,
    settle: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    manifest = submitted(run, 3)
    settle(0.5)
    query = RESULT_QUERY | {"done_values": ["ANOTHER WORD"], "failed_values": []}
    caplog.set_level("INFO")
    ended = waiting(campaign=manifest, result_query=query, timeout=2)
    assert isinstance(ended, AirflowSensorTimeout)
    assert "status in neither done_values nor failed_values: " in str(ended)
    warned = [record for record in caplog.records if "this wait may never end" in record.getMessage()]
    assert warned
    assert {record.levelname for record in warned} == {"WARNING"}


def test_enough_are_finished(waiting: Waiting, sandbox: SandboxProcess, run: Run) -> None:
    value = waiting(campaign=submitted(run), result_query=NO_STATUS, complete_ratio=0.9)
    assert counts(value) == {"recipients": 60, "finished": 58, "answered": 58, "waiting": 2}


def test_results_come_after_the_first_poll(waiting: Waiting, sandbox: SandboxProcess, run: Run) -> None:
    manifest = submitted(run, 3)
    fault = {"kind": "http", "status": 503, "method": LOOKUP, "times": None}
    sandbox.add_fault(**fault)
    value = waiting(meanwhile=sandbox.clear_faults, campaign=manifest, timeout=600)
    assert counts(value)["finished"] == 3


def test_campaign_without_recipients(waiting: Waiting, sandbox: SandboxProcess, run: Run) -> None:
    assert counts(waiting(campaign=submitted(run, 0, on_empty="succeed"))) == {}


# --- does not end well: what is raised, and what with soft_fail --------------------------------------------------

BOTH = [(False, AirflowFailException), (True, AirflowSkipException)]


@pytest.mark.parametrize(
    ("soft_fail", "expected"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)]
)
def test_timeout_with_too_few_finished(
    waiting: Waiting, sandbox: SandboxProcess, run: Run, soft_fail: bool, expected: type
) -> None:
    error = waiting(campaign=submitted(run), result_query=NO_STATUS, soft_fail=soft_fail)
    assert type(error) is expected
    assert str(error) == (
        "timed out after 0.6 s: 58 of 60 finished: 58 answered, 0 not reached; 2 waiting, 0 unknown to the gateway; "
        "not filled yet: a 2; 60 had to be finished. Waited for: B17, B20"
    )


@pytest.mark.parametrize("soft_fail", [False, True])
def test_timeout_may_succeed_or_skip(
    waiting: Waiting, sandbox: SandboxProcess, run: Run, soft_fail: bool
) -> None:
    manifest = submitted(run)
    value = waiting(campaign=manifest, result_query=NO_STATUS, on_incomplete="succeed", soft_fail=soft_fail)
    assert counts(value) == {"recipients": 60, "finished": 58, "answered": 58, "waiting": 2}
    error = waiting(campaign=manifest, result_query=NO_STATUS, on_incomplete="skip", soft_fail=soft_fail)
    assert type(error) is AirflowSkipException
    assert "58 of 60 finished" in str(error)


@pytest.mark.parametrize("on_incomplete", ["fail", "skip", "succeed"])
def test_timeout_after_a_failed_poll(
    waiting: Waiting, sandbox: SandboxProcess, run: Run, on_incomplete: str
) -> None:
    manifest = submitted(run, 3)
    sandbox.add_fault(kind="http", status=503, method=LOOKUP, times=None)
    error = waiting(campaign=manifest, on_incomplete=on_incomplete)
    assert type(error) is AirflowSensorTimeout
    assert "the last poll failed, so the number of finished recipients is not known" in str(error)
    assert "no look-up of this process succeeded; earlier ones are in the log" in str(error)
    assert "HTTP 503" in str(error)


@pytest.mark.parametrize(("soft_fail", "expected"), BOTH)
def test_unknown_ids_end_the_wait_after_lookup_settle(
    waiting: Waiting,
    sandbox: SandboxProcess,
    run: Run,
    settle: Callable[[float], None],
    soft_fail: bool,
    expected: type,
) -> None:
    submitted(run, 3)
    settle(0.5)
    error = waiting(biz_ids=["B1", "B2", "unknown"], required_slots=["a"], timeout=600, soft_fail=soft_fail)
    assert type(error) is expected
    if not soft_fail:
        assert "1 unknown to the gateway" in str(error)
        assert "after 0.5 s (lookup_settle) stays unknown: unknown." in str(error)
    value = waiting(biz_ids=["B1", "B2", "unknown"], required_slots=["a"], complete_ratio=0.5, timeout=30)
    assert counts(value) == {"recipients": 3, "finished": 2, "answered": 2, "unknown": 1}


@pytest.mark.parametrize(("soft_fail", "expected"), BOTH)
def test_results_of_another_campaign_are_foreign(
    waiting: Waiting,
    sandbox: SandboxProcess,
    run: Run,
    settle: Callable[[float], None],
    soft_fail: bool,
    expected: type,
) -> None:
    manifest = submitted(run, 3)
    # The same ids, sent once more by another task: each look-up answers with both tasks.
    submitted(run, 2)
    settle(0.5)
    run.xcom["submit", "biz_ids"] = ["B0", "B1", "B2"]
    run.xcom["submit", "task_ids"] = [1, 2, 3]
    error = waiting(campaign=manifest, timeout=600, soft_fail=soft_fail)
    assert type(error) is expected
    if not soft_fail:
        assert "3 with a result of another task only" in str(error)


@pytest.mark.parametrize(("soft_fail", "expected"), BOTH)
@pytest.mark.parametrize(
    ("changes", "expected_text"),
    [
        ({"biz_ids": []}, "nothing to look up: the list of biz_ids is empty"),
        ({"biz_ids": ["1", "1"]}, "1 of the 2 biz_ids are there twice"),
        ({"biz_ids": ["1"], "required_slots": [], "result_query": NO_STATUS}, "cannot decide when a recipient is finished"),
        ({"biz_ids": ["1"], "result_query": RESULT_QUERY | {"items_path": "result.dta"}}, "no 'dta' in result"),
        ({"biz_ids": ["1"], "result_query": RESULT_QUERY | {"method": "no.such"}}, "the look-up cannot work"),
    ],
)  # fmt: skip
def test_wait_that_no_retry_can_cure(
    waiting: Waiting,
    sandbox: SandboxProcess,
    run: Run,
    soft_fail: bool,
    expected: type,
    changes: dict[str, Any],
    expected_text: str,
) -> None:
    submitted(run, 3)
    changes = (
        changes if "biz_ids" not in changes or changes["biz_ids"] != ["1"] else changes | {"biz_ids": ["B1"]}
    )
    error = waiting(**({"required_slots": ["a"]} | changes), soft_fail=soft_fail)
    assert type(error) is expected
    if not soft_fail:
        assert expected_text in str(error)


@pytest.mark.parametrize(("soft_fail", "expected"), BOTH)
def test_final_failure_after_the_first_poll(
    waiting: Waiting, sandbox: SandboxProcess, run: Run, soft_fail: bool, expected: type
) -> None:
    manifest = submitted(run)
    error = waiting(
        meanwhile=lambda: (
            sandbox.add_fault(kind="error", code=27, sub_code=None, method=LOOKUP, times=None) and None
        ),
        campaign=manifest,
        result_query=NO_STATUS,
        timeout=600,
        soft_fail=soft_fail,
    )
    assert type(error) is expected
    if not soft_fail:
        assert "the look-up cannot work" in str(error)
        assert "code 27" in str(error)


@pytest.mark.parametrize("soft_fail", [False, True])
def test_query_that_fails_in_the_first_poll(
    waiting: Waiting, sandbox: SandboxProcess, audience_db: FillDb, soft_fail: bool
) -> None:
    audience_db(["a"], [])
    error = waiting(
        ids_sql="SELECT biz_id FROM nowhere",
        ids_conn_id="audience_db",
        required_slots=["a"],
        soft_fail=soft_fail,
    )
    assert type(error) is PollError
    assert "no such table: nowhere" in str(error)


def test_validated_campaign_is_skipped(waiting: Waiting, sandbox: SandboxProcess, run: Run) -> None:
    error = waiting(campaign=submitted(run, 3, validate_only=True))
    assert type(error) is AirflowSkipException
    assert "validated only" in str(error)


# --- answers that are pushed -------------------------------------------------------------------------------------

PUSHED = {"results_sql": "SELECT biz_id, output_params FROM pushed", "results_conn_id": "audience_db"}
SLOTS = json.dumps({"slots": [{"name": "a", "action": "ask", "value": "yes", "required": True}]})


def test_results_in_a_table(waiting: Waiting, sandbox: SandboxProcess, run: Run, audience_db: FillDb) -> None:
    manifest = submitted(run, 3)
    audience_db(["biz_id", "output_params"], [("B0", SLOTS), ("other", SLOTS)], table="pushed")
    rows = [("B0", SLOTS), ("B1", '{"a": "no"}'), ("B1", '{"a": "later"}'), ("B2", SLOTS)]
    value = waiting(
        meanwhile=lambda: audience_db(["biz_id", "output_params"], rows, table="pushed"),
        campaign=manifest,
        timeout=600,
        **PUSHED,
    )
    assert counts(value) == {"recipients": 3, "finished": 3, "answered": 3}
    assert value["slots"] == {"a": {"yes": 2, "no": 1}}
    assert not [r for r in sandbox.record()["requests"] if r["method"] == LOOKUP]


def test_results_in_a_table_with_status_and_task(
    waiting: Waiting, sandbox: SandboxProcess, run: Run, audience_db: FillDb
) -> None:
    manifest = submitted(run, 3)
    tasks = run.xcom["submit", "task_ids"]
    rows = [
        ("B0", "", "HUNG_UP", tasks[0]),
        ("B1", SLOTS, "OK", tasks[1]),
        ("B2", SLOTS, "OK", 1),
        ("B2", "x", "ON", tasks[2]),
    ]
    audience_db(["BIZ_ID", "output_params", "status", "task_id"], rows, table="pushed")
    error = waiting(
        campaign=manifest,
        results_sql="SELECT * FROM pushed",
        results_conn_id="audience_db",
        result_query={"done_values": ["OK"], "failed_values": ["HUNG_UP"]},
    )
    assert type(error) is AirflowSensorTimeout
    assert "2 of 3 finished: 1 answered, 1 not reached; 1 waiting" in str(error)
    assert "1 with slots that cannot be read" in str(error)


def test_recipients_without_a_row_stay_waiting(
    waiting: Waiting, sandbox: SandboxProcess, run: Run, audience_db: FillDb, settle: Callable[[float], None]
) -> None:
    manifest = submitted(run, 3)
    settle(0.1)
    audience_db(["biz_id", "output_params"], [], table="pushed")
    error = waiting(campaign=manifest, **PUSHED)
    assert type(error) is AirflowSensorTimeout
    assert "0 of 3 finished: 0 answered, 0 not reached; 3 waiting, 0 unknown" in str(error)


def test_a_column_that_results_sql_selects_twice_is_an_error(
    waiting: Waiting, sandbox: SandboxProcess, audience_db: FillDb
) -> None:
    audience_db(["biz_id", "output_params"], [("1", SLOTS)], table="pushed")
    sql = "SELECT *, output_params AS OUTPUT_PARAMS FROM pushed"
    error = waiting(biz_ids=["1"], required_slots=["a"], results_sql=sql, results_conn_id="audience_db")
    assert type(error) is AirflowFailException
    assert "selects 'output_params' twice" in str(error)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["biz_id", "output_parms"], r"selects 'output_parms'; .*did you mean 'output_params'"),
        (["biz_id"], "must select output_params, too"),
        (["biz_id", "output_params", "status"], "nothing says what it means"),
    ],
)
def test_wrong_results_sql(
    waiting: Waiting, sandbox: SandboxProcess, audience_db: FillDb, columns: list[str], expected: str
) -> None:
    audience_db(columns, [], table="pushed")
    error = waiting(
        biz_ids=["1"], required_slots=["a"], results_sql="SELECT * FROM pushed", results_conn_id="audience_db"
    )
    assert type(error) is AirflowFailException
    with pytest.raises(AirflowFailException, match=expected):
        raise error


def test_ids_too_long_for_a_trigger_go_by_xcom(deferred: Waiting, sandbox: SandboxProcess, run: Run) -> None:
    # 28 KB as UTF-8, and 55 KB as Airflow writes it, before it is encrypted: MySQL's column ends at 64 KB.
    ids = [f"{number:03}" + "客" * 30 for number in range(300)]
    deferred(biz_ids=ids, required_slots=["a"], timeout=3)
    (deferral,) = deferred.deferrals
    assert len(json.dumps(deferral.trigger.serialize()[1])) < 30_000
    assert run.xcom["wait", "biz_ids"] == ids
