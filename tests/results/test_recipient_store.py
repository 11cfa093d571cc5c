"""The store of the recipients that a wait is for."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import CompletionCriteria
from airflow_provider_lingyang.results.recipient_store import PAGE, RecipientStore
from tests.results.conftest import add, done


def test_finished_recipients_are_not_polled_again_and_all_are_counted(store: RecipientStore) -> None:
    add(store, 4)
    store.record(store.unfinished(), {"1": done("1"), "2": TaskResult("2", {"a": ""}, "RUNNING")})
    assert [biz_id for _, biz_id, _ in store.unfinished()] == ["2", "3", "4"]
    progress = store.progress(1.0)
    assert progress.counts == {"recipients": 4, "finished": 1, "answered": 1, "not_reached": 0} | {
        "waiting": 1,
        "unknown": 2,
        "foreign": 0,
    }
    assert progress.empty == {"a": 1}
    assert progress.first == ["3", "4", "2"]
    store.start_poll()
    store.record(store.unfinished(), {"2": done("2", {"a": "no"}), "3": TaskResult("3", {"a": ""}, "GONE")})
    progress = store.progress(0.75)
    assert progress.complete
    assert progress.empty == {}
    assert store.value_counts() == {"a": {"yes": 1, "no": 1}}
    assert store.results() == {
        "1": {"state": "answered", "status": "DONE", "task_id": None, "slots": {"a": "yes"}},
        "2": {"state": "answered", "status": "DONE", "task_id": None, "slots": {"a": "no"}},
        "3": {"state": "not_reached", "status": "GONE", "task_id": None, "slots": {"a": ""}},
    }


def test_keeps_single_results_up_to_a_limit(store: RecipientStore) -> None:
    add(store, 11)
    store.record(store.unfinished(), {"1": done("1")})
    assert store.results() is None


def test_counts_duplicates(store: RecipientStore) -> None:
    assert store.add([("1", None), ("2", None), ("1", None)]) == 1
    assert len(store) == 2


def test_first_of_duplicate_ids_is_kept(store: RecipientStore) -> None:
    all_recipients = [(f"b{number}", f"t{number}") for number in range(2 * PAGE + 7)]
    assert store.add([*all_recipients, ("b5", "later"), (f"b{PAGE}", None), ("new", None)]) == 2
    assert store.add_ids([["b0", "newer"], ["newer", "newest"]]) == 2
    expected = [*all_recipients, ("new", None), ("newer", None), ("newest", None)]
    assert store.unfinished(0, len(expected) + 1) == [(n, *one) for n, one in enumerate(expected, 1)]
    assert store.find_unfinished(["newest", "b5", "unknown"]) == [
        (6, "b5", "t5"),
        (len(expected), "newest", None),
    ]
    assert len(store) == len(expected)
    store.start_poll()
    store.record(store.find_unfinished(["new"]), {"new": done("new", task_id="9")})
    assert store.add_ids([["new"]]) == 1
    assert [biz_id for _, biz_id, _ in store.unfinished(2 * PAGE + 7)] == ["newer", "newest"]


def test_counts_duplicates_within_and_across_pages(store: RecipientStore) -> None:
    assert store.add_ids([["a", "b"], ["c", "a", "d"]]) == 1
    assert list(store.biz_ids()) == ["a", "b", "c", "d"]
    assert store.add_ids([["e"]]) == 0


@pytest.mark.parametrize("seed", range(20))
def test_behaves_like_a_dictionary(seed: int) -> None:
    chance = random.Random(seed)
    store = RecipientStore(CompletionCriteria((), ("DONE",)), max_results_kept=5000)
    model: dict[str, str | None] = {}
    finished: set[str] = set()
    for _ in range(6):
        new = [
            (f"{chance.randrange(4000)}", chance.choice([None, "7"])) for _ in range(chance.randrange(1500))
        ]
        before = len(model)
        for biz_id, task_id in new:
            model.setdefault(biz_id, task_id)
        assert store.add(new) == len(new) - (len(model) - before)
        store.start_poll()
        all_recipients = [(n, *one) for n, one in enumerate(model.items(), 1)]
        left = [one for one in all_recipients if one[1] not in finished]
        after, size = chance.randrange(len(model) + 2), chance.choice([1, 10, PAGE, 2500])
        page = store.unfinished(after, size)
        assert page == [one for one in left if one[0] > after][:size]
        results = {one[1]: done(one[1]) for one in page if chance.random() < chance.random()}
        store.record(page, results)
        finished |= results.keys()
        some = chance.sample(all_recipients, min(len(all_recipients), 50))
        assert sorted(store.find_unfinished([one[1] for one in some])) == sorted(
            one for one in some if one[1] not in finished
        )
        assert store.progress(1.0).counts["answered"] == len(finished)
        assert (store.results() or {}).keys() == finished
    store.close()


def test_unfinished_recipients_come_in_order(store: RecipientStore) -> None:
    all_recipients = [str(number) for number in range(1, 2502)]
    assert store.add((biz_id, None) for biz_id in [*all_recipients, "7", "2501"]) == 2
    left = ["2", "1200", "2501"]
    store.record(
        store.unfinished(0, 3000), {biz_id: done(biz_id) for biz_id in all_recipients if biz_id not in left}
    )
    assert [biz_id for _, biz_id, _ in store.unfinished()] == left
    assert [biz_id for _, biz_id, _ in store.unfinished(2, 1)] == ["1200"]
    assert [biz_id for _, biz_id, _ in store.find_unfinished(["1", "2501", "unknown"])] == ["2501"]
    assert store.progress(1.0).counts["finished"] == 2498
    store.clear()
    assert store.add([("1", None)]) == 0
    assert store.unfinished() == [(1, "1", None)]


def test_errors_of_the_source_are_not_reported_as_a_full_disk(store: RecipientStore) -> None:
    def source() -> Iterator[tuple[str, None]]:
        yield "1", None
        raise OSError("the database is gone")

    with pytest.raises(OSError, match="the database is gone"):
        store.add(source())


def test_results_of_another_task_are_foreign(store: RecipientStore) -> None:
    store.add([("1", "7"), ("2", "7")])
    store.record(store.unfinished(), {"1": done("1", task_id="8"), "2": done("2", task_id="7")})
    assert store.progress(1.0).counts["foreign"] == 1
    assert store.progress(1.0).counts["answered"] == 1


def test_counts_the_rarest_of_many_values_together(store: RecipientStore) -> None:
    add(store, 100)
    store.record(store.unfinished(), {str(n): done(str(n), {"a": f"text {n}"}) for n in range(1, 101)})
    values = store.value_counts()["a"]
    assert len(values) == 51
    assert values["…"] == 50


def test_without_required_slots_counts_those_of_the_results() -> None:
    store = RecipientStore(CompletionCriteria([], ("DONE",)))
    store.add([("1", None)])
    store.start_poll()
    store.record(store.unfinished(), {"1": done("1", {"x": 1, "y": None, "z": ["u"]})})
    assert store.value_counts() == {"x": {"1": 1}, "y": {"": 1}, "z": {'["u"]': 1}}
    store.close()


def test_stores_half_a_character_and_nul(store: RecipientStore) -> None:
    add(store, 2)
    store.record(store.unfinished(), {"1": done("1", {"a": "\ud83d"}), "2": done("2", {"a": "\0"})})
    assert store.value_counts() == {"a": {"\ufffd": 2}}
    assert (store.results() or {})["1"]["slots"] == {"a": "\ufffd"}


def test_undefined_statuses_are_counted_anew_in_each_poll(store: RecipientStore) -> None:
    add(store, 4)
    store.start_poll()
    results = {
        "1": TaskResult("1", {}, "RUNNING"),
        "2": TaskResult("2", {}, "RUNNING"),
        "3": TaskResult("3", {}, "PAUSED"),
        "4": done("4"),
    }
    store.record(store.unfinished(), results)
    assert store.progress(1.0).statuses == {"RUNNING": 2, "PAUSED": 1}
    store.start_poll()
    store.record(store.unfinished(), {"1": TaskResult("1", {}, "GONE")})
    assert store.progress(1.0).statuses == {}
