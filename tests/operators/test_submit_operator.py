"""The submit operator against a running gateway, whose record is the judge."""

from __future__ import annotations

import json
import logging
import random
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import FillDb, Run, rendered
from tests.helpers.campaigns import row
from tests.helpers.clock import SkippingClock

COLUMNS = ["order_no", "mobile", "wave", "customer"]
SQL: dict[str, Any] = {
    "sql": "SELECT order_no, mobile, wave, customer FROM audience",
    "sql_conn_id": "audience_db",
    "columns": {"biz_id": "order_no", "phone_number": "mobile", "batch_num": "wave"},
    "input_params_columns": {"name": "customer"},
    "output_slots": ["intention"],
}


def submit(**changes: Any) -> LingyangSubmitBatchOperator:
    arguments: dict[str, Any] = {"task_id": "submit", "plan_id": "123", "channel": "call"}
    return LingyangSubmitBatchOperator(**(arguments | changes))


def sql_rows(count: int, waves: int = 3) -> list[tuple[Any, ...]]:
    rows = [(f"O{n:04}", f"1000000{n:04}", str(n % waves + 1), f'客户{n} "😀" \\') for n in range(count)]
    random.Random(3).shuffle(rows)
    return rows


def submits(sandbox: SandboxProcess) -> list[dict[str, Any]]:
    return [request for request in sandbox.record()["requests"] if request["method"].endswith("batch.task")]


def connect_without_lookup(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    connection = sandbox.connection(**({"timeout": 5} | extra), result_query=None)
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(connection))


