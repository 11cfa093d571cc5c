"""What a set of answers means."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lingyang.campaign.results import Answers, state_of
from airflow_provider_lingyang.gateway.result_query import ResultQuery, TaskResult

STATUS = ResultQuery(
    method="m",
    biz_ids_field="ids",
    items_path="items",
    status_field="status",
    done_values=("DONE",),
    failed_values=("GONE",),
)
PLAIN = ResultQuery(method="m", biz_ids_field="ids", items_path="items")


@pytest.mark.parametrize(
    ("query", "status", "slots", "required", "expected"),
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
    query: ResultQuery, status: str | None, slots: dict[str, Any], required: list[str], expected: str
) -> None:
    assert state_of(TaskResult("1", slots, status), query, required) == expected


def test_a_recipient_that_the_gateway_does_not_know_is_unknown() -> None:
    assert state_of(None, PLAIN, ["a"]) == "unknown"


def test_answers_are_counted_and_finished_people_are_not_asked_again() -> None:
    answers = Answers(["1", "2", "3", "4"], STATUS, ["a"])
    answers.update({"1": TaskResult("1", {"a": "yes"}, "DONE"), "2": TaskResult("2", {"a": ""}, "RUNNING")})
    assert answers.pending() == ["2", "3", "4"]
    assert answers.verdict(1.0).counts == {
        "recipients": 4,
        "finished": 1,
        "answered": 1,
        "not_reached": 0,
        "waiting": 1,
        "unknown": 2,
    }
    answers.update({"2": TaskResult("2", {"a": "no"}, "DONE"), "3": TaskResult("3", {"a": ""}, "GONE")})
    verdict = answers.verdict(0.75)
    assert verdict.complete
    assert not answers.verdict(0.76).complete
    assert verdict.slots == {"a": {"yes": 1, "no": 1}}
    assert set(answers.results()) == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("ratio", "finished", "complete"), [(0.07, 7, True), (0.07, 6, False), (1.0, 99, False)]
)
def test_the_ratio_is_exact(ratio: float, finished: int, complete: bool) -> None:
    ids = [str(number) for number in range(100)]
    answers = Answers(ids, PLAIN, ["a"])
    answers.update({biz_id: TaskResult(biz_id, {"a": "x"}) for biz_id in ids[:finished]})
    assert answers.verdict(ratio).complete is complete


def test_many_different_values_are_summed_up() -> None:
    ids = [str(number) for number in range(100)]
    answers = Answers(ids, PLAIN, ["a"])
    answers.update({biz_id: TaskResult(biz_id, {"a": f"text {biz_id}"}) for biz_id in ids})
    values = answers.verdict(1.0).slots["a"]
    assert len(values) == 51
    assert sum(values.values()) == 100
