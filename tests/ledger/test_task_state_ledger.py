"""What is special in Airflow's task state store: values of limited size, written by one try at a time."""

from __future__ import annotations

import inspect
import json
import random
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_lingyang.errors import LedgerError, LedgerRefusedError
from airflow_provider_lingyang.ledger import task_state, task_state_format
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.task_state import TaskStateLedger
from airflow_provider_lingyang.ledger.task_try import TaskTry
from tests.ledger.conftest import Ledgers, Store
from tests.versions import needs_task_state


@pytest.fixture
def ledgers(task_state_ledgers: Ledgers) -> Ledgers:
    return task_state_ledgers


def biz_ids_of(request: int, size: int = 100) -> list[str]:
    return [f"order-{request:05}-{n:03}" for n in range(size)]


def test_a_large_campaign_needs_few_keys(ledgers: Ledgers, store: Store) -> None:
    requests, in_flight = 2000, 4
    ledger = ledgers.start()
    for start in range(0, requests, in_flight):
        answered = [
            Outcome(f"{n:036}", dict.fromkeys(biz_ids_of(n), 1))
            for n in range(max(0, start - in_flight), start)
        ]
        ledger.write(
            answered, [ledgers.intent(f"{n:036}", biz_ids_of(n)) for n in range(start, start + in_flight)]
        )
    rest = range(requests - in_flight, requests)
    ledger.write([Outcome(f"{n:036}", dict.fromkeys(biz_ids_of(n), 1)) for n in rest], [])
    # 360 to 420 per million recipients.
    assert 72 <= len(store.segments()) <= 84
    assert store.largest <= 60_500
    assert ledgers.states(ledgers.next_try(), biz_ids_of(0) + biz_ids_of(999) + biz_ids_of(1999)) == "a" * 300


def test_outcome_of_a_large_request_replaces_its_intent(ledgers: Ledgers, store: Store) -> None:
    ledger = ledgers.start()
    for number in range(3):
        ledger.write([], [ledgers.intent(f"code-{number}", biz_ids_of(number, 2000))])
        ledger.write([Outcome(f"code-{number}", dict.fromkeys(biz_ids_of(number, 2000), 1))], [])
    assert len(store.segments()) == 3


def test_a_window_of_small_requests_is_one_write(ledgers: Ledgers, store: Store) -> None:
    ledger, in_flight, size = ledgers.start(), 8, 20
    before = store.sets
    windows = range(0, 800, in_flight)
    for start in windows:
        answered = [
            Outcome(f"{n:036}", dict.fromkeys(biz_ids_of(n, size), 1)) for n in range(start - 8, start)
        ]
        intents = [ledgers.intent(f"{n:036}", biz_ids_of(n, size)) for n in range(start, start + in_flight)]
        ledger.write(answered[: start and in_flight], intents)
    assert len(store.segments()) > 5
    assert store.sets - before == len(windows)


def test_segments_that_are_full_stay_and_a_later_one_outranks(ledgers: Ledgers, store: Store) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("first", biz_ids_of(0))])
    number = 0
    while len(store.segments()) < 3:
        number += 1
        ledger.write([], [ledgers.intent(f"code-{number}", biz_ids_of(number))])
    earliest = store.values[store.segments()[0]]
    ledger.write([Outcome("first", dict.fromkeys(biz_ids_of(0), 1))], [])
    assert store.values[store.segments()[0]] == earliest
    assert "first" in json.loads(json.loads(store.values[store.segments()[-1]]))
    assert ledgers.states(ledgers.next_try(), biz_ids_of(0) + biz_ids_of(1)) == "a" * 100 + "d" * 100


def test_a_later_try_appends_and_never_rewrites_what_an_earlier_one_wrote(
    ledgers: Ledgers, store: Store
) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("one", "ab"), ledgers.intent("two", "c")])
    before = dict(store.values)
    second = ledgers.next_try()
    second.write([Outcome("one", {"a": 1}, ["b"])], [ledgers.intent("three", "d")])
    assert store.segments() == ["lingyang/1/1/w000001", "lingyang/1/1/w000002"]
    assert store.values["lingyang/1/1/w000001"] == before["lingyang/1/1/w000001"]
    assert ledgers.states(ledgers.next_try(), "abcd") == "ardd"


def test_try_without_its_history_does_not_overwrite_the_history(ledgers: Ledgers, store: Store) -> None:
    ledgers.start().write([], [ledgers.intent("one", "a")])
    second = ledgers.new(try_number=2)
    second.claim()
    second.open(ledgers.header())
    second.write([], [ledgers.intent("two", "b")])
    assert len(store.segments()) == 2
    assert ledgers.states(ledgers.next_try(), "ab") == "dd"


