"""Shards of a campaign keep one order of ``batch_num``. The gateway's record is the judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.delivery.schedule import DeferSending, SendSchedule
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

    def report_progress(self, batch: str) -> Sequence[Shard]:
        return [Shard(0, batch, self.shards[0].since, True), *self.shards[1:]]


def order(ledger: Ledger, shards: int, *, killed: bool = False) -> ShardOrder:
    clock = SkippingClock()
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
def test_a_batch_that_no_shard_is_behind_is_sent(batches: Sequence[str], batch_num: str | None) -> None:
    order(Progress(OWN, *others(*batches)), len(batches) + 1).wait_for(batch_num)


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        (("0014",), "batch_num 5 waits for the earlier ones of other shards: map_index 1 is at batch_num 4"),
        (("",), r"map_index 1 is at batch_num \(none\)"),
        (("000",), "map_index 1 is at batch_num 0"),
        (("0014",) * 12, "map_index 10 is at batch_num 4; 2 more are behind"),
    ],
)
def test_what_a_batch_waits_for_is_said(batches: Sequence[str], why: str) -> None:
    with pytest.raises(DeferSending, match=why):
        order(Progress(OWN, *others(*batches)), len(batches) + 1).wait_for("5")


def test_a_task_that_is_asked_to_stop_waits_for_no_shard() -> None:
    with pytest.raises(SubmissionStopped, match="asked to stop"):
        order(Progress(OWN, *others("")), 2, killed=True).wait_for("5")
