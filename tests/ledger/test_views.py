"""The views that people read: one line for each recipient and row, whatever the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_lingyang.ledger.base import Outcome
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
        ("d", "in_doubt", None, *common, None, *run),
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