def test_a_campaign_from_sql_arrives_whole_once_and_in_order(
    sandbox: SandboxProcess, audience_db: FillDb, run: Run
) -> None:
    audience_db(COLUMNS, sql_rows(130, waves=12))
    manifest = run.execute(
        submit(**SQL, batch_size=5, use_book_info={"use_platform": "P", "book_code": "B", "book_owner_id": 1})
    )
    record = sandbox.record()
    assert record["order_violations"] == []
    assert record["executions"]["by_biz_id"] == {f"O{n:04}": 1 for n in range(130)}
    sent = submits(sandbox)
    assert [request["batch_num"] for request in sent] == sorted((r["batch_num"] for r in sent), key=int)
    assert max(len(request["biz_ids"]) for request in sent) == 5
    assert [batch["batch_num"] for batch in manifest["batches"]] == [str(n) for n in range(1, 13)]
    for batch in manifest["batches"]:
        arrived = sum(len(r["biz_ids"]) for r in sent if r["batch_num"] == batch["batch_num"])
        assert batch["tasks"] == batch["accepted"] == arrived
    assert manifest == run.manifest()
    assert run.counts() == {"audience": 130, "accepted": 130}
    assert sorted(run.xcom["submit", "biz_ids"]) == [f"O{n:04}" for n in range(130)]
    assert len(json.dumps(manifest)) < 4096


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda rows: (item for item in rows)])
def test_audience_may_be_any_sequence(sandbox: SandboxProcess, run: Run, kind: Callable[[Any], Any]) -> None:
    manifest = run.execute(submit(audience=kind([row(1), row(2)])))
    assert manifest["batches"] == [
        {"batch_num": None, "tasks": 2, "requests": 1, "accepted": 2, "rejected": 0}
    ]
    assert (
        "batch_num" not in sandbox.record()["requests"][0]
        or sandbox.record()["requests"][0]["batch_num"] is None
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "either sql"),
        ({"audience": [], **SQL}, "either sql"),
        ({"sql": "SELECT 1"}, "sql and sql_conn_id belong together"),
        ({"audience": [], "sql_conn_id": "x"}, "sql and sql_conn_id belong together"),
        ({"audience": [], "parameters": [1]}, "parameters belong to sql"),
        ({"audience": [], "channel": "fax"}, "channel must be one of call, sms, email"),
        ({"audience": [], "columns": {"phone_numbr": "x"}}, r"'phone_numbr' is not a field .*\(did you mean 'phone_number'\?\)"),
        ({"audience": [], "columns": {"plan_id": "x"}}, "'plan_id' belongs to the whole request"),
        ({"audience": [], "columns": {"biz_id": ""}}, "'biz_id' must name a column"),
        ({"audience": [], "task_defaults": {"user": 1}}, "task_defaults: 'user' is not a field"),
        ({"audience": [], "task_defaults": {"biz_id": 1}}, "'biz_id' must differ from row to row"),
        ({"audience": [], "input_params_columns": "name"}, "input_params_columns must be a list of names, or a dict"),
        ({"audience": [], "input_params_columns": ["a", "a"]}, "input_params_columns holds a name twice"),
        ({"audience": [], "output_slots": "slot"}, "output_slots must be a list of names"),
        ({"audience": [], "columns": ["biz_id"]}, "columns must be a dict; it is a list"),
        ({"audience": [], "task_defaults": 5}, "task_defaults must be a dict; it is a int"),
        ({"audience": [], "output_slots": 5}, "output_slots must be a list of names"),
        ({"audience": [], "input_params_columns": {"a": None}}, "input_params_columns: 'a' must name a column"),
        ({"audience": [], "validate_only": "false"}, "validate_only must be True or False; it is 'false'"),
        ({"audience": [], "batch_size": 0}, "batch_size must be a whole number of at least 1; it is 0"),
        ({"audience": [], "batch_size": True}, "batch_size"),
        ({"audience": [], "max_recipients": 0}, "max_recipients must be"),
        ({"audience": [], "on_invalid": "ignore"}, "on_invalid must be one of fail, skip"),
        ({"audience": [], "on_duplicate_contact": "x"}, "on_duplicate_contact must be one of warn, fail, keep_first"),
        ({"audience": [], "on_empty": "x"}, "on_empty must be one of skip, fail, succeed"),
    ],
)  # fmt: skip
def test_invalid_arguments_fail_while_the_dag_is_parsed(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        submit(**changes)


def one_bad(**changes: Any) -> list[dict[str, Any]]:
    return [row(1), row(2, **changes), row(3)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"audience": one_bad(phone_number="CANARY")}, "1 of 3 row(s) are not valid: row 2: phone_number is not a phone"),
        ({"audience": one_bad(input_params="[]")}, "row 2: input_params must be a JSON object"),
        ({"audience": one_bad(output_params=None)}, "row 2: output_params is missing"),
        ({"audience": one_bad(source_id="CANARY")}, "row 2: source_id must be a whole number"),
        ({"audience": one_bad(batch_num="CANARY")}, "row 2: batch_num is not a string of decimal digits"),
        ({"audience": one_bad(batch_num="1")}, "2 of 3 row(s) are not valid: rows 1 and 3: batch_num is missing"),
        ({"audience": [row(1, batch_num="1"), row(2, batch_num="01")]}, "spells one number in several ways: 01, 1"),
        ({"audience": one_bad(biz_id="B1")}, "row 2 has the biz_id 'B1' of row 1"),
        ({"audience": one_bad(user_name="张三", phone="1")}, "column 'phone' is not a field of the API (row 2)"),
        ({"audience": one_bad(user_name=None), "input_params_columns": ["user_name"]}, "names the column 'user_name'"),
        ({"audience": [row(1, who=None)], "input_params_columns": ["who"]}, "(column 'who') is NULL"),
        ({"audience": one_bad(), "max_recipients": 2}, "3 valid recipients are more than max_recipients=2"),
        ({"audience": one_bad(phone_number=row(1)["phone_number"]), "on_duplicate_contact": "fail"}, "(row 2)"),
        ({"audience": ["CANARY"]}, "row 1: the row is a str"),
        ({"audience": "CANARY"}, "audience must be a list of rows (mappings of names to values); it is a str"),
        ({"audience": 5}, "it is a int"),
        ({"audience": {"CANARY": 1}}, "it is a dict"),
        ({"audience": [], "on_empty": "fail"}, "no recipient to send to: the audience has no rows"),
        ({"audience": [row()], "plan_id": "{{ x }}"}, "plan_id must be a number; it is '{{ x }}'"),
        ({"audience": [row()], "use_book_info": {"book_code": 1, "owner": 2}}, "use_book_info: use_platform is missing"),
        ({"audience": [row()], "lingyang_conn_id": "nowhere"}, "connection 'nowhere' is not defined"),
    ],
)  # fmt: skip
def test_bad_input_is_a_clear_error_and_nothing_is_sent(
    sandbox: SandboxProcess, run: Run, changes: dict[str, Any], expected: str
) -> None:
    arguments = {"task_id": "submit", "plan_id": "123", "channel": "call"} | changes
    message = run.fails(rendered(LingyangSubmitBatchOperator, arguments))
    assert expected in message
    assert "CANARY" not in message
    assert sandbox.record()["requests"] == []
    counts = run.manifest()["counts"]
    assert counts["accepted"] == counts["rejected"] == counts["in_doubt"] == 0
    assert run.xcom["submit", "biz_ids"] == []


