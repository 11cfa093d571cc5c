"""Answers into tables of real databases, from the running sandbox and from a table."""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException

from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.results.table import ResultsTable
from airflow_provider_lingyang.sandbox import LOOKUP, simulated_people
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from airflow_provider_lingyang.transfers import lingyang_to_sql
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator
from tests.conftest import FillDb, Run
from tests.transfers.conftest import Counts, MakeTransfer, Pushed, Submit, Warehouse

# --- what is written ---------------------------------------------------------------------------------------------


def test_one_row_per_recipient_on_every_run(
    warehouse: Warehouse,
    sandbox: SandboxProcess,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    counts: Counts,
) -> None:
    """The upsert."""
    manifest = submit()
    reached = sum(simulated_people.is_reached(0, f"B{n}") for n in range(60))
    expected = {"recipients": 60, "rows": 60, "filled": reached, "not_reached": 60 - reached}
    before = datetime.now(UTC)
    value = run.execute(transfer(campaign=manifest))
    assert json.loads(json.dumps(value)) == value
    assert value["table"] == "answers"
    assert counts(value) == expected | {"inserted": 60}
    columns = ("task_id", "plan_id", "campaign_key", "status", "output_params", "a", "b")
    rows = warehouse.rows(*columns)
    tasks = dict(zip(run.xcom["submit", "biz_ids"], run.xcom["submit", "task_ids"], strict=True))
    for biz_id, (task_id, plan_id, campaign_key, status, output_params, a, b) in rows.items():
        assert (task_id, plan_id, campaign_key) == (str(tasks[biz_id]), 7, "dag/run/submit")
        if simulated_people.is_reached(0, biz_id):
            slots = {slot: simulated_people.slot_value(0, biz_id, slot) for slot in "ab"}
            assert (status, json.loads(output_params), a, b) == ("ANSWERED", slots, slots["a"], slots["b"])
        else:
            assert (status, json.loads(output_params), a, b) == (
                "NOT_REACHED",
                {"a": "", "b": ""},
                None,
                None,
            )
    first = warehouse.rows("fetched_at")
    assert counts(run.execute(transfer(campaign=manifest))) == expected | {"updated": 60}
    assert warehouse.rows(*columns) == rows
    second = warehouse.rows("fetched_at")
    moments = [_moment(value) for value in (*first.values(), *second.values())]
    # Microseconds are kept, and no time zone was added on the way.
    assert before <= min(moments) <= max(moments) <= datetime.now(UTC)
    assert all(_moment(first[biz_id]) < _moment(second[biz_id]) for biz_id in rows)


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def test_changed_results_overwrite_and_empty_ones_do_not(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    ids = {"biz_ids": ["A", "B", "C", "D", "E", "F"], "slots": ["x", "y"]}
    whole = json.dumps({"x": "1", "y": {"z": [2]}, "more": "3"})
    first = [("A", ""), ("B", whole, "ON", "11"), ("C", whole, "OK", "11"), ("D", whole, "OK", "11")]
    value = run.execute(transfer(**ids, **pushed([*first, ("E", whole, "OK"), ("other", whole)])))
    assert counts(value) == {
        "recipients": 6, "rows": 5, "inserted": 5, "filled": 4, "empty": 1, "unknown": 1,
    }  # fmt: skip
    columns = ("task_id", "status", "output_params", "x", "y")
    assert warehouse.rows(*columns) == {
        "A": (None, None, "{}", None, None),
        "B": ("11", "ON", whole, "1", '{"z": [2]}'),
        "C": ("11", "OK", whole, "1", '{"z": [2]}'),
        "D": ("11", "OK", whole, "1", '{"z": [2]}'),
        "E": (None, "OK", whole, "1", '{"z": [2]}'),
    }
    assert {(plan, key) for plan, key in warehouse.rows("plan_id", "campaign_key").values()} == {(0, "")}
    now = '{"x": "new", "y": " "}'
    again = [
        ("A", now, "OK"),
        ("B", now, "OK", "11"),
        ("C", "{broken", "HUNG_UP", "11"),
        ("D", "", "OK", "22"),
    ]
    value = run.execute(transfer(**ids, **pushed([*again, ("E", "{}", "OK", "11"), ("F", "[1]", "OK")])))
    assert counts(value) == {
        "recipients": 6, "rows": 6, "inserted": 1, "updated": 5, "not_reached": 1, "empty": 5, "unreadable": 2,
    }  # fmt: skip
    assert warehouse.rows(*columns) == {
        "A": (None, "OK", now, "new", None),
        "B": ("11", "OK", now, "new", None),
        # Slots that cannot be read, or that are not there, leave the earlier values.
        "C": ("11", "HUNG_UP", whole, "1", '{"z": [2]}'),
        # Another task's are none of this one's.
        "D": ("22", "OK", "{}", None, None),
        "E": ("11", "OK", whole, "1", '{"z": [2]}'),
        "F": (None, "OK", None, None, None),
    }


def test_columns_of_the_user_keep_their_values(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    ids = {"biz_ids": ["A", "B"], "slots": ["x"], "create_table": False}
    text = "VARCHAR(200)" if warehouse.kind == "mariadb" else "TEXT"
    # Without time zones: the time of day that is written must be UTC's, whatever the session's.
    stamp = {"mariadb": "TIMESTAMP(6)", "sqlite": "TEXT"}.get(warehouse.kind, "TIMESTAMP")
    warehouse.sql(
        f"CREATE TABLE answers (note {text} DEFAULT 'new', x {text}, fetched_at {stamp}, output_params {text}, "
        f"campaign_key {text}, status {text}, plan_id BIGINT, task_id BIGINT, biz_id {text}, "
        "PRIMARY KEY (campaign_key, plan_id, biz_id))"
    )
    run.execute(transfer(**ids, **pushed([("A", '{"x": "1"}', "OK", "5")])))
    warehouse.sql("UPDATE answers SET note = 'mine'")
    value = run.execute(transfer(**ids, **pushed([("A", '{"x": "2"}', "OK", "5"), ("B", '{"x": "3"}')])))
    assert counts(value)["updated"] == 1
    assert warehouse.rows("x", "note", "task_id") == {"A": ("2", "mine", 5), "B": ("3", "new", None)}


def test_fetched_at_is_utc_in_any_session_time_zone(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    if warehouse.kind == "sqlite":
        return
    stamp = "TIMESTAMP(6)" if warehouse.kind == "mariadb" else "TIMESTAMP"
    columns = (
        "biz_id VARCHAR(9), task_id VARCHAR(9), plan_id INTEGER, campaign_key VARCHAR(9), status VARCHAR(9)"
    )
    elsewhere = {"mariadb": "SET GLOBAL time_zone='+08:00'"}.get(
        warehouse.kind, "ALTER ROLE lingyang SET timezone TO 'Asia/Shanghai'"
    )
    back = {"mariadb": "SET GLOBAL time_zone='SYSTEM'"}.get(
        warehouse.kind, "ALTER ROLE lingyang RESET timezone"
    )
    try:
        for kind in (stamp, "DATETIME(6)" if warehouse.kind == "mariadb" else "TIMESTAMP WITH TIME ZONE"):
            warehouse.sql("DROP TABLE IF EXISTS answers")
            warehouse.sql(f"CREATE TABLE answers ({columns}, output_params TEXT, fetched_at {kind} NULL)")
            warehouse.sql(elsewhere)
            run.execute(transfer(biz_ids=["A"], **pushed([("A", "")])))
            if kind == "TIMESTAMP(6)":
                (((shown,),),) = [warehouse.sql("SELECT UNIX_TIMESTAMP(fetched_at) FROM answers")]
                moment = datetime.fromtimestamp(float(shown), UTC)
            else:
                ((shown,),) = warehouse.sql("SELECT fetched_at FROM answers")
                moment = _moment(shown)
            assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1), kind
    finally:
        warehouse.sql(back)


AWKWARD = [
    "意向", "select", "a b", 'say "hi"', "back`tick", "it's", "a.b", "Ä", "满意吗？", ":name", "back\\slash", "{x}",
]  # fmt: skip


def test_any_slot_may_be_a_column(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    values = {slot: f"值{number}" for number, slot in enumerate(AWKWARD)}
    push = pushed([("A", json.dumps(values))])
    for key in ("inserted", "updated"):
        value = run.execute(transfer(biz_ids=["A"], slots=AWKWARD, **push))
        assert counts(value) == {"recipients": 1, "rows": 1, key: 1, "filled": 1}
        quote = warehouse.quote
        names = ", ".join(quote + slot.replace(quote, quote * 2) + quote for slot in AWKWARD)
        assert list(warehouse.sql(f"SELECT {names} FROM answers")[0]) == list(values.values())


def test_a_slot_may_have_a_column_of_another_name(
    sandbox: SandboxProcess,
    sqlite: Warehouse,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    counts: Counts,
) -> None:
    manifest = submit(3, output_slots=["status", "how long?", "other"])
    slots = {"status": "answered_status", "how long?": "how_long"}
    assert counts(run.execute(transfer(campaign=manifest, slots=slots)))["filled"] == 3
    assert warehouse_columns(sqlite)[-2:] == ["answered_status", "how_long"]
    assert sqlite.rows("answered_status", "how_long")["B1"] == (
        simulated_people.slot_value(0, "B1", "status"),
        simulated_people.slot_value(0, "B1", "how long?"),
    )


def warehouse_columns(warehouse: Warehouse) -> list[str]:
    return [row[1] for row in warehouse.sql("PRAGMA table_info(answers)")]


def test_without_slots_any_value_counts_as_filled(
    sqlite: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    push = pushed([("A", '{"x": "1"}'), ("B", '{"x": " "}'), ("C", "")])
    value = run.execute(transfer(biz_ids=["A", "B", "C"], **push))
    assert counts(value) == {"recipients": 3, "rows": 3, "inserted": 3, "filled": 1, "empty": 2}


def test_characters_that_databases_refuse_are_replaced(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed
) -> None:
    text = '{"x": "a\\u0000b\\ud83dc", "y": "\\ud83d\\ude00"}'
    run.execute(transfer(biz_ids=["A"], slots=["x", "y"], **pushed([("A", text)])))
    assert warehouse.rows("x", "y") == {"A": ("a\ufffdb\ufffdc", "😀")}


def test_many_slots_fit_into_one_statement(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed
) -> None:
    # PostgreSQL takes 65,535 parameters; MariaDB's rows have no room for as many columns.
    slots = [f"slot{number}" for number in range(150 if warehouse.kind == "mariadb" else 700)]
    push = pushed([(f"A{n:03}", json.dumps({"slot149": "x" * 20})) for n in range(120)])
    for _ in range(2):
        run.execute(transfer(biz_ids=[f"A{n:03}" for n in range(120)], slots=slots, **push))
    assert set(warehouse.rows("slot149").values()) == {"x" * 20}


def test_ids_that_differ_by_case_are_two_recipients(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    push = pushed([("A1", '{"x": "upper"}'), ("a1", '{"x": "lower"}')])
    for key in ("inserted", "updated"):
        value = run.execute(transfer(biz_ids=["A1", "a1"], slots=["x"], **push))
        assert counts(value)[key] == 2
        assert warehouse.rows("x") == {"A1": "upper", "a1": "lower"}


@pytest.mark.proof
def test_key_that_ignores_case_is_an_error(
    make_warehouse: Callable[[str], Warehouse], run: Run, transfer: MakeTransfer, pushed: Pushed
) -> None:
    warehouse = make_warehouse("mariadb")
    warehouse.sql(
        "CREATE TABLE answers (biz_id VARCHAR(99), task_id TEXT, plan_id BIGINT, campaign_key VARCHAR(99), status TEXT, "
        "output_params TEXT, fetched_at DATETIME, PRIMARY KEY (campaign_key, plan_id, biz_id)) "
        "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    )
    push = pushed([("A1", '{"x": "CANARY"}'), ("a1", '{"x": "CANARY"}')])
    text = run.stops(transfer(biz_ids=["A1", "a1"], **push))
    assert "needs the key (campaign_key, plan_id, biz_id), whose texts differ by case" in text
    assert "Of 2 recipients 0 were written, 2 were not looked up" in text
    assert "CANARY" not in text
    assert warehouse.rows("status") == {}


def test_thousands_are_written_page_by_page(
    warehouse: Warehouse,
    sandbox: SandboxProcess,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    counts: Counts,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "5000")
    monkeypatch.setattr(lingyang_to_sql, "_LOG_INTERVAL", 0.0)
    pages: list[int] = []
    write = ResultsTable.write

    def watched(self: ResultsTable, rows: Any) -> Any:
        pages.append(len(rows))
        return write(self, rows)

    monkeypatch.setattr(ResultsTable, "write", watched)
    manifest = submit(2500)
    # A poll then passes on 1,500 recipients at a time.
    monkeypatch.setenv("AIRFLOW__LINGYANG__LOOKUPS_AT_A_TIME", "30")
    with caplog.at_level(logging.INFO, logger="airflow_provider_lingyang"):
        value = run.execute(transfer(campaign=manifest))
    assert counts(value)["inserted"] == 2500
    assert sum(pages) == 2500
    assert max(pages) <= 1000
    assert len(warehouse.rows("a")) == 2500
    lines = [record.getMessage() for record in caplog.records if "table answers" in record.getMessage()]
    assert len(lines) == len(pages) + 1
    assert "Of 2500 recipients 1000 were written, 1500 were not looked up" in lines[0]
    assert "recipients 2500, rows 2500, inserted 2500, updated 0, filled " in lines[-1]


def test_transaction_holds_a_thousand_recipients_at_most(
    sqlite: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    """Of several rows of one person the first that finishes them counts, else the last, on whichever page."""
    rows = [("A0", '{"x": "early"}', "ON"), ("A1", '{"x": "first"}', "OK")]
    rows += [(f"A{n}", '{"x": "1"}') for n in range(2, 1500)]
    rows += [("A0", '{"x": "late"}', "OK"), ("A1", '{"x": "second"}', "OK"), ("A2", '{"x": "3"}', "OK", "9")]
    ids = [f"A{n}" for n in range(1501)]
    value = run.execute(transfer(biz_ids=ids, slots=["x"], **pushed(rows)))
    assert counts(value) == {
        "recipients": 1501, "rows": 1500, "inserted": 1500, "filled": 1500, "unknown": 1,
    }  # fmt: skip
    found = sqlite.rows("x")
    assert (found["A0"], found["A1"], found["A2"], found["A3"]) == ("late", "first", "3", "1")


# --- recipients without a row ----------------------------------------------------------------------------------------------


def test_unknown_recipients_have_no_row_and_are_counted(
    sandbox: SandboxProcess,
    sqlite: Warehouse,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    counts: Counts,
) -> None:
    submit(2)
    value = run.execute(transfer(biz_ids=["B0", "unknown", "B1"], required_slots=["a"]))
    assert counts(value) == {"recipients": 3, "rows": 2, "inserted": 2, "filled": 2, "unknown": 1}
    assert sqlite.rows("a").keys() == {"B0", "B1"}


def test_results_of_another_task_are_foreign(
    sandbox: SandboxProcess,
    sqlite: Warehouse,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    counts: Counts,
) -> None:
    manifest = submit(3)
    run.xcom["submit", "task_ids"] = [1, run.xcom["submit", "task_ids"][1], 3]
    value = run.execute(transfer(campaign=manifest))
    assert counts(value) == {"recipients": 3, "rows": 1, "inserted": 1, "filled": 1, "foreign": 2}
    assert sqlite.rows("a").keys() == {"B1"}


def test_row_stays_when_a_foreign_result_comes_later(
    sandbox: SandboxProcess,
    sqlite: Warehouse,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    pushed: Pushed,
    counts: Counts,
) -> None:
    manifest = submit(1)
    own = run.xcom["submit", "task_ids"][0]
    between = [(f"other{n}", "") for n in range(1000)]
    rows = [("B0", '{"a": "own"}', "ON", own), *between, ("B0", '{"a": "foreign"}', "OK", 1)]
    value = run.execute(transfer(campaign=manifest, **pushed(rows)))
    assert counts(value) == {"recipients": 1, "rows": 1, "inserted": 1, "empty": 1}
    assert sqlite.rows("a") == {"B0": "own"}


def test_unfinished_recipients_are_written_too(
    sqlite: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    value = run.execute(
        transfer(biz_ids=["A"], slots=["x", "y"], **pushed([("A", '{"x": "1", "y": null}', "ON")]))
    )
    assert counts(value) == {"recipients": 1, "rows": 1, "inserted": 1, "empty": 1}
    assert sqlite.rows("status", "x", "y") == {"A": ("ON", "1", None)}


def test_campaign_without_recipients(
    sandbox: SandboxProcess,
    sqlite: Warehouse,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    counts: Counts,
) -> None:
    assert counts(run.execute(transfer(campaign=submit(0, on_empty="succeed")))) == {}
    assert sqlite.rows("a") == {}
    with pytest.raises(AirflowSkipException, match="validated only"):
        run.execute(transfer(campaign=submit(3, validate_only=True)))
    sandbox.add_fault(kind="refuse", code="400", message="x")
    assert "has no accepted recipient" in run.fails(transfer(campaign=submit(3)))


# --- tables that are not there, or not right ---------------------------------------------------------------------


def test_missing_table_is_an_error_before_the_first_look_up(
    warehouse: Warehouse, sandbox: SandboxProcess, run: Run, submit: Submit, transfer: MakeTransfer
) -> None:
    text = run.fails(transfer(campaign=submit(3), create_table=False))
    assert text == (
        "there is no table answers that can be read on connection 'warehouse'. It needs the columns biz_id, task_id, "
        "plan_id, campaign_key, status, output_params, fetched_at, a, b and the key (campaign_key, plan_id, biz_id); "
        "create_table=True makes it"
    )
    assert not [entry for entry in sandbox.record()["requests"] if entry["method"] == LOOKUP]


@pytest.mark.parametrize("create", [False, True])
def test_missing_columns_are_named_before_the_first_look_up(
    warehouse: Warehouse,
    sandbox: SandboxProcess,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    create: bool,
) -> None:
    warehouse.sql(
        "CREATE TABLE answers (BIZ_ID VARCHAR(9), plan_id INTEGER, campaign_key VARCHAR(9), a VARCHAR(9))"
    )
    text = run.fails(transfer(campaign=submit(3), create_table=create))
    named, statements = text.split(": add them (")
    assert named == (
        "table answers on connection 'warehouse' lacks the columns task_id, status, output_params, fetched_at, b"
    )
    statements, _, ways_out = statements.partition("), ")
    assert ways_out == "choose slots, or name a table that is not there yet, with create_table=True"
    # They are what is to be done.
    for statement in statements.split("; "):
        warehouse.sql(statement)
    assert warehouse.sql("SELECT task_id, status, output_params, fetched_at, b FROM answers") == []
    assert not [entry for entry in sandbox.record()["requests"] if entry["method"] == LOOKUP]


def test_a_table_that_cannot_be_created_says_what_it_needs(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed
) -> None:
    text = run.fails(transfer(biz_ids=["A"], table="no_such_schema.answers", **pushed([])))
    assert "table no_such_schema.answers can be neither read nor created" in text
    assert "Create it yourself, with the columns biz_id" in text


@pytest.mark.proof
def test_a_table_may_be_in_a_schema(
    make_warehouse: Callable[[str], Warehouse],
    run: Run,
    transfer: MakeTransfer,
    pushed: Pushed,
    counts: Counts,
) -> None:
    warehouse = make_warehouse("psycopg2")
    warehouse.sql("CREATE SCHEMA dw")
    try:
        value = run.execute(transfer(biz_ids=["A"], table="dw.answers", **pushed([("A", "")])))
        assert value["table"] == "dw.answers"
        assert warehouse.rows("status", of="dw.answers") == {"A": None}
    finally:
        warehouse.sql("DROP SCHEMA dw CASCADE")


def test_a_column_of_the_user_that_must_be_filled_is_an_error_without_values(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse.sql(
        "CREATE TABLE answers (biz_id VARCHAR(9), task_id VARCHAR(9), plan_id BIGINT, campaign_key VARCHAR(9), "
        "status VARCHAR(9), output_params TEXT, fetched_at VARCHAR(99), note VARCHAR(9) NOT NULL)"
    )
    warehouse.sql("INSERT INTO answers VALUES ('A', NULL, 0, '', 'old', '{}', '', 'mine')")
    answers = pushed([("A", '{"x": "CANARY"}', "OK"), ("B", '{"x": "CANARY"}', "OK")])
    with caplog.at_level(logging.DEBUG):
        text = run.stops(transfer(biz_ids=["A", "B"], **answers))
    # All of a page or nothing.
    assert warehouse.rows("status", "output_params") == {"A": ("old", "{}")}
    # MariaDB distinguishes this from a key by its number only.
    assert "error 1364" in text or "columns of your own must allow NULL or have a default" in text
    assert "CANARY" not in text + caplog.text


def test_a_value_that_a_column_cannot_hold_is_an_error_without_values(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, caplog: pytest.LogCaptureFixture
) -> None:
    if warehouse.kind == "sqlite":
        return  # It holds anything anywhere.
    warehouse.sql(
        "CREATE TABLE answers (biz_id VARCHAR(9), task_id VARCHAR(9), plan_id BIGINT, campaign_key VARCHAR(9), "
        "status VARCHAR(9), output_params VARCHAR(5), fetched_at VARCHAR(99))"
    )
    one = transfer(biz_ids=["A"], **pushed([("A", '{"x": "CANARY"}')]))
    with caplog.at_level(logging.DEBUG), pytest.raises(AirflowException) as caught:
        run.execute(one)
    # As it is logged, with every error that led to it.
    text = "".join(traceback.format_exception(caught.value))
    assert "the database of the results (connection 'warehouse') failed: " in text
    assert "Of 1 recipients 0 were written, 1 were not looked up. A retry goes on" in text
    assert "CANARY" not in text + caplog.text
    assert warehouse.rows("status") == {}


# --- what fails for the moment -----------------------------------------------------------------------------------


def test_retry_resumes_after_failed_look_ups(
    warehouse: Warehouse,
    sandbox: SandboxProcess,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    counts: Counts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__LOOKUPS_AT_A_TIME", "1")
    manifest = submit(200)
    # 50 recipients in one look-up: two look-ups succeed.
    sandbox.add_fault(kind="http", status=502, method=LOOKUP, times=None, after=2)
    text = run.stops(transfer(campaign=manifest))
    assert "1 look-up(s) failed, the last: " in text
    assert "Of 200 recipients 100 were written, 100 were not looked up. A retry goes on from there" in text
    assert len(warehouse.rows("a")) == 100
    sandbox.clear_faults()
    value = counts(run.execute(transfer(campaign=manifest)))
    assert (value["inserted"], value["updated"]) == (100, 100)
    assert len(warehouse.rows("a")) == 200


def test_retry_resumes_after_a_failed_database(
    warehouse: Warehouse,
    run: Run,
    transfer: MakeTransfer,
    pushed: Pushed,
    counts: Counts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push = pushed([(f"A{n}", '{"x": "1"}') for n in range(1500)])
    ids = [f"A{n}" for n in range(1500)]
    write = ResultsTable.write

    def broken(self: ResultsTable, rows: Any) -> Any:
        if len(rows) < 1000:
            self.name = "nowhere"
        return write(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(ResultsTable, "write", broken)
        text = run.stops(transfer(biz_ids=ids, slots=["x"], **push))
    assert "the database of the results (connection 'warehouse') failed: " in text
    assert "Of 1500 recipients 1000 were written, 500 were not looked up. A retry goes on" in text
    assert len(warehouse.rows("x")) == 1000
    value = counts(run.execute(transfer(biz_ids=ids, slots=["x"], **push)))
    assert (value["inserted"], value["updated"]) == (500, 1000)


def test_look_up_that_no_retry_can_cure_is_final(
    sandbox: SandboxProcess, sqlite: Warehouse, run: Run, submit: Submit, transfer: MakeTransfer
) -> None:
    query = RESULT_QUERY | {"items_path": "result.dta"}
    assert "no 'dta' in result, which holds: " in run.fails(transfer(campaign=submit(), result_query=query))


def test_failed_queries_and_connections_may_be_retried(
    sandbox: SandboxProcess,
    sqlite: Warehouse,
    run: Run,
    transfer: MakeTransfer,
    audience_db: FillDb,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audience_db(["a"], [])
    broken = {"ids_sql": "SELECT x FROM nowhere", "ids_conn_id": "audience_db"}
    text = run.stops(transfer(**broken))
    assert "no such table: nowhere. No recipient was looked up yet. A retry goes on" in text
    assert "'nope' is not defined" in run.stops(transfer(biz_ids=["A"], sql_conn_id="nope"))
    with pytest.raises(AirflowException, match="which is not a SQL database"):
        run.execute(transfer(biz_ids=["A"], sql_conn_id="lingyang_default"))
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": "/nowhere/x.db"}))
    assert "the database of the results (connection 'warehouse') cannot be reached" in run.stops(
        transfer(biz_ids=["A"])
    )


@pytest.mark.parametrize("kind", ["psycopg2", "psycopg3", "mariadb", "sqlite"])
def test_concurrent_writers_leave_one_row_per_recipient(
    kind: str,
    make_warehouse: Callable[[str], Warehouse],
    run: Run,
    transfer: MakeTransfer,
    pushed: Pushed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warehouse = make_warehouse(kind)
    ids = {"biz_ids": [f"A{n}" for n in range(300)], "slots": ["x"]}
    push = pushed([(f"A{n}", '{"x": "1"}') for n in range(300)])
    run.execute(transfer(**ids | {"biz_ids": ["first"]}, **push))
    from airflow_provider_lingyang.storage.database import Transaction

    barrier = threading.Barrier(2)
    insert, met = Transaction.insert, threading.local()

    def after_both_have_looked(self: Transaction, *arguments: Any) -> None:
        if not hasattr(met, "once"):
            met.once = True
            barrier.wait(600)
        insert(self, *arguments)

    monkeypatch.setattr(Transaction, "insert", after_both_have_looked)
    found: list[Any] = []

    def work(number: int) -> None:
        try:
            found.append(run.execute(transfer(task_id=f"to_sql{number}", **ids, **push))["counts"])
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((value["inserted"], value["updated"]) for value in found) == [(0, 300), (300, 0)]
    assert len(warehouse.rows("x")) == 300


def test_concurrent_tasks_may_create_the_table(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = pushed([("A", "")])
    barrier = threading.Barrier(2)
    created = ResultsTable._create

    def together(self: ResultsTable) -> Any:
        barrier.wait(600)
        return created(self)

    monkeypatch.setattr(ResultsTable, "_create", together)
    found: list[Any] = []

    def work(biz_id: str) -> None:
        try:
            found.append(run.execute(transfer(biz_ids=[biz_id], **push))["counts"]["recipients"])
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=work, args=(biz_id,)) for biz_id in ("A", "B")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1, 1]


def test_slow_database_does_not_delay_look_ups(
    sandbox: SandboxProcess,
    sqlite: Warehouse,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look-up whose answer the event loop reads late would time out."""
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "5000")
    monkeypatch.setenv("AIRFLOW__LINGYANG__LOOKUPS_AT_A_TIME", "2")
    manifest = submit(1200)
    connection = sandbox.connection(timeout=3, max_attempts=1)
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(connection))
    sandbox.add_fault(kind="slow", seconds=0.3, method=LOOKUP, times=2, after=20)
    write = ResultsTable.write

    def slow(self: ResultsTable, rows: Any) -> Any:
        time.sleep(3.5)
        return write(self, rows)

    monkeypatch.setattr(ResultsTable, "write", slow)
    assert run.execute(transfer(campaign=manifest))["counts"]["rows"] == 1200


def test_interrupt_leaves_whole_pages_and_no_thread(
    sqlite: Warehouse,
    sandbox: SandboxProcess,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Timeout(BaseException):
        """As Airflow's execution_timeout."""

    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "5000")
    manifest = submit(1200)
    insert_many = ResultsTable._write

    def interrupted(self: ResultsTable, run: Run, rows: Any, fetched_at: Any) -> Any:
        new = insert_many(self, run, rows, fetched_at)
        if len(rows) < 1000:
            raise Timeout
        return new

    monkeypatch.setattr(ResultsTable, "_write", interrupted)
    with pytest.raises(Timeout):
        run.execute(transfer(campaign=manifest))
    assert len(sqlite.rows("a")) == 1000
    assert not [thread for thread in threading.enumerate() if thread.name == "lingyang-poll"]


# --- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"biz_ids": None}, "give one source of ids"),
        ({"campaign": {}}, "give one source of ids"),
        ({"results_sql": "SELECT 1"}, "results_sql and results_conn_id belong together"),
        ({"required_slots": "a"}, "required_slots must be a list"),
        ({"required_slots": ["status"]}, "required_slots: 'status' would be column 'status', which the table has for itself"),
        ({"slots": "a"}, "slots must be a list of names"),
        ({"slots": [1]}, "slots must be a list of names"),
        ({"slots": ["a", "a"]}, "slots holds a name twice"),
        ({"slots": ["a", "A"]}, "slots: 'a' and 'A' would both be column 'A': name another column, slots={'A': '…'}"),
        ({"slots": {"a": "x", "b": "X"}}, "slots: 'a' and 'b' would both be column 'X'"),
        ({"slots": {"a": ""}}, "slots: 'a' must name a column"),
        ({"slots": {"a": None}}, "slots: 'a' must name a column"),
        ({"slots": ["Fetched_At"]}, "slots: 'Fetched_At' would be column 'Fetched_At', which the table has for itself"),
        ({"slots": {"a": "BIZ_ID"}}, "which the table has for itself"),
        ({"slots": ["how long?"]}, "'how long\\?' cannot name a column"),
        ({"slots": ["100%"]}, "cannot name a column"),
        ({"slots": ["a\0"]}, "cannot name a column"),
        ({"slots": [" a"]}, "cannot name a column"),
        ({"slots": ["意" * 22]}, "longer than the 63 bytes"),
        ({"table": "answers; DROP TABLE x"}, "table must be a plain name"),
        ({"table": "dw..answers"}, "table must be a plain name"),
        ({"table": '"answers"'}, "table must be a plain name"),
        ({"table": "a.b.c.d"}, "table must be a plain name"),
        ({"table": "answers\n"}, "table must be a plain name"),
        ({"table": ""}, "table must be a plain name"),
        ({"create_table": "yes"}, "create_table must be True or False"),
    ],
)  # fmt: skip
def test_invalid_arguments_fail_while_the_dag_is_parsed(
    transfer: MakeTransfer, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ArgumentError, match=expected):
        transfer(**{"biz_ids": ["1"]} | changes)


def test_table_and_connection_are_required() -> None:
    with pytest.raises((AirflowException, TypeError), match="table"):
        LingyangToSqlOperator(task_id="to_sql", biz_ids=["1"], sql_conn_id="x")  # type: ignore[call-arg]


def test_rendered_arguments_are_checked_before_writing(
    sandbox: SandboxProcess, sqlite: Warehouse, run: Run, submit: Submit, transfer: MakeTransfer
) -> None:
    assert {"table", "sql_conn_id", "campaign", "results_sql"} <= set(LingyangToSqlOperator.template_fields)
    one = transfer(biz_ids=["A"], table="{{ params.table }}")
    one.table = "answers; DROP TABLE x"
    assert "table must be a plain name" in run.fails(one)
    text = run.fails(transfer(campaign=submit(3, output_slots=["status"])))
    assert text == (
        "the campaign's output_slots: 'status' would be column 'status', which the table has for itself: name another "
        "column, slots={'status': '…'}"
    )
    assert "campaign must be the manifest" in run.fails(transfer(campaign={"x": 1}))


# --- privacy --------------------------------------------------------------------------------------------


def test_logs_and_errors_hold_no_data_of_recipients(
    warehouse: Warehouse,
    sandbox: SandboxProcess,
    run: Run,
    submit: Submit,
    transfer: MakeTransfer,
    pushed: Pushed,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lingyang_to_sql, "_LOG_INTERVAL", 0.0)
    audience = [
        {
            "biz_id": f"B{n}",
            "phone_number": f"13700770{n}",
            "user_name": f"CANARY{n}",
            "input_params": {"a": "CANARY"},
        }
        for n in range(3)
    ]
    manifest = submit(audience=audience)
    answers = [(f"B{n}", '{"a": "CANARYanswer", "b": "CANARYanswer"}', "OK") for n in range(3)]
    with caplog.at_level(logging.DEBUG):
        first = run.execute(transfer(campaign=manifest))
        second = run.execute(transfer(campaign=manifest, **pushed(answers)))
        # A table whose constraint the driver explains with the row.
        check = f"ALTER TABLE answers ADD CONSTRAINT short CHECK ({warehouse.quote}a{warehouse.quote} <> 'CANARYlast')"
        last = pushed([("B0", '{"a": "CANARYlast", "b": "x"}', "OK")])
        errors = ""
        if warehouse.kind != "sqlite":
            warehouse.sql(check)
            with pytest.raises(AirflowException) as caught:
                run.execute(transfer(campaign=manifest, **last))
            # As it is logged, with every error that led to it.
            errors = "".join(traceback.format_exception(caught.value))
            assert "failed" in errors or "refused a row" in errors
    assert set(warehouse.rows("a").values()) == {"CANARYanswer"}
    shown = json.dumps([first, second], ensure_ascii=False) + errors + caplog.text
    assert "table answers: recipients 3" in shown
    for canary in ("CANARY", "13700770", *simulated_people.CHOICES):
        assert canary not in shown
