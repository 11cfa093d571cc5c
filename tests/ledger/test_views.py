"""The views that people read: one line for each recipient and row, whatever the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_lingyang.errors import LedgerFencedError
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.unsent_row import UnsentRow
from tests.ledger.conftest import SqlLedgers

AT = datetime(2026, 1, 5, 1, 2, 3, 500_000, UTC)


def select(database: SqlLedgers, view: str, columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in database.sql(f"SELECT {columns} FROM {view} ORDER BY {columns}")]


@pytest.fixture
def sent(database: SqlLedgers) -> SqlLedgers:
    ledger = database.start(dag_id="weekly", run_id="monday", task_id="submit", map_index=3)
    ledger.write([], [database.intent("one", "abcd", written_at=AT.timestamp())])
    ledger.write(
        [Outcome("one", {"a": 501}, ["b"], ["c"], ["d"], reason="refused [isv.x]", request_id="req-1")], []
    )
    ledger.finish()
    return database


def test_each_recipient_is_a_line(sent: SqlLedgers) -> None:
    columns = (
        "biz_id, state, reason, batch_num, task_unique_code, platform_task_id, request_id, dag_id, run_id"
    )
    common = ("7", "one")
    run = ("req-1", "weekly", "monday")
    assert select(sent, "lingyang_recipients", columns) == [
        ("a", "accepted", None, *common, 501, *run),
        ("b", "rejected", "refused [isv.x]", *common, None, *run),
        ("c", "not_sent", "refused [isv.x]", *common, None, *run),
        ("d", "in_doubt", "refused [isv.x]", *common, None, *run),
    ]
    (others,) = set(
        select(sent, "lingyang_recipients", "campaign_key, plan_id, generation, task_id, map_index")
    )
    assert others == ("campaign", 1, 1, "submit", 3)


def test_moments_are_utc(sent: SqlLedgers) -> None:
    (written,) = {row[0] for row in select(sent, "lingyang_recipients", "written_at")}
    moment = written if isinstance(written, datetime) else datetime.fromisoformat(written)
    assert moment == AT.replace(tzinfo=None)
    ((started, ended),) = select(sent, "lingyang_campaigns", "started_at, ended_at")
    now = datetime.now(UTC).replace(tzinfo=None)
    for text in (started, ended):
        at = text if isinstance(text, datetime) else datetime.fromisoformat(text)
        assert abs((now - at).total_seconds()) < 3600


def test_each_generation_of_a_campaign_is_a_line_with_its_counts(sent: SqlLedgers) -> None:
    sent.start(campaign_key="other", plan_id=9, run_id="tuesday")
    columns = "campaign_key, plan_id, run_id, accepted, rejected, invalid, excluded, not_sent, in_doubt"
    assert select(sent, "lingyang_campaigns", columns) == [
        ("campaign", 1, "monday", 1, 1, 0, 0, 1, 1),
        ("other", 9, "tuesday", 0, 0, 0, 0, 0, 0),
    ]
    unfinished = "SELECT campaign_key FROM lingyang_campaigns WHERE ended_at IS NULL"
    assert [tuple(row) for row in sent.sql(unfinished)] == [("other",)]


def line(number: int, state: str, biz_id: str | None = None, **changes: Any) -> UnsentRow:
    return UnsentRow(
        number, state, changes.get("is_recipient", False), "7", biz_id, changes.get("reason", "why")
    )


def test_rows_in_no_request_are_lines_too_until_more_is_known(sent: SqlLedgers) -> None:
    """Of two task instances, the second of which gets further."""
    columns = "row_no, biz_id, state, reason, task_id"
    first = sent.start(task_id="first")
    rows = [
        line(1, "invalid"),
        line(2, "invalid", "x", reason="客户 " + "y" * 300),
        line(3, "invalid", "a"),
        line(4, "not_sent", "b", is_recipient=True),
        line(5, "not_sent", "e", is_recipient=True),
        line(6, "in_doubt", "f", is_recipient=True),
        line(7, "excluded", "g"),
    ]
    first.explain(iter(rows), {})

    def unsent() -> list[tuple[Any, ...]]:
        lines = sent.sql(
            f"SELECT {columns} FROM lingyang_recipients WHERE row_no IS NOT NULL ORDER BY row_no, task_id"
        )
        return [tuple(row) for row in lines]

    assert unsent() == [
        (1, None, "invalid", "why", "first"),
        (2, "x", "invalid", "客户 " + "y" * 247, "first"),
        (3, None, "invalid", "why", "first"),
        (5, "e", "not_sent", "why", "first"),
        (6, "f", "in_doubt", "why", "first"),
        (7, "g", "excluded", "why", "first"),
    ]
    counts = "accepted, rejected, invalid, excluded, not_sent, in_doubt"
    assert select(sent, "lingyang_campaigns", counts) == [(1, 1, 3, 1, 2, 2)]
    second = sent.start(task_id="second")
    second.write([], [sent.intent("two", "ex")])
    second.write([Outcome("two", {}, in_doubt=["e", "x"])], [])
    second.explain(
        iter([line(1, "not_sent", "f", is_recipient=True), line(2, "invalid")]), {"two": "time-out"}
    )
    assert unsent() == [
        (1, None, "invalid", "why", "first"),
        (1, "f", "not_sent", "why", "second"),
        (2, None, "invalid", "why", "second"),
        (3, None, "invalid", "why", "first"),
        (7, "g", "excluded", "why", "first"),
    ]
    assert select(sent, "lingyang_campaigns", counts) == [(1, 1, 3, 1, 2, 3)]
    doubts = "SELECT biz_id, reason FROM lingyang_recipients WHERE state='in_doubt' ORDER BY biz_id"
    assert [tuple(row) for row in sent.sql(doubts)] == [
        ("d", "refused [isv.x]"),
        ("e", "time-out"),
        ("x", "time-out"),
    ]
    # A later end of the first task instance: its rows replace its rows, and its doubts are its own.
    first.explain(iter([]), {"two": "another's", "one": "another reason"})
    assert [row[-1] for row in unsent()] == ["second", "second"]
    assert [row[1] for row in sent.sql(doubts)] == ["refused [isv.x]", "time-out", "time-out"]


def test_a_process_that_was_replaced_writes_no_rows(database: SqlLedgers) -> None:
    before = database.start()
    database.next_try().explain(iter([line(1, "invalid")]), {})
    with pytest.raises(LedgerFencedError):
        before.explain(iter([line(1, "not_sent", "a", is_recipient=True)]), {})
    assert select(database, "lingyang_recipients", "row_no, state") == [(1, "invalid")]