@pytest.mark.parametrize(
    ("sql", "columns", "expected"),
    [
        (
            "SELECT * FROM audience",
            {"biz_id": "order_number"},
            "no column 'order_number' (did you mean 'order_no'?)",
        ),
        ("SELECT * FROM audience", {}, "column 'order_no' is not a field of the API and nothing uses it"),
        ("SELECT order_no AS biz_id, mobile AS Biz_Id FROM audience", {}, "column 'Biz_Id' twice"),
    ],
)
def test_an_unknown_column_of_a_query_is_named_and_nothing_is_sent(
    sandbox: SandboxProcess, audience_db: FillDb, run: Run, sql: str, columns: dict[str, str], expected: str
) -> None:
    audience_db(COLUMNS, sql_rows(3))
    assert expected in run.fails(submit(sql=sql, sql_conn_id="audience_db", columns=columns))
    assert sandbox.record()["requests"] == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "no such table: audience"),
        ({"sql_conn_id": "elsewhere"}, "'elsewhere' is not defined"),
    ],
)
def test_an_audience_that_cannot_be_read_is_final_and_says_that_nothing_was_sent(
    sandbox: SandboxProcess, audience_db: FillDb, run: Run, changes: dict[str, Any], expected: str
) -> None:
    message = run.fails(submit(**(SQL | changes)))
    assert message.startswith("nothing was sent: ")
    assert expected in message
    assert "No row of the audience was read" in message
    assert run.counts() == {}


def test_on_invalid_skip_leaves_invalid_rows_out(sandbox: SandboxProcess, run: Run) -> None:
    manifest = run.execute(submit(audience=one_bad(phone_number="x"), on_invalid="skip"))
    assert run.counts() == {"audience": 3, "accepted": 2, "invalid": 1}
    assert manifest["counts"]["invalid"] == 1
    assert sandbox.record()["executions"]["by_biz_id"] == {"B1": 1, "B3": 1}


def test_on_duplicate_contact_keep_first_keeps_the_first_row(sandbox: SandboxProcess, run: Run) -> None:
    rows = [row(1), row(2, phone_number="+86 1000-0000001"), row(3)]
    manifest = run.execute(submit(audience=rows, on_duplicate_contact="keep_first"))
    assert run.counts() == {"audience": 3, "accepted": 2, "not_sent": 1}
    assert manifest["reasons"] == {"not_sent": {"repeats an earlier row's contact": 1}}
    assert sandbox.record()["executions"]["by_biz_id"] == {"B1": 1, "B3": 1}


def test_on_empty_decides_about_an_empty_audience(sandbox: SandboxProcess, run: Run) -> None:
    with pytest.raises(AirflowSkipException, match="no recipient to send to"):
        run.execute(submit(audience=[]))
    assert run.execute(submit(audience=[], on_empty="succeed"))["counts"]["audience"] == 0
    assert sandbox.record()["requests"] == []


