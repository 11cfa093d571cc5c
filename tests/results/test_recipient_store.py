"""The list of those who are waited for, and looks at it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.errors import AnswerLostError, CallRefusedError, ThrottledError
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results import recipient_store as waiting_module
from airflow_provider_lingyang.results.completion import Rules
from airflow_provider_lingyang.results.lookup import Look, look_up, read_table
from airflow_provider_lingyang.results.recipient_store import PAGE, Row, WaitingList

RULES = Rules(["a"], ("DONE",), ("GONE",))


@pytest.fixture
def people() -> Iterator[WaitingList]:
    waiting = WaitingList(RULES, keep=10)
    waiting.begin()
    yield waiting
    waiting.close()


def add(people: WaitingList, count: int) -> None:
    people.add((str(number), None) for number in range(1, count + 1))
    people.begin()


def done(biz_id: str, slots: Mapping[str, Any] | None = None, **details: Any) -> TaskResult:
    return TaskResult(biz_id, slots or {"a": "yes"}, **({"status": "DONE"} | details))


def test_finished_people_are_not_asked_again_and_everybody_is_counted(people: WaitingList) -> None:
    add(people, 4)
    people.take(people.page(), {"1": done("1"), "2": TaskResult("2", {"a": ""}, "RUNNING")})
    assert [biz_id for _, biz_id, _ in people.page()] == ["2", "3", "4"]
    verdict = people.verdict(1.0)
    assert verdict.counts == {"recipients": 4, "finished": 1, "answered": 1, "not_reached": 0} | {
        "waiting": 1,
        "unknown": 2,
        "foreign": 0,
    }
    assert verdict.empty == {"a": 1}
    assert verdict.first == ["3", "4", "2"]
    people.begin()
    people.take(people.page(), {"2": done("2", {"a": "no"}), "3": TaskResult("3", {"a": ""}, "GONE")})
    verdict = people.verdict(0.75)
    assert verdict.complete
    assert verdict.empty == {}
    assert people.slots() == {"a": {"yes": 1, "no": 1}}
    assert people.results() == {
        "1": {"state": "answered", "status": "DONE", "task_id": None, "slots": {"a": "yes"}},
        "2": {"state": "answered", "status": "DONE", "task_id": None, "slots": {"a": "no"}},
        "3": {"state": "not_reached", "status": "GONE", "task_id": None, "slots": {"a": ""}},
    }


def test_single_results_are_given_only_while_they_are_few(people: WaitingList) -> None:
    add(people, 11)
    people.take(people.page(), {"1": done("1")})
    assert people.results() is None


def test_repeated_ids_are_counted(people: WaitingList) -> None:
    assert people.add([("1", None), ("2", None), ("1", None)]) == 1
    assert len(people) == 2


def test_of_people_who_are_there_twice_the_first_stays_wherever_they_are(people: WaitingList) -> None:
    everybody = [(f"b{number}", f"t{number}") for number in range(2 * PAGE + 7)]
    assert people.add([*everybody, ("b5", "later"), (f"b{PAGE}", None), ("new", None)]) == 2
    assert people.add_ids([["b0", "newer"], ["newer", "newest"]]) == 2
    expected = [*everybody, ("new", None), ("newer", None), ("newest", None)]
    assert people.page(0, len(expected) + 1) == [(n, *one) for n, one in enumerate(expected, 1)]
    assert people.find(["newest", "b5", "nobody"]) == [(6, "b5", "t5"), (len(expected), "newest", None)]
    assert len(people) == len(expected)
    people.begin()
    people.take(people.find(["new"]), {"new": done("new", task_id="9")})
    assert people.add_ids([["new"]]) == 1
    assert [biz_id for _, biz_id, _ in people.page(2 * PAGE + 7)] == ["newer", "newest"]


def test_people_who_share_a_hash_are_different_people(
    people: WaitingList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "hash", len, raising=False)
    assert people.add_ids([["a", "b"], ["c", "a", "d"]]) == 1
    assert people.all_ids() == ["a", "b", "c", "d"]
    assert people.add_ids([["e"]]) == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_list_is_what_a_plain_dictionary_would_be(seed: int) -> None:
    chance = random.Random(seed)
    waiting = WaitingList(Rules((), ("DONE",)), keep=5000)
    model: dict[str, str | None] = {}
    finished: set[str] = set()
    for _ in range(6):
        new = [
            (f"{chance.randrange(4000)}", chance.choice([None, "7"])) for _ in range(chance.randrange(1500))
        ]
        before = len(model)
        for biz_id, task_id in new:
            model.setdefault(biz_id, task_id)
        assert waiting.add(new) == len(new) - (len(model) - before)
        waiting.begin()
        everybody = [(n, *one) for n, one in enumerate(model.items(), 1)]
        left = [one for one in everybody if one[1] not in finished]
        after, size = chance.randrange(len(model) + 2), chance.choice([1, 10, PAGE, 2500])
        page = waiting.page(after, size)
        assert page == [one for one in left if one[0] > after][:size]
        told = {one[1]: done(one[1]) for one in page if chance.random() < chance.random()}
        waiting.take(page, told)
        finished |= told.keys()
        some = chance.sample(everybody, min(len(everybody), 50))
        assert sorted(waiting.find([one[1] for one in some])) == sorted(
            one for one in some if one[1] not in finished
        )
        assert waiting.verdict(1.0).counts["answered"] == len(finished)
        assert (waiting.results() or {}).keys() == finished
    waiting.close()


def test_of_thousands_whoever_is_left_is_asked_again_in_order(people: WaitingList) -> None:
    everybody = [str(number) for number in range(1, 2502)]
    assert people.add((biz_id, None) for biz_id in [*everybody, "7", "2501"]) == 2
    left = ["2", "1200", "2501"]
    people.take(people.page(0, 3000), {biz_id: done(biz_id) for biz_id in everybody if biz_id not in left})
    assert [biz_id for _, biz_id, _ in people.page()] == left
    assert [biz_id for _, biz_id, _ in people.page(2, 1)] == ["1200"]
    assert [biz_id for _, biz_id, _ in people.find(["1", "2501", "nobody"])] == ["2501"]
    assert people.verdict(1.0).counts["finished"] == 2498
    people.clear()
    assert people.add([("1", None)]) == 0
    assert people.page() == [(1, "1", None)]


def test_a_source_that_breaks_off_is_not_told_as_a_full_disk(people: WaitingList) -> None:
    def source() -> Iterator[tuple[str, None]]:
        yield "1", None
        raise OSError("the database is gone")

    with pytest.raises(OSError, match="the database is gone"):
        people.add(source())


def test_a_task_that_is_known_tells_foreign_answers_apart(people: WaitingList) -> None:
    people.add([("1", "7"), ("2", "7")])
    people.take(people.page(), {"1": done("1", task_id="8"), "2": done("2", task_id="7")})
    assert people.verdict(1.0).counts["foreign"] == 1
    assert people.verdict(1.0).counts["answered"] == 1


def test_many_different_values_are_summed_up(people: WaitingList) -> None:
    add(people, 100)
    people.take(people.page(), {str(n): done(str(n), {"a": f"text {n}"}) for n in range(1, 101)})
    values = people.slots()["a"]
    assert len(values) == 51
    assert values["…"] == 50


def test_without_required_slots_those_that_come_are_counted() -> None:
    waiting = WaitingList(Rules([], ("DONE",)))
    waiting.add([("1", None)])
    waiting.begin()
    waiting.take(waiting.page(), {"1": done("1", {"x": 1, "y": None, "z": ["u"]})})
    assert waiting.slots() == {"x": {"1": 1}, "y": {"": 1}, "z": {'["u"]': 1}}
    waiting.close()


def test_half_a_character_or_a_nul_in_an_answer_holds_nobody_up(people: WaitingList) -> None:
    add(people, 2)
    people.take(people.page(), {"1": done("1", {"a": "\ud83d"}), "2": done("2", {"a": "\0"})})
    assert people.slots() == {"a": {"\ufffd": 2}}
    assert (people.results() or {})["1"]["slots"] == {"a": "\ufffd"}


# --- looking up -------------------------------------------------------------------------------------------------


async def at_once(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


class Platform:
    """Answers for everybody, after a while; notes who was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.asked: list[list[str]] = []
        self.busy = self.most = 0
        self.errors = list(errors)

    async def __call__(self, people: Sequence[Row]) -> Mapping[str, TaskResult]:
        self.asked.append([biz_id for _, biz_id, _ in people])
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        if self.errors:
            raise self.errors.pop(0)
        return {biz_id: done(biz_id) for _, biz_id, _ in people}