def test_another_generation_has_segments_of_its_own(ledgers: Ledgers, store: Store) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("one", "a")])
    first.finish()
    ledgers.next_try(max_tries=1, resubmit=True).write([], [ledgers.intent("two", "a")])
    assert store.segments() == ["lingyang/1/1/w000001", "lingyang/1/2/w000001"]


@pytest.mark.parametrize("biz_ids", [biz_ids_of(0, 4000), [str(n) for n in range(5000)], ["客户" * 300] * 40])
def test_request_too_large_for_a_segment_is_refused_before_sending(
    ledgers: Ledgers, store: Store, biz_ids: list[str]
) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("small", "ab")])
    with pytest.raises(LedgerError, match=f"request of {len(biz_ids)} recipients .* smaller batch_size"):
        ledger.write([Outcome("small", {"a": 1, "b": 2})], [ledgers.intent("large", biz_ids)])
    # What is known of the others is not lost with it.
    ledger.write([Outcome("small", {"a": 1, "b": 2}), Outcome("large", {}, (), biz_ids)], [])
    assert ledgers.states(ledgers.next_try(), ["a", "b", biz_ids[0]]) == "aa-"


@pytest.mark.parametrize("size", [2000, 2600])
@pytest.mark.parametrize("state", [1, 2, 3])
def test_any_outcome_of_a_request_that_fits_can_be_written(ledgers: Ledgers, size: int, state: int) -> None:
    biz_ids = [str(n) for n in range(size)]
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", biz_ids)])
    parts = [biz_ids[start::state] for start in range(state)] + [[], []]
    ledger.write([Outcome("code", dict.fromkeys(parts[0], 1), parts[1], parts[2])], [])
    assert set(ledgers.states(ledgers.next_try(), biz_ids)) == set("arn"[:state])


@pytest.mark.parametrize("fail_after", range(3))
def test_a_write_that_fails_in_the_middle_invents_no_outcome(
    ledgers: Ledgers, store: Store, fail_after: int
) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent(f"code-{n}", biz_ids_of(n)) for n in range(60)])
    recipients = [biz_id for n in range(60) for biz_id in biz_ids_of(n)]
    assert ledgers.states(ledger, recipients) == "d" * 6000
    store.fail_after = fail_after
    outcomes = [Outcome(f"code-{n}", dict.fromkeys(biz_ids_of(n), 1)) for n in range(60)]
    new = [ledgers.intent(f"new-{n}", biz_ids_of(100 + n)) for n in range(60)]
    with pytest.raises(LedgerError, match="task state store cannot be written"):
        ledger.write(outcomes, new)
    store.fail_after = None
    later = ledgers.next_try()
    assert set(ledgers.states(later, recipients)) <= set("ad")
    assert set(ledgers.states(later, [biz_id for n in range(60) for biz_id in biz_ids_of(100 + n)])) <= set(
        "-d"
    )


@pytest.mark.parametrize("seed", range(25))
def test_small_segments_keep_what_whole_ones_would(
    ledgers: Ledgers, store: Store, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(task_state_format, "SEGMENT_BYTES", chance.choice([1200, 2500, 6000]))
    monkeypatch.setattr(task_state, "_REPEATED_BYTES", chance.choice([0, 400, 2000]))
    ledger = ledgers.start()
    known: dict[str, str] = {}
    doubtful: dict[str, list[str]] = {}
    free: list[str] = []
    numbers = count()
    for _ in range(60):
        outcomes = []
        # Some are settled twice at once: in doubt, and looked up before the ledger is written.
        for code in chance.sample(list(doubtful), chance.randint(0, len(doubtful))) * 2:
            if code not in doubtful:
                continue
            states = {biz_id: chance.choice("aarnd") for biz_id in doubtful.pop(code)}
            ids = {letter: [each for each in states if states[each] == letter] for letter in "arnd"}
            outcomes.append(Outcome(code, dict.fromkeys(ids["a"], 1), ids["r"], ids["n"], ids["d"]))
            known |= states
            free += ids["n"]
            if ids["d"]:
                doubtful[code] = ids["d"]
        intents = []
        for _ in range(chance.randint(0, 3)):
            # Who was not executed is in another request now, beside new recipients.
            biz_ids = free[:2] + biz_ids_of(next(numbers), 4)
            free = free[2:]
            intents.append(ledgers.intent(code := f"{chance.random()}", biz_ids))
            doubtful[code] = biz_ids
            known |= dict.fromkeys(biz_ids, "d")
        if chance.random() < 0.2:
            store.fail_after = chance.randint(0, 2)
            with suppress(LedgerError):
                ledger.write(outcomes, intents)
                intents = outcomes = []
            store.fail_after = None
        ledger.write(outcomes, intents)
        assert ledgers.states(ledgers.next_try(), known) == "".join(known.values())
    assert store.largest <= task_state_format.SEGMENT_BYTES + 500


def test_failed_write_can_be_repeated_by_the_same_try(ledgers: Ledgers, store: Store) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "abc")])
    ledger.write([Outcome("code", {"a": 1}, (), (), ["b", "c"])], [])
    store.fail_after = 0
    settled = Outcome("code", {"b": 1}, ["c"])
    with pytest.raises(LedgerError, match="RuntimeError"):
        ledger.write([settled], [ledgers.intent("never", "x")])
    store.fail_after = None
    ledger.write([settled, Outcome("never", {}, (), ["x"])], [])
    assert ledgers.states(ledgers.next_try(), "abcx") == "aar-"