def test_an_audience_of_nothing_but_invalid_rows_is_not_taken_for_an_empty_one(
    sandbox: SandboxProcess, run: Run
) -> None:
    message = run.fails(submit(audience=[row(1, phone_number="x")], on_invalid="skip", on_empty="succeed"))
    assert "not one of 1 row(s) is valid: row 1: phone_number is not a phone number" in message
    assert run.counts() == {"audience": 1, "invalid": 1}


def test_validate_only_shows_the_plan_and_sends_nothing(
    sandbox: SandboxProcess, run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.dumps(sandbox.connection(max_requests_per_second=0.05))
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", connection)
    rows = [row(number, batch_num=str(number % 2)) for number in range(1, 6)]
    with caplog.at_level(logging.INFO):
        operator = submit(audience=rows, validate_only=True, batch_size=2, send_until="2001-01-01 00:00:00")
        manifest = run.execute(operator, try_number=3)
    assert "The plan: 5 tasks in 3 requests. " in caplog.text
    assert "takes at least 60 s" in caplog.text
    assert "          1      3         2      40 s  B1, B3, B5\n" in caplog.text
    assert "does not end before send_until" in caplog.text
    assert manifest["plan"]["batches"][0]["first_biz_ids"] == ["B2", "B4"]
    assert run.counts() == {"audience": 5, "not_sent": 5}
    assert manifest["reasons"] == {"not_sent": {"validate_only": 5}}
    assert sandbox.record()["requests"] == []


def test_a_later_try_sends_nothing_and_says_why(sandbox: SandboxProcess, run: Run) -> None:
    message = run.fails(submit(audience=[row()]), try_number=2)
    assert "this is try 2: without a ledger it is unknown what an earlier try sent" in message
    assert sandbox.record()["requests"] == []


def test_a_mapped_instance_sends_nothing_because_it_shares_no_ledger_with_the_others(
    sandbox: SandboxProcess, run: Run
) -> None:
    operator = submit(audience=[row()])
    context = run.context("submit")
    context["ti"].map_index = 0
    with pytest.raises(AirflowFailException, match="a mapped task needs a ledger"):
        operator.execute(context)
    assert sandbox.record()["requests"] == []


def test_a_refused_request_is_rejected_with_its_reason_and_the_others_go_on(
    sandbox: SandboxProcess, run: Run
) -> None:
    sandbox.add_fault(kind="refuse", after=1, code="400", message="计划已暂停")
    manifest = run.execute(submit(audience=[row(n) for n in range(1, 7)], batch_size=2))
    assert run.counts() == {"audience": 6, "accepted": 4, "rejected": 2}
    (reason,) = manifest["reasons"]["rejected"]
    assert "计划已暂停" in reason
    assert run.xcom["submit", "biz_ids"] == ["B1", "B2", "B5", "B6"]


def test_tasks_that_are_not_echoed_are_rejected(sandbox: SandboxProcess, run: Run) -> None:
    sandbox.add_fault(kind="partial", first=3)
    run.execute(submit(audience=[row(n) for n in range(1, 6)]))
    assert run.counts() == {"audience": 5, "accepted": 3, "rejected": 2}
    assert run.xcom["submit", "biz_ids"] == ["B1", "B2", "B3"]


@pytest.mark.parametrize("mode", ["missing_biz_id", "unknown_biz_id"])
def test_unmatched_echoes_leave_missing_recipients_in_doubt(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    connect_without_lookup(sandbox, monkeypatch)
    sandbox.add_fault(kind="echo", mode=mode)
    message = run.fails(submit(audience=[row(n) for n in range(1, 6)], batch_size=3))
    assert (
        "1 of its tasks are in doubt: the answer echoes tasks that match no recipient of the request"
        in message
    )
    assert run.counts() == {"audience": 5, "accepted": 2, "in_doubt": 1, "not_sent": 2}
    assert run.manifest()["in_doubt"][0]["tasks"] == 1


STOPPED = [row(n, batch_num=str(n)) for n in range(1, 5)]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "http", "status": 500}, "HTTP 500, HTML"),
        ({"kind": "no_answer"}, "did not answer in time"),
        ({"kind": "reset_before"}, "broke"),
        ({"kind": "reset_during"}, "broke"),
        ({"kind": "reset_after"}, "broke"),
        ({"kind": "truncated"}, "not one of the gateway"),
        ({"kind": "empty"}, "not one of the gateway"),
        ({"kind": "error", "code": "10", "msg": "x", "sub_code": None}, "unavailable"),
        (
            {"kind": "error", "code": "15", "msg": "x", "sub_code": "isp.remote-service-timeout"},
            "backend failed",
        ),
    ],
)
def test_ambiguous_answer_stops_the_campaign_and_repeats_no_recipient(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], expected: str
) -> None:
    connect_without_lookup(sandbox, monkeypatch, timeout=2)
    sandbox.add_fault(**fault, after=1)
    message = run.fails(submit(audience=STOPPED))
    assert expected in message
    assert "of batch_num 2" in message
    assert "is in doubt" in message
    assert run.counts() == {"audience": 4, "accepted": 1, "not_sent": 2, "in_doubt": 1}
    (doubt,) = run.manifest()["in_doubt"]
    assert doubt["task_unique_code"] in message
    assert len(submits(sandbox)) == 2
    assert max(sandbox.record()["executions"]["by_biz_id"].values()) == 1


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "permission"}, "[code 11,"),
        ({"kind": "clock", "seconds": 3600}, "10 minutes off"),
        ({"kind": "session_required"}, "session is missing"),
    ],
)
def test_refused_call_stops_the_campaign_and_rejects_no_recipient(
    sandbox: SandboxProcess, run: Run, fault: dict[str, Any], expected: str
) -> None:
    sandbox.add_fault(**fault)
    message = run.fails(submit(audience=STOPPED))
    assert expected in message
    assert "was not executed" in message
    assert run.counts() == {"audience": 4, "not_sent": 4}
    assert sandbox.record()["totals"]["executed_tasks"] == 0


