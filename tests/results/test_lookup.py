"""Polls of the gateway, and of a table of results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.errors import AnswerLostError, CallRefusedError, ThrottledError
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.lookup import PollOutcome, poll_gateway, poll_table
from airflow_provider_lingyang.results.recipient_store import PAGE, RecipientRow, RecipientStore
from tests.results.conftest import CRITERIA, add, done


async def at_once(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


class Platform:
    """Answers for all recipients, after a while; notes the ids that were looked up."""

    def __init__(self, *errors: Exception) -> None:
        self.looked_up: list[list[str]] = []
        self.busy = self.peak = 0
        self.errors = list(errors)

    async def __call__(self, recipients: Sequence[RecipientRow]) -> Mapping[str, TaskResult]:
        self.looked_up.append([biz_id for _, biz_id, _ in recipients])
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        if self.errors:
            raise self.errors.pop(0)
        return {biz_id: done(biz_id) for _, biz_id, _ in recipients}


def poll(
    store: RecipientStore, platform: Platform, *, max_concurrent: int = 3, per_call: int = 2
) -> PollOutcome:
    return asyncio.run(
        poll_gateway(store, platform, at_once, ids_per_call=per_call, max_concurrent_calls=max_concurrent)
    )


@pytest.mark.parametrize(("count", "per_call"), [(0, 2), (7, 2), (PAGE + 1, 3), (2 * PAGE, 1), (5, 50)])
def test_limits_concurrent_calls_and_looks_each_recipient_up_once(
    store: RecipientStore, count: int, per_call: int
) -> None:
    add(store, count)
    platform = Platform()
    found = poll(store, platform, per_call=per_call)
    assert sorted(int(biz_id) for some in platform.looked_up for biz_id in some) == list(range(1, count + 1))
    assert max(map(len, platform.looked_up), default=0) <= per_call
    assert platform.peak <= 3
    assert not found.failed
    assert store.progress(1.0).counts["answered"] == count
    assert poll(store, platform).calls == 0


def test_failed_calls_are_left_to_the_next_poll(store: RecipientStore) -> None:
    add(store, 10)
    platform = Platform(AnswerLostError("lost"))
    found = poll(store, platform)
    assert (found.calls, found.failed, found.reason) == (4, 1, "lost")
    assert found.failed
    assert store.progress(1.0).counts["answered"] == 8
    assert not poll(store, platform).failed
    assert store.progress(1.0).complete


def test_poll_ends_early_when_every_call_fails(store: RecipientStore) -> None:
    add(store, 1000)
    platform = Platform(*[AnswerLostError("lost")] * 1000)
    assert poll(store, platform).failed <= 6


def test_rate_limit_ends_the_poll_with_retry_after(store: RecipientStore) -> None:
    add(store, 1000)
    platform = Platform(ThrottledError("no", retry_after=31_062.0))
    found = poll(store, platform)
    assert found.retry_after == 31_062.0
    assert len(platform.looked_up) <= 4


def test_error_that_no_retry_can_cure_ends_the_poll(store: RecipientStore) -> None:
    add(store, 1000)
    platform = Platform(AnswerLostError("lost"), CallRefusedError("signature"))
    with pytest.raises(CallRefusedError):
        poll(store, platform)
    assert len(platform.looked_up) <= 6


# --- reading a table ---------------------------------------------------------------------------------------------


def test_table_rows_are_matched_and_those_of_others_ignored() -> None:
    store = RecipientStore(CRITERIA, state_if_unknown="waiting")
    store.add([(str(number), "7" if number == 5 else None) for number in range(1, 6)])
    rows = [
        TaskResult("1", {"a": ""}, "RUNNING"),
        done("1", {"a": "first"}),
        done("1", {"a": "second"}),
        TaskResult("2", {"a": ""}, "RUNNING"),
        done("stranger"),
        TaskResult("3", {}, "GONE"),
        done("5", {"a": "another campaign's"}, task_id="8"),
        done("5", {"a": "ours"}, task_id="7"),
    ]
    assert not poll_table(store, rows).failed
    progress = store.progress(1.0)
    assert progress.counts == {"recipients": 5, "finished": 3, "answered": 2, "not_reached": 1} | {
        "waiting": 2,
        "unknown": 0,
        "foreign": 0,
    }
    assert store.value_counts() == {"a": {"first": 1, "ours": 1}}
    store.close()


@pytest.mark.parametrize("between", [0, 3, 2 * PAGE], ids=["together", "near", "thousands of rows apart"])
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("task_id", "rows", "state", "value"),
    [
        ("7", [done("1", {"a": "x"}, task_id="8"), done("1", {"a": "own"}, task_id="7")], "answered", "own"),
        ("7", [TaskResult("1", {}, "GONE", "7"), done("1", {"a": "x"}, task_id="8")], "not_reached", None),
        ("7", [TaskResult("1", {}, "RUNNING", "7"), done("1", {"a": "x"}, task_id="8")], "waiting", None),
        (None, [TaskResult("1", {}, "GONE"), done("1", {"a": "done"})], "answered", "done"),
        (None, [TaskResult("1", {}, "RUNNING"), TaskResult("1", {}, "GONE")], "not_reached", None),
        (
            None,
            [
                done("1", {"a": "old"}, created_at="2026-01-01 10:00:00"),
                done("1", {"a": "new"}, created_at="2026-01-02 10:00:00"),
            ],
            "answered",
            "new",
        ),
        (
            None,
            [
                done("1", {"a": "old"}, created_at="2026-01-01 10:00:00"),
                TaskResult("1", {}, "GONE", created_at="2026-01-02 10:00:00"),
            ],
            "not_reached",
            None,
        ),
    ],
)
def test_one_of_several_rows_counts_in_any_order(
    task_id: str | None, rows: list[TaskResult], state: str, value: str | None, order: int, between: int
) -> None:
    store = RecipientStore(CRITERIA, state_if_unknown="waiting")
    store.add([("1", task_id)])
    first, second = rows[::order]
    others = [done(f"other {number}") for number in range(between)]
    poll_table(store, [first, *others, second])
    progress = store.progress(1.0)
    assert progress.counts[state] == 1
    assert store.value_counts() == {"a": {} if value is None else {value: 1}}
    store.close()


def test_unreadable_slots_are_logged_once_a_poll_with_their_keys(
    store: RecipientStore, caplog: pytest.LogCaptureFixture
) -> None:
    add(store, 3)
    message = {"call_result": {"data": {}}, "10000000001": "CANARY"}
    rows = [TaskResult(str(number), message) for number in range(1, 4)]
    with caplog.at_level("WARNING"):
        for _ in range(2):
            poll_table(store, rows)
    assert store.progress(1.0).unreadable == 3
    assert len(caplog.messages) == 2
    assert "an object with call_result, …" in caplog.text
    assert "CANARY" not in caplog.text
    assert "10000000001" not in caplog.text
