"""Shards of a campaign keep one order of ``batch_num``. The gateway's record is the judge."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSkipException,
    BaseHook,
    TaskDeferred,
)

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.delivery import lateness
from airflow_provider_lingyang.delivery.schedule import DeferSending, SendSchedule, SendWindow
from airflow_provider_lingyang.delivery.shard_order import ShardOrder
from airflow_provider_lingyang.errors import SubmissionStopped
from airflow_provider_lingyang.ledger.base import Ledger, Shard
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import Campaign, all_reached_once, row, sent
from tests.helpers.clock import SkippingClock

Instances = Callable[..., Mapping[int, Campaign]]


def test_a_batch_waits_for_the_earlier_ones_of_all_shards(
    without_lookup: SandboxProcess, instances: Instances
) -> None:
    shards = instances(shards=2)
    first = shards[0].operator(audience=[row(1, "1"), row(2, "2"), row(3, "10")])
    second = shards[1].operator(audience=[row(4, "2"), row(5, "1"), row(6, "10")])
    shards[0].next_try("waits", operator=first)
    assert sent(without_lookup) == []
    shards[1].next_try("waits", operator=second)
    with pytest.raises(TaskDeferred):
        shards[0].resume(first)
    shards[1].resume(second)
    shards[0].resume(first)
    assert sent(without_lookup) == [["B5"], ["B1"], ["B2"], ["B4"], ["B6"], ["B3"]]
    assert all_reached_once(without_lookup, 6)
    assert [shards[number].run.counts() for number in (0, 1)] == [
        {"audience": 3, "accepted": 1, "already_accepted": 2},
        {"audience": 3, "accepted": 2, "already_accepted": 1},
    ]


@pytest.mark.parametrize("of_other", [[], [row(9, "3")], [row(8, "1")]])
def test_a_shard_without_a_batch_holds_no_other_back(
    without_lookup: SandboxProcess, instances: Instances, of_other: list[dict[str, Any]]
) -> None:
    shards = instances(shards=2, on_empty="succeed")
    other = shards[1].operator(audience=of_other)
    if of_other and of_other[0]["batch_num"] == "3":
        shards[1].next_try("waits", operator=other)
    elif of_other:
        shards[0].next_try("waits", operator=shards[0].operator(audience=[row(1, "1"), row(2, "2")]))
        shards[1].next_try(operator=other)
    else:
        shards[1].next_try(operator=other)
    shards[0].next_try(audience=[row(1, "1"), row(2, "2")])
    assert sent(without_lookup)[-2:] == [["B1"], ["B2"]]


def test_shards_that_never_begin_are_named(
    without_lookup: SandboxProcess, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__SHARD_PATIENCE", "0")
    message = instances(shards=3)[1].next_try("stops", audience=[row(1, "7")])
    assert "batch_num 7 waits" in message
    assert "2 of 3 have not begun (not seen: map_index 0, 2)" in message
    assert "[lingyang] shard_patience" in message
    assert sent(without_lookup) == []


def test_each_run_of_a_campaign_keeps_an_order_of_its_own(
    without_lookup: SandboxProcess, instances: Instances
) -> None:
    how = {"shards": 2, "campaign_key": "spring", "on_empty": "succeed"}
    for run_id, number in (("monday", 1), ("tuesday", 3)):
        shards = instances(run_id, **how)
        first = shards[0].operator(audience=[row(number, "2")])
        shards[0].next_try("waits", operator=first)
        shards[1].next_try(audience=[row(number + 1, "1")])
        shards[0].resume(first)
    # One that never ended holds no later run up.
    instances("wednesday", **how)[0].next_try("waits", audience=[row(5, "1")])
    shards = instances("thursday", **how)
    shards[1].next_try(audience=[])
    shards[0].next_try(audience=[row(6, "9")])
    assert sent(without_lookup) == [["B2"], ["B1"], ["B4"], ["B3"], ["B6"]]


def test_a_shard_that_waits_for_its_turn_has_begun(
    without_lookup: SandboxProcess, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = instances(shards=2, max_lateness=timedelta(hours=1))
    first = shards[0].operator(audience=[row(1, "2")])
    shards[0].next_try("waits", operator=first)
    monkeypatch.setattr(lateness, "too_late", lambda *_: "this run is late")
    # One that has not begun is skipped, and holds no other up.
    with pytest.raises(AirflowSkipException, match="this run is late"):
        shards[1].next_try(audience=[row(2, "1")])
    shards[0].resume(first)
    assert sent(without_lookup) == [["B1"]]


def test_each_try_has_its_own_patience(
    without_lookup: SandboxProcess, instances: Instances, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = instances(shards=2)[0]
    operator = shard.operator(audience=[row(1, "1")])
    shard.next_try("waits", operator=operator)
    with closing(sqlite3.connect(BaseHook.get_connection("ledger").host)) as db:
        db.execute("UPDATE lingyang_ledger_shard SET since=since-7200")
        db.commit()
    with pytest.raises(AirflowException, match="shard_patience"):
        shard.resume(operator)
    shard.next_try("waits", operator=operator)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"shards": 2}, "shards needs ledger_conn_id"),
        ({"shards": 0, "ledger_conn_id": "ledger"}, "shards must be a whole number"),
        ({"shards": "4", "ledger_conn_id": "ledger"}, "shards must be a whole number"),
    ],
)
def test_shards_that_cannot_be_right_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArgumentError, match=problem):
        LingyangSubmitBatchOperator(task_id="submit", plan_id=1, audience=[], **arguments)


class Progress(Ledger):
    """Shards that are where they are."""

    def __init__(self, *shards: Shard) -> None:
        super().__init__()
        self.shards = shards

    def report_progress(self, batch: str, *, anew: bool = False) -> Sequence[Shard]:
        return [Shard(0, batch, self.shards[0].since, True), *self.shards[1:]]


def order(ledger: Ledger, shards: int, clock: SkippingClock, *, killed: bool = False) -> ShardOrder:
    cancellation = Cancellation(lambda: 0.0 if killed else None, monotonic=clock.monotonic, sleep=clock.sleep)
    return ShardOrder(
        ledger=ledger, shards=shards, patience=3600.0, schedule=SendSchedule(), cancellation=cancellation
    )


NOW = 4_000_000_000.0
OWN = Shard(0, "", NOW, True)


def others(*batches: str) -> list[Shard]:
    return [Shard(index, batch, NOW, False) for index, batch in enumerate(batches, 1)]


@pytest.mark.parametrize(
    ("batches", "batch_num"),
    [((), "5"), (("0015", "~"), "5"), (("0210",), "9"), (("0015",), "005"), (("",), None), (("0015",), None)],
)
def test_a_batch_that_no_shard_is_behind_is_sent(
    clock: SkippingClock, batches: Sequence[str], batch_num: str | None
) -> None:
    order(Progress(OWN, *others(*batches)), len(batches) + 1, clock).wait_for(batch_num)


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        (("0014",), "batch_num 5 waits for the earlier ones of other shards: map_index 1 is at batch_num 4"),
        (("",), r"map_index 1 is at batch_num \(none\)"),
        (("000",), "map_index 1 is at batch_num 0"),
        (("0014",) * 12, "map_index 10 is at batch_num 4; 2 more are behind"),
    ],
)
def test_what_a_batch_waits_for_is_said(clock: SkippingClock, batches: Sequence[str], why: str) -> None:
    with pytest.raises(DeferSending, match=why):
        order(Progress(OWN, *others(*batches)), len(batches) + 1, clock).wait_for("5")


def test_a_task_that_is_asked_to_stop_waits_for_no_shard(clock: SkippingClock) -> None:
    with pytest.raises(SubmissionStopped, match="asked to stop"):
        order(Progress(OWN, *others("")), 2, clock, killed=True).wait_for("5")


@pytest.mark.parametrize(
    ("window", "now", "stops"),
    [
        (None, "2026-01-05T12:00:00+08:00", True),
        ("09:00-20:30", "2026-01-05T12:00:00+08:00", True),
        ("09:00-20:30", "2026-01-05T09:30:00+08:00", False),
        ("09:00-20:30", "2026-01-05T08:00:00+08:00", False),
        ("21:00-06:00", "2026-01-05T01:00:00+08:00", True),
        ("21:00-06:00", "2026-01-05T21:30:00+08:00", False),
    ],
)
def test_hours_in_which_the_window_was_closed_do_not_count(
    clock: SkippingClock, monkeypatch: pytest.MonkeyPatch, window: str | None, now: str, *, stops: bool
) -> None:
    moment = datetime.fromisoformat(now)
    monkeypatch.setattr("airflow_provider_lingyang.delivery.shard_order.time", FixedTime(moment.timestamp()))
    shards = Progress(Shard(0, "", moment.timestamp() - 36_000, True), *others(""))
    waiting = order(shards, 2, clock)
    waiting.schedule = SendSchedule(window=SendWindow.parse(window), clock=lambda: moment)
    with pytest.raises(SubmissionStopped if stops else DeferSending):
        waiting.wait_for("5")


class FixedTime:
    """Stands for the module ``time``: each look at it is some seconds later, but for the day's."""

    def __init__(self, now: float) -> None:
        self._now, self._seconds = now, 0.0

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        self._seconds += 5
        return self._seconds
