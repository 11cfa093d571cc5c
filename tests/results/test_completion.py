"""What a set of answers means."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import (
    CompletionCriteria,
    WaitProgress,
    empty_slots,
    state_of,
)

STATUS = (("DONE",), ("GONE",))
PLAIN: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@pytest.mark.parametrize(
    ("statuses", "status", "slots", "required", "expected"),
    [
        (STATUS, "DONE", {}, ["a"], "answered"),
        (STATUS, "GONE", {"a": "x"}, ["a"], "not_reached"),
        (STATUS, "RUNNING", {"a": "x"}, ["a"], "waiting"),
        (STATUS, None, {"a": "x"}, ["a"], "answered"),
        (STATUS, None, {"a": ""}, ["a"], "waiting"),
        (PLAIN, None, {"a": "x", "b": 0}, ["a", "b"], "answered"),
        (PLAIN, None, {"a": "x", "b": False}, ["a", "b"], "answered"),
        (PLAIN, None, {"a": "x", "b": " "}, ["a", "b"], "waiting"),
        (PLAIN, None, {"a": "x", "b": None}, ["a", "b"], "waiting"),
        (PLAIN, None, {"a": "x"}, ["a", "b"], "waiting"),
        (PLAIN, None, {"a": "x"}, [], "waiting"),
    ],
)
def test_state_of_a_recipient(
    statuses: Any, status: str | None, slots: dict[str, Any], required: list[str], expected: str
) -> None:
    assert state_of(TaskResult("1", slots, status), CompletionCriteria(required, *statuses)) == expected


def test_recipient_without_result_is_unknown() -> None:
    assert state_of(None, CompletionCriteria(["a"])) == "unknown"


@pytest.mark.parametrize(
    ("accepted", "result_task", "expected"),
    [("7", "7", "answered"), ("7", "8", "foreign"), (None, "8", "answered"), ("7", None, "answered")],
)
def test_result_of_another_task_is_foreign(
    accepted: str | None, result_task: str | None, expected: str
) -> None:
    assert (
        state_of(TaskResult("1", {"a": "x"}, task_id=result_task), CompletionCriteria(["a"]), accepted)
        == expected
    )


def test_empty_slots() -> None:
    assert empty_slots(TaskResult("1", {"a": "x", "b": " "}), CompletionCriteria(["a", "b", "c"])) == [
        "b",
        "c",
    ]


@pytest.mark.parametrize(
    ("ratio", "finished", "complete"), [(0.07, 7, True), (0.07, 6, False), (1.0, 99, False), (1.0, 100, True)]
)
def test_the_ratio_is_exact(ratio: float, finished: int, complete: bool) -> None:
    states = {"answered": finished - 1, "not_reached": 1, "waiting": 100 - finished}
    progress = WaitProgress.of(states, ratio)
    assert progress.complete is complete
    assert progress.counts["recipients"] == 100
    assert progress.counts["finished"] == finished


@pytest.mark.parametrize(
    ("waiting", "unknown", "foreign", "out_of_reach"),
    [(5, 0, 0, False), (4, 1, 0, False), (3, 2, 0, True), (3, 1, 1, True), (0, 5, 0, True)],
)
def test_completion_is_out_of_reach_with_too_many_unknown(
    waiting: int, unknown: int, foreign: int, out_of_reach: bool
) -> None:
    states = {"answered": 5, "waiting": waiting, "unknown": unknown, "foreign": foreign}
    assert WaitProgress.of(states, 0.9).out_of_reach is out_of_reach


def test_no_recipients_are_complete() -> None:
    assert WaitProgress.of({}, 1.0).complete


def test_progress_names_recipients_and_slots() -> None:
    progress = WaitProgress.of(
        {"answered": 1, "not_reached": 2, "waiting": 3, "unknown": 4, "foreign": 5},
        1.0,
        empty={"a": 2, "b": 1},
        unreadable=1,
        first=["x", "y"],
    )
    assert str(progress) == (
        "3 of 15 finished: 1 answered, 2 not reached; 3 waiting, 4 unknown to the gateway, 5 with a result of another "
        "task only; not filled yet: a 2, b 1; 1 with slots that cannot be read"
    )
    assert progress.unfinished_ids() == "x, y and 10 more"


def test_undefined_statuses_are_named_with_their_counts() -> None:
    statuses = {"RUNNING": 2, "Queued for 13800000001 at the line": 1, "PAUSED": 7}
    progress = WaitProgress.of({"waiting": 10}, 1.0, statuses=statuses)
    assert "status in neither done_values nor failed_values: 'PAUSED' 7, 'RUNNING' 2, … 1" in str(progress)