def test_wrong_app_secret_is_reported(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = sandbox.connection() | {"password": "CANARY-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(wrong))
    message = run.fails(submit(audience=STOPPED))
    assert "the signature is wrong" in message
    assert "App secret" in message
    assert "CANARY" not in message


@pytest.mark.real_time  # the gateway's
def test_a_short_throttle_is_waited_out(sandbox: SandboxProcess, run: Run) -> None:
    sandbox.add_fault(kind="throttle", seconds=1, after=1)
    run.execute(submit(audience=STOPPED))
    assert run.counts() == {"audience": 4, "accepted": 4}
    assert sandbox.record()["totals"]["duplicate_biz_ids"] == 0


def test_unreachable_gateway_leaves_all_recipients_unsent(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = sandbox.connection(max_attempts=1) | {"host": "http://127.0.0.1:9/router/rest"}
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(nobody))
    message = run.fails(submit(audience=STOPPED))
    assert "the gateway was not reached" in message
    assert "Nothing was executed" in message
    assert run.counts() == {"audience": 4, "not_sent": 4}


def test_unforeseen_error_keeps_the_manifest_and_hides_its_text(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from airflow_provider_lingyang.delivery.answers import AnswerHandler

    def fail(*_: object) -> None:
        raise RuntimeError("CAN" + "ARY")

    monkeypatch.setattr(AnswerHandler, "handle", fail)
    with caplog.at_level(logging.DEBUG):
        message = run.fails(submit(audience=STOPPED))
    assert "unforeseen RuntimeError" in message
    assert "CANARY" not in message + caplog.text
    assert "dispatcher.py" in caplog.text
    assert run.counts() == {"audience": 4, "not_sent": 3, "in_doubt": 1}


def test_a_task_that_is_killed_sends_nothing_more(sandbox: SandboxProcess, run: Run) -> None:
    operator = submit(audience=STOPPED)
    operator.on_kill()
    assert "asked to stop" in run.fails(operator)
    assert sandbox.record()["requests"] == []


def test_a_task_that_is_killed_while_it_waits_out_a_throttle_does_not_repeat_the_request(
    sandbox: SandboxProcess, run: Run, clock: SkippingClock
) -> None:
    sandbox.add_fault(kind="throttle", seconds=30, after=1)
    operator = submit(audience=STOPPED)
    clock.at_sleep = operator.on_kill
    message = run.fails(operator)
    # Airflow kills the process 5 seconds after it asked the task to stop.
    assert clock.skipped < 5
    assert "asked to stop" in message
    assert run.counts() == {"audience": 4, "accepted": 1, "not_sent": 3}
    assert len(submits(sandbox)) == 2


def test_a_task_that_is_killed_while_it_reads_reads_no_further(sandbox: SandboxProcess, run: Run) -> None:
    operator: LingyangSubmitBatchOperator

    def endless() -> Iterator[dict[str, Any]]:
        number = 0
        while True:
            number += 1
            if number == 10:
                operator.on_kill()
            yield row(number)

    operator = submit(audience=endless())
    assert "asked to stop while it read the audience" in run.fails(operator)
    assert sandbox.record()["requests"] == []


@pytest.mark.parametrize("broken", ["manifest", "biz_ids"])
def test_failed_xcom_backend_loses_no_manifest_and_shows_no_data(
    sandbox: SandboxProcess, run: Run, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    context = run.context("submit")
    push = context["ti"].xcom_push

    def fail(key: str, value: Any) -> None:
        if key == broken:
            raise RuntimeError("CAN" + "ARY")
        push(key, value)

    context["ti"].xcom_push = fail
    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException) as caught:
        submit(audience=STOPPED).execute(context)
    assert f"XCom '{broken}' could not be pushed (RuntimeError)" in str(caught.value)
    assert "accepted 4" in str(caught.value)
    assert "CANARY" not in caplog.text + "".join(traceback.format_exception(caught.value))
    assert '"accepted": 4' in caplog.records[-1].getMessage()


def test_an_audience_is_never_rendered_and_never_shown() -> None:
    operator = submit(audience=[row(1, user_name="{{ 1 + 1 }} CANARY")])
    operator.render_template_fields({}, None)
    assert operator.audience.value[0]["user_name"] == "{{ 1 + 1 }} CANARY"
    assert "CANARY" not in str(operator.audience) + repr(operator.audience)
    assert "list" in str(operator.audience)


def test_more_ids_than_xcom_carries_are_handed_over_as_the_query(
    sandbox: SandboxProcess, audience_db: FillDb, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "5")
    audience_db(COLUMNS, sql_rows(6))
    run.execute(submit(**SQL))
    assert run.xcom.get(("submit", "biz_ids")) is None
    assert run.xcom["submit", "biz_ids_query"]["column"] == "order_no"


def test_invalid_xcom_ids_limit_is_an_error_before_sending(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "many")
    assert "[lingyang] xcom_ids_limit must be a whole number; it is 'many'" in run.fails(
        submit(audience=STOPPED)
    )
    assert run.counts() == {}
    assert sandbox.record()["requests"] == []


def test_ids_without_a_source_are_warned_of_before_sending(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "1")
    with caplog.at_level(logging.WARNING):
        run.execute(submit(audience=STOPPED))
    assert (
        "4 recipients are more than XCom carries ([lingyang] xcom_ids_limit=1), and the audience came without a query"
        in caplog.text
    )
    assert ("submit", "biz_ids_query") not in run.xcom


def test_the_manifest_is_the_last_own_line_of_the_log(
    sandbox: SandboxProcess, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run.execute(submit(audience=STOPPED))
    last = caplog.records[-1].getMessage()
    assert json.loads(last.removeprefix("manifest ")) == run.manifest()
    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException):
        run.execute(submit(audience=STOPPED, plan_id="{{ x }}"))
    assert caplog.records[-1].getMessage().startswith("manifest {")
