"""What a look-up proves about people in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.delivery.reconciler import Reconciler, UnresolvedRequest
from airflow_provider_lingyang.gateway.errors import AnswerLostError
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.lookup.result import LookupAnswer, zone_named

INTENT = 1_769_860_800.0  # 2026-01-31 20:00:00 in China


class Gateway:
    """Tells who is there at which second; a look-up takes some time."""

    def __init__(
        self, found: Mapping[str, tuple[float, str | None]], takes: float = 0.0, fails: int = 0
    ) -> None:
        self.found, self.takes, self.fails = found, takes, fails
        self.now = 0.0
        self.asked: list[float] = []

    def look_up(self, biz_ids: Sequence[str]) -> LookupAnswer:
        self.asked.append(self.now)
        self.now += self.takes
        if len(self.asked) <= self.fails:
            raise AnswerLostError("x")
        results = {
            biz_id: [TaskResult(biz_id, {}, task_id="5", created_at=created)]
            for biz_id, (visible, created) in self.found.items()
            if biz_id in biz_ids and visible <= self.asked[-1]
        }
        # It tells everything it has, so nothing is missing in it.
        return LookupAnswer(results, frozenset(biz_ids))

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reconciler(look_up: Any, *, dated: bool = False, now: list[float] | None = None) -> Reconciler:
    times = iter(now or [])

    def monotonic() -> float:
        return next(times, 10.0)

    stop = Cancellation(lambda: None, monotonic=monotonic, sleep=lambda seconds: None)
    return Reconciler(look_up, stop, dated=dated, reused=False, monotonic=monotonic)


def ask(
    gateway: Gateway,
    *,
    dated: bool = False,
    reused: bool = False,
    told: bool = False,
    zone: str | None = None,
) -> Any:
    def monotonic() -> float:
        return gateway.now

    stop = Cancellation(lambda: 0.0 if told else None, monotonic=monotonic, sleep=gateway.sleep)
    placed_in = None if zone is None else zone_named(zone)
    asking = Reconciler(
        gateway.look_up, stop, dated=dated, reused=reused, zone=placed_in, monotonic=monotonic
    )
    (resolution,) = asking.resolve([UnresolvedRequest(["a", "b"], INTENT, 10.0)])
    return resolution.executed, resolution.not_executed, resolution.in_doubt


def test_no_second_look_up_when_all_recipients_are_found() -> None:
    gateway = Gateway({"a": (0, None), "b": (0, None)})
    assert ask(gateway) == ({"a": 5, "b": 5}, [], [])
    assert gateway.asked == [0]


def test_not_found_counts_only_when_everything_must_be_visible() -> None:
    gateway = Gateway({"a": (0, None), "b": (9, None)})
    assert ask(gateway) == ({"a": 5, "b": 5}, [], [])
    assert gateway.asked[0] == 0
    assert gateway.asked[1] >= 10
    assert ask(Gateway({"a": (0, None)})) == ({"a": 5}, ["b"], [])


def test_slow_first_look_up_is_followed_by_a_second() -> None:
    gateway = Gateway({}, takes=11)
    assert ask(gateway) == ({}, ["a", "b"], [])
    assert len(gateway.asked) == 2


def test_a_look_up_that_fails_changes_nothing() -> None:
    assert ask(Gateway({}, fails=1)) == ({}, ["a", "b"], [])
    assert ask(Gateway({"a": (0, None)}, fails=2)) == ({}, [], ["a", "b"])


def test_no_look_up_after_cancellation() -> None:
    assert ask(Gateway({"a": (0, None)}), told=True) == ({"a": 5}, [], ["b"])


@pytest.mark.parametrize(
    ("created", "reused", "expected"),
    [
        ("2026-01-31 20:00:01", False, "executed"),
        ("2026-01-31 19:55:00", False, "executed"),  # clocks may differ by ten minutes
        ("2026-01-31 19:48:00", False, "unknown"),  # nothing says in which zone
        ("2026-01-30 17:59:00", False, "not executed"),  # an earlier campaign's in every zone
        ("no date", False, "unknown"),
        (None, False, "unknown"),
        ("2026-01-31 20:00:01", True, "executed"),
        ("2026-01-31 19:55:00", True, "unknown"),  # the generation before may be as young as that
        ("2026-01-31 19:48:00", True, "unknown"),
        ("2026-01-30 17:59:00", True, "not executed"),
    ],
)
def test_created_at_distinguishes_this_campaign_from_an_earlier_one(
    created: str | None, reused: bool, expected: str
) -> None:
    gateway = Gateway({"a": (0, created), "b": (0, "2026-01-31 20:00:01")})
    executed, not_executed, unknown = ask(gateway, dated=True, reused=reused)
    found = {"executed": "a" in executed, "not executed": "a" in not_executed, "unknown": "a" in unknown}
    assert [name for name, is_so in found.items() if is_so] == [expected]


UTC_NAIVE = "2026-01-31 12:00:05"  # five seconds after the intent, written in UTC without a zone


@pytest.mark.parametrize(
    ("created", "zone", "expected"),
    [
        (UTC_NAIVE, None, "unknown"),
        (UTC_NAIVE, "UTC", "executed"),
        (UTC_NAIVE, "+08:00", "not executed"),
        ("2026-01-31 11:48:00", "UTC", "not executed"),
        ("2026-01-31 11:50:00", "UTC", "executed"),
        ("2026-01-31 07:00:05", "America/New_York", "executed"),
        ("2026-01-31T12:00:05Z", None, "executed"),
        ("2026-01-31T10:00:00Z", None, "unknown"),
        ("2026-01-30T09:59:00Z", None, "not executed"),
        ("2026-01-31T11:00:00+00:00", "UTC", "not executed"),
        # A zone in the text that is another than the author's: the later of both is meant.
        ("2026-01-31T20:00:05+14:00", "+08:00", "executed"),
        ("1769860805000", None, "executed"),
        ("1769860805", None, "executed"),
        ("1769760000000", None, "not executed"),
        ("20260131200005", None, "executed"),
        ("Sat Jan 31 20:00:05 CST 2026", None, "executed"),
        *(
            (placeholder, zone, "unknown")
            for placeholder in (
                "0001-01-01 00:00:00",
                "0001-01-01T00:00:00Z",
                "1970-01-01 00:00:00",
                "1970-01-01 08:00:00",
                "Thu Jan 01 08:00:00 CST 1970",
                "1900-01-01 00:00:00",
                "2000-01-01 00:00:00",
                "9999-12-31 23:59:59",
                "2099-01-01 00:00:00",
                "0",
                "",
                "2026-01-31",
                "yesterday",
            )
            for zone in (None, "UTC")
        ),
    ],
)
def test_ambiguous_created_at_distinguishes_no_campaigns(
    created: str, zone: str | None, expected: str
) -> None:
    gateway = Gateway({"a": (0, created), "b": (0, "2026-01-31T12:00:05Z")})
    executed, not_executed, unknown = ask(gateway, dated=True, zone=zone)
    found = {"executed": "a" in executed, "not executed": "a" in not_executed, "unknown": "a" in unknown}
    assert [name for name, is_so in found.items() if is_so] == [expected]


OURS, OTHERS, UNPLACED = "2026-01-31 20:00:01", "2026-01-29 20:00:00", "1970-01-01 00:00:00"


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ((OTHERS, OURS), "executed"),
        ((OURS, OTHERS), "executed"),
        ((UNPLACED, OURS), "executed"),
        ((OTHERS, UNPLACED), "unknown"),
        ((UNPLACED, OTHERS), "unknown"),
        ((OTHERS, OTHERS), "not executed"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_every_result_is_evidence(created: tuple[str, ...], expected: str, whole: bool) -> None:
    results = [TaskResult("a", {}, task_id=str(n), created_at=each) for n, each in enumerate(created)]
    answer = LookupAnswer({"a": results}, frozenset("a" if whole else ""))
    (resolution,) = reconciler(lambda _: answer, dated=True).resolve([UnresolvedRequest(["a"], INTENT, 0.0)])
    if expected == "executed":
        assert resolution.executed == {"a": created.index(OURS)}
    elif expected == "not executed" and whole:
        assert resolution.not_executed == ["a"]
    else:
        assert resolution.in_doubt == ["a"]


def test_recipient_neither_found_nor_absent_stays_in_doubt() -> None:
    answer = LookupAnswer({}, frozenset("b"), "no flag")
    (resolution,) = reconciler(lambda _: answer).resolve([UnresolvedRequest(["a", "b"], INTENT, 0.0)])
    assert (resolution.executed, resolution.not_executed, resolution.in_doubt) == ({}, ["b"], ["a"])


def test_recipient_found_once_stays_found() -> None:
    asked: list[list[str]] = []

    def look_up(biz_ids: Sequence[str]) -> LookupAnswer:
        asked.append(list(biz_ids))
        if len(asked) == 1:
            return LookupAnswer({"a": [TaskResult("a", {})]}, frozenset())
        raise AnswerLostError("gone")

    (resolution,) = reconciler(look_up, now=[0.0, 0.0, 5.0]).resolve(
        [UnresolvedRequest(["a", "b"], INTENT, 5.0)]
    )
    assert (resolution.executed, resolution.in_doubt) == ({"a": None}, ["b"])
    assert asked == [["a", "b"], ["b"]]


def test_ids_of_a_truncated_answer_are_looked_up_one_by_one() -> None:
    asked: list[list[str]] = []

    def look_up(biz_ids: Sequence[str]) -> LookupAnswer:
        asked.append(list(biz_ids))
        if len(biz_ids) > 1:
            return LookupAnswer({}, frozenset(), "", frozenset(biz_ids))
        # Of "c" the long answer said nothing, although it was executed.
        results = {"c": [TaskResult("c", {}, task_id="7")]} if biz_ids == ["c"] else {}
        return LookupAnswer(results, frozenset(biz_ids))

    questions = [UnresolvedRequest(["a", "b"], INTENT, 0.0), UnresolvedRequest(["c"], INTENT, 0.0)]
    first, second = reconciler(look_up).resolve(questions)
    assert (first.not_executed, first.in_doubt) == (["a", "b"], [])
    assert (second.executed, second.not_executed) == ({"c": 7}, [])
    assert asked == [["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_ids_of_an_earlier_generation_prove_nothing_without_a_time_of_creation() -> None:
    gateway = Gateway({"a": (0, None), "b": (0, None)})
    assert ask(gateway, reused=True) == ({}, [], ["a", "b"])
    assert gateway.asked == []


@pytest.mark.parametrize("alone", [False, True], ids=["asked again", "asked for alone"])
def test_ambiguous_result_is_kept_when_a_later_answer_lacks_it(
    alone: bool,
) -> None:
    calls = 0

    def look_up(biz_ids: Sequence[str]) -> LookupAnswer:
        nonlocal calls
        calls += 1
        if calls > 1:
            return LookupAnswer({}, frozenset(biz_ids))
        results = {"a": [TaskResult("a", {}, created_at="no date")]}
        return LookupAnswer(results, frozenset(), "", frozenset(biz_ids))

    now, settled_at = ([5.0] * 20, 5.0) if alone else ([0.0, 0.0, 5.0], 5.0)
    (resolution,) = reconciler(look_up, dated=True, now=now).resolve(
        [UnresolvedRequest(["a"], INTENT, settled_at)]
    )
    assert calls > 1
    assert (resolution.executed, resolution.not_executed, resolution.in_doubt) == ({}, [], ["a"])
    assert resolution.found == {"a"}