def test_every_write_of_a_replaced_try_is_an_error_of_the_ledger(ledgers: Ledgers, store: Store) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "a")])
    store.fail_after = 0
    for action in (
        lambda: ledger.write([Outcome("code", {"a": 1})], []),
        lambda: ledger.renew([ledgers.intent("code", "a")]),
        lambda: ledger.finish(),
        lambda: ledgers.new().claim(),
    ):
        with pytest.raises(LedgerError, match="replaced this try"):
            action()


def test_a_store_that_cannot_be_read_is_an_error_of_the_ledger(
    ledgers: Ledgers, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ledgers.start()
    monkeypatch.setattr(store, "get", lambda key: 1 / 0)
    with pytest.raises(LedgerError, match=r"cannot be read \(ZeroDivisionError\)"):
        list(ledger.history())


def test_a_store_that_was_emptied_is_noticed(ledgers: Ledgers, store: Store) -> None:
    ledgers.start()
    store.values.clear()
    assert not ledgers.new(try_number=2).claim()


def test_accepted_recipients_are_kept_as_hashes_only(ledgers: Ledgers, store: Store) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", ["order-1", "order-2"])])
    ledger.write([Outcome("code", {"order-1": 5}, ["order-2"])], [])
    assert "order-" not in "".join(store.values.values())


@needs_task_state
def test_the_store_of_airflow_takes_what_the_ledger_gives(
    ledgers: Ledgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.execution_time import context, task_runner
    from airflow.sdk.execution_time.comms import GetTaskStateStore, SetTaskStateStore, TaskStateStoreResult

    assert (
        inspect.signature(context.TaskStateStoreAccessor.set).parameters["retention"].kind.name
        == "KEYWORD_ONLY"
    )
    said: dict[str, Any] = {}

    class Supervisor:
        def send(self, message: Any) -> Any:
            if isinstance(message, GetTaskStateStore):
                return TaskStateStoreResult(value=said[message.key].value) if message.key in said else None
            assert isinstance(message, SetTaskStateStore)
            said[message.key] = message
            return None

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)
    store = context.TaskStateStoreAccessor(uuid4(), None)  # type: ignore[arg-type]
    task_try = TaskTry(dag_id="dag", run_id="run", task_id="submit", map_index=-1, try_number=1)
    ledger = TaskStateLedger(store, task_try, context.NEVER_EXPIRE)
    ledger.claim()
    ledger.open(ledgers.header())
    ledger.write([], [ledgers.intent("code", "ab")])
    assert sorted(said) == ["lingyang", "lingyang/1", "lingyang/1/1/w000001"]
    assert [message.expires_at for message in said.values()] == [None] * 3
    assert ledgers.states(ledger, "ab") == "dd"


@pytest.mark.parametrize("foreign", ["x", [], 5, {}, {"knows_past": "no"}, {"code": "x"}])
@pytest.mark.parametrize("key", ["lingyang", "lingyang/1", "lingyang/1/1/w000001"])
def test_foreign_task_state_is_refused(
    task_state_ledgers: Ledgers, store: Store, key: str, foreign: Any
) -> None:
    ledger = task_state_ledgers.start()
    ledger.write([], [task_state_ledgers.intent("code", "ab")])
    store.values[key] = json.dumps(foreign)
    with pytest.raises(LedgerRefusedError, match=f"under '{key}' that is no ledger's"):
        task_state_ledgers.next_try()
