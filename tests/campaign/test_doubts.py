"""What a look-up proves about people in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from airflow_provider_lingyang.cancellation import Stop
from airflow_provider_lingyang.delivery.reconciler import Inquiry, Question
from airflow_provider_lingyang.gateway.errors import AnswerLostError
from airflow_provider_lingyang.lookup.query import TaskResult

INTENT = 1_769_860_800.0  # 2026-01-31 20:00:00 in China


class Gateway:
    """Tells who is there at which second; a look-up takes some time."""

    def __init__(
        self, found: Mapping[str, tuple[float, str | None]], takes: float = 0.0, fails: int = 0
    ) -> None:
        self.found, self.takes, self.fails = found, takes, fails
        self.now = 0.0
        self.asked: list[float] = []

    def look_up(self, biz_ids: Sequence[str]) -> dict[str, TaskResult]:
        self.asked.append(self.now)
        self.now += self.takes
        if len(self.asked) <= self.fails:
            raise AnswerLostError("x")
        return {
            biz_id: TaskResult(biz_id, {}, task_id="5", created_at=created)
            for biz_id, (visible, created) in self.found.items()
            if biz_id in biz_ids and visible <= self.asked[-1]
        }

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def ask(gateway: Gateway, *, dated: bool = False, reused: bool = False, told: bool = False) -> Any:
    def monotonic() -> float:
        return gateway.now

    stop = Stop(lambda: 0.0 if told else None, monotonic=monotonic, sleep=gateway.sleep)
    inquiry = Inquiry(gateway.look_up, stop, dated=dated, reused=reused, monotonic=monotonic)
    (verdict,) = inquiry.ask([Question(["a", "b"], INTENT, 10.0)])
    return verdict.executed, verdict.not_executed, verdict.unknown


def test_everybody_found_needs_no_second_look() -> None:
    gateway = Gateway({"a": (0, None), "b": (0, None)})
    assert ask(gateway) == ({"a": 5, "b": 5}, [], [])
    assert gateway.asked == [0]


def test_not_found_counts_only_when_everything_must_be_visible() -> None:
    gateway = Gateway({"a": (0, None), "b": (9, None)})
    assert ask(gateway) == ({"a": 5, "b": 5}, [], [])
    assert gateway.asked[0] == 0
    assert gateway.asked[1] >= 10
    assert ask(Gateway({"a": (0, None)})) == ({"a": 5}, ["b"], [])


def test_a_first_look_that_takes_too_long_is_followed_by_a_second() -> None:
    gateway = Gateway({}, takes=11)
    assert ask(gateway) == ({}, ["a", "b"], [])
    assert len(gateway.asked) == 2


def test_a_look_up_that_fails_changes_nothing() -> None:
    assert ask(Gateway({}, fails=1)) == ({}, ["a", "b"], [])
    assert ask(Gateway({"a": (0, None)}, fails=2)) == ({}, [], ["a", "b"])


def test_a_task_that_is_told_to_stop_asks_no_more() -> None:
    assert ask(Gateway({"a": (0, None)}), told=True) == ({"a": 5}, [], ["b"])


@pytest.mark.parametrize(
    ("created", "reused", "expected"),
    [
        ("2026-01-31 20:00:01", False, "executed"),
        ("2026-01-31 19:55:00", False, "executed"),  # clocks may differ by ten minutes
        ("2026-01-31 19:48:00", False, "not executed"),  # an earlier campaign's
        ("no date", False, "unknown"),
        (None, False, "unknown"),
        ("2026-01-31 20:00:01", True, "executed"),
        ("2026-01-31 19:55:00", True, "unknown"),  # the generation before may be as young as that
        ("2026-01-31 19:48:00", True, "not executed"),
    ],
)
def test_a_time_of_creation_tells_this_campaign_from_an_earlier_one(
    created: str | None, reused: bool, expected: str
) -> None:
    gateway = Gateway({"a": (0, created), "b": (0, "2026-01-31 20:00:01")})
    executed, not_executed, unknown = ask(gateway, dated=True, reused=reused)
    found = {"executed": "a" in executed, "not executed": "a" in not_executed, "unknown": "a" in unknown}
    assert [name for name, is_so in found.items() if is_so] == [expected]


def test_ids_of_an_earlier_generation_prove_nothing_without_a_time_of_creation() -> None:
    gateway = Gateway({"a": (0, None), "b": (0, None)})
    assert ask(gateway, reused=True) == ({}, [], ["a", "b"])
    assert gateway.asked == []