def look(people: WaitingList, platform: Platform, *, at_a_time: int = 3, per_call: int = 2) -> Look:
    return asyncio.run(
        look_up(people, platform, people_per_call=per_call, calls_at_a_time=at_a_time, offload=at_once)
    )


@pytest.mark.parametrize(("count", "per_call"), [(0, 2), (7, 2), (PAGE + 1, 3), (2 * PAGE, 1), (5, 50)])
def test_everybody_is_asked_once_a_few_calls_at_a_time(
    people: WaitingList, count: int, per_call: int
) -> None:
    add(people, count)
    platform = Platform()
    found = look(people, platform, per_call=per_call)
    assert sorted(int(biz_id) for some in platform.asked for biz_id in some) == list(range(1, count + 1))
    assert max(map(len, platform.asked), default=0) <= per_call
    assert platform.most <= 3
    assert found.whole
    assert people.verdict(1.0).counts["answered"] == count
    assert look(people, platform).calls == 0


def test_a_call_that_fails_for_the_moment_leaves_its_people_for_the_next_look(people: WaitingList) -> None:
    add(people, 10)
    platform = Platform(AnswerLostError("lost"))
    found = look(people, platform)
    assert (found.calls, found.failed, found.reason) == (4, 1, "lost")
    assert not found.whole
    assert people.verdict(1.0).counts["answered"] == 8
    assert look(people, platform).whole
    assert people.verdict(1.0).complete


