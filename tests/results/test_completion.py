"""What a set of answers means."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import Rules, Verdict, empty_slots, state_of

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
def test_how_far_a_recipient_is(
    statuses: Any, status: str | None, slots: dict[str, Any], required: list[str], expected: str
) -> None:
    assert state_of(TaskResult("1", slots, status), Rules(required, *statuses)) == expected


def test_a_recipient_that_the_gateway_does_not_know_is_unknown() -> None:
    assert state_of(None, Rules(["a"])) == "unknown"


@pytest.mark.parametrize(
    ("accepted", "told", "expected"),
    [("7", "7", "answered"), ("7", "8", "foreign"), (None, "8", "answered"), ("7", None, "answered")],
)
def test_an_answer_of_another_task_is_another_campaigns(
    accepted: str | None, told: str | None, expected: str
) -> None:
    assert state_of(TaskResult("1", {"a": "x"}, task_id=told), Rules(["a"]), accepted) == expected


def test_which_slots_are_waited_for() -> None:
    assert empty_slots(TaskResult("1", {"a": "x", "b": " "}), Rules(["a", "b", "c"])) == ["b", "c"]


@pytest.mark.parametrize(
    ("ratio", "finished", "complete"), [(0.07, 7, True), (0.07, 6, False), (1.0, 99, False), (1.0, 100, True)]
)
def test_the_ratio_is_exact(ratio: float, finished: int, complete: bool) -> None:
    states = {"answered": finished - 1, "not_reached": 1, "waiting": 100 - finished}
    verdict = Verdict.of(states, ratio)
    assert verdict.complete is complete
    assert verdict.counts["recipients"] == 100
    assert verdict.counts["finished"] == finished


@pytest.mark.parametrize(
    ("waiting", "unknown", "foreign", "out_of_reach"),
    [(5, 0, 0, False), (4, 1, 0, False), (3, 2, 0, True), (3, 1, 1, True), (0, 5, 0, True)],
)
def test_enough_is_out_of_reach_when_too_many_are_unknown(
    waiting: int, unknown: int, foreign: int, out_of_reach: bool
) -> None:
    states = {"answered": 5, "waiting": waiting, "unknown": unknown, "foreign": foreign}
    assert Verdict.of(states, 0.9).out_of_reach is out_of_reach


def test_nobody_to_wait_for_is_enough() -> None:
    assert Verdict.of({}, 1.0).complete


def test_it_says_who_and_which_slots_are_waited_for() -> None:
    verdict = Verdict.of(
        {"answered": 1, "not_reached": 2, "waiting": 3, "unknown": 4, "foreign": 5},
        1.0,
        empty={"a": 2, "b": 1},
        unreadable=1,
        first=["x", "y"],
    )
    assert str(verdict) == (
        "3 of 15 finished: 1 answered, 2 not reached; 3 waiting, 4 unknown to the gateway, 5 with an answer of another "
        "task only; not filled yet: a 2, b 1; 1 with slots that are no JSON"
    )
    assert verdict.who() == "x, y and 10 more"