def test_when_every_call_fails_the_look_ends_early(people: WaitingList) -> None:
    add(people, 1000)
    platform = Platform(*[AnswerLostError("lost")] * 1000)
    assert look(people, platform).failed <= 6


def test_a_throttle_that_lasts_ends_the_look_and_says_when_to_come_back(people: WaitingList) -> None:
    add(people, 1000)
    platform = Platform(ThrottledError("no", retry_after=31_062.0))
    found = look(people, platform)
    assert found.retry_after == 31_062.0
    assert len(platform.asked) <= 4


def test_what_no_repetition_can_cure_ends_the_look_at_once(people: WaitingList) -> None:
    add(people, 1000)
    platform = Platform(AnswerLostError("lost"), CallRefusedError("signature"))
    with pytest.raises(CallRefusedError):
        look(people, platform)
    assert len(platform.asked) <= 6


# --- reading a table ---------------------------------------------------------------------------------------------


def test_answers_in_a_table_are_matched_and_others_left_alone() -> None:
    waiting = WaitingList(RULES, absent="waiting")
    waiting.add([(str(number), "7" if number == 5 else None) for number in range(1, 6)])
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
    assert read_table(waiting, rows).whole
    verdict = waiting.verdict(1.0)
    assert verdict.counts == {"recipients": 5, "finished": 3, "answered": 2, "not_reached": 1} | {
        "waiting": 2,
        "unknown": 0,
        "foreign": 0,
    }
    assert waiting.slots() == {"a": {"first": 1, "ours": 1}}
    waiting.close()
