"""Notes in the state of outlet assets: what they tell when a task's own state is gone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.task_state import TaskStateLedger
from airflow_provider_lingyang.ledger.tombstone import Tombstone
from tests.ledger.conftest import Ledgers, Store, task_try

BEGAN = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


class AssetStore:
    """Airflow's state of one asset in small: JSON in, JSON out."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.broken: set[str] = set()
        self.calls = 0

    def _call(self, name: str) -> None:
        self.calls += 1
        if name in self.broken:
            raise RuntimeError("404: asset not found")

    def get(self, key: str, default: Any = None) -> Any:
        self._call("get")
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        self._call("set")
        assert value is not None
        assert len(key) <= 512
        self.values[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self._call("delete")
        self.values.pop(key, None)

    def notes(self) -> int:
        """How many task instances have begun."""
        return sum(key.startswith("lingyang/begun/") for key in self.values)


@pytest.fixture
def asset() -> AssetStore:
    return AssetStore()


def at(asset: AssetStore, *, days: float = 0, **changes: Any) -> Tombstone:
    """The tombstone of a task instance, so many days after the campaign began."""
    return Tombstone([asset], task_try(**changes), lambda: BEGAN + timedelta(days=days))


def test_outlives_the_state_of_the_task(asset: AssetStore) -> None:
    assert at(asset).found() is None
    at(asset).write("settings")
    assert at(asset, days=1, try_number=2).found() == (BEGAN, "settings")
    at(asset, days=1, try_number=2).write("settings")
    assert at(asset, days=2, try_number=3).found() == (BEGAN, "settings")


@pytest.mark.parametrize(
    "other", [{"dag_id": "x"}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 0}, {"loop_node": "x"}]
)
def test_is_of_one_task_instance(asset: AssetStore, other: dict[str, Any]) -> None:
    at(asset).write("settings")
    assert at(asset, **other).found() is None


@pytest.mark.parametrize(
    ("days", "kept"),
    [(29.9, True), (30.1, False), (400, False)],
)
def test_is_deleted_30_days_after_the_end(asset: AssetStore, days: float, kept: bool) -> None:
    at(asset).write("settings")
    at(asset, days=1).finish()
    assert at(asset, days=1 + days, try_number=2).found() == (BEGAN, "settings")
    later = at(asset, days=1 + days, run_id="later")
    later.write("settings")
    later.finish()
    assert (at(asset, try_number=2).found() is not None) is kept
    assert later.found() is not None


def test_stays_while_the_campaign_is_unfinished(asset: AssetStore) -> None:
    at(asset).write("settings")
    for day in (40, 80, 120):
        later = at(asset, days=day, run_id=f"day {day}")
        later.write("settings")
        later.finish()
    assert at(asset, days=120, try_number=2).found() == (BEGAN, "settings")
    assert asset.notes() == 2


def test_stays_when_a_finished_campaign_begins_again(asset: AssetStore) -> None:
    at(asset).write("settings")
    at(asset).finish()
    # Cleared: recipients that are new are sent to.
    at(asset, days=20, try_number=2).write("settings")
    for day in (40, 100):
        other = at(asset, days=day, run_id=f"day {day}")
        other.write("settings")
        other.finish()
    assert at(asset, days=100, try_number=3).found() == (BEGAN, "settings")


def test_campaign_without_requests_leaves_no_tombstone(asset: AssetStore) -> None:
    at(asset).finish()
    assert asset.values == {}


def test_holds_nothing_but_names_and_times(asset: AssetStore) -> None:
    at(asset).write("settings")
    (note,) = map(json.loads, asset.values.values())
    assert note == {"dag_id": "dag", "run_id": "run", "task_id": "submit"} | {
        "since": BEGAN.isoformat(),
        "finished": None,
        "settings": "settings",
    }


@pytest.mark.parametrize("broken", ["get", "set", "delete", "get set delete"])
def test_no_failure_stops_a_campaign(
    asset: AssetStore, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    at(asset).write("settings")
    at(asset).finish()
    asset.broken = set(broken.split())
    late = at(asset, days=60, run_id="late")
    late.found()
    late.write("settings")
    late.finish()
    assert "cannot be" in caplog.text
    assert "404" not in caplog.text


@pytest.mark.parametrize("foreign", ["x", [1], 5, {"since": "yesterday"}, {"a": 1}, {"since": 5}])
def test_invalid_tombstone_is_ignored(asset: AssetStore, foreign: Any) -> None:
    at(asset).write("settings")
    (key,) = asset.values
    asset.values[key] = json.dumps(foreign)
    assert at(asset, try_number=2).found() is None
    at(asset, try_number=2).write("settings")
    at(asset, try_number=2).finish()


def test_is_kept_with_every_outlet(asset: AssetStore) -> None:
    gone, other = AssetStore(), AssetStore()
    gone.broken = {"get", "set"}
    Tombstone([gone, asset, other], task_try(), lambda: BEGAN).write("settings")
    assert Tombstone([gone, other], task_try(try_number=2)).found() == (BEGAN, "settings")
    assert asset.values == other.values


class Accessors:
    def __init__(self, **stores: AssetStore) -> None:
        self.stores = stores

    def __getitem__(self, outlet: str) -> AssetStore:
        if not isinstance(outlet, str):
            raise TypeError("expected an asset")
        return self.stores[outlet]


@pytest.mark.parametrize(
    ("context", "there"),
    [
        ({}, False),
        ({"outlets": ["plan"]}, False),
        ({"outlets": [], "asset_state_store": Accessors(plan=AssetStore())}, False),
        ({"outlets": None, "asset_state_store": Accessors()}, False),
        ({"outlets": ["alias", 7], "asset_state_store": Accessors(plan=AssetStore())}, False),
        ({"outlets": ["alias", "plan"], "asset_state_store": Accessors(plan=AssetStore())}, True),
    ],
)
def test_needs_an_outlet_with_a_state(context: Any, there: bool) -> None:
    assert (Tombstone.of(context, task_try()) is not None) is there


@pytest.fixture
def marked(store: Store, asset: AssetStore) -> Ledgers:
    """Ledgers in the task's own state, with a tombstone."""

    def make(task_try: Any, _: str) -> TaskStateLedger:
        return TaskStateLedger(store, task_try, "never", Tombstone([asset], task_try, lambda: BEGAN))

    return Ledgers(make)


def test_is_written_before_the_first_intent_and_once(
    marked: Ledgers, store: Store, asset: AssetStore
) -> None:
    ledger = marked.start()
    assert asset.calls == 0
    store.fail_after = 0
    with pytest.raises(Exception, match="cannot be written"):
        ledger.write([], [marked.intent("code", "ab")])
    assert asset.notes() == 1
    store.fail_after = None
    calls = asset.calls
    ledger.write([], [marked.intent("code", "ab")])
    ledger.write([Outcome("code", {"a": 1}, ["b"])], [marked.intent("next", "cd")])
    assert asset.calls == calls


def test_a_try_without_an_intent_does_not_count_as_begun(marked: Ledgers, asset: AssetStore) -> None:
    ledger = marked.start()
    ledger.write([], [])
    ledger.finish()
    assert asset.values == {}


@pytest.mark.parametrize("finished", [False, True])
def test_discarded_ledger_reports_when_the_campaign_began(
    marked: Ledgers, store: Store, finished: bool
) -> None:
    ledger = marked.start()
    ledger.write([], [marked.intent("code", "ab")])
    if finished:
        ledger.write([Outcome("code", {"a": 1}, ["b"])], [])
        ledger.finish()
    store.values.clear()
    cleared = marked.new(try_number=2)
    assert cleared.claim() is False
    assert cleared.begun_at == BEGAN


@pytest.mark.parametrize("lost", ["nothing", "everything before the first intent"])
def test_without_a_note_nothing_is_found(marked: Ledgers, store: Store, lost: str) -> None:
    ledger = marked.start()
    if lost == "nothing":
        ledger.write([], [marked.intent("code", "ab")])
    else:
        store.values.clear()
    cleared = marked.new(try_number=2)
    assert cleared.claim() is (lost == "nothing")
    assert cleared.begun_at is None


def test_every_ledger_has_an_answer(ledgers: Ledgers) -> None:
    ledger = ledgers.new(try_number=2)
    assert ledger.claim() is False
    assert ledger.begun_at is None


def test_a_lost_ledger_is_not_looked_up_with_other_settings(asset: AssetStore) -> None:
    ledgers = Ledgers(
        lambda task_try, _: TaskStateLedger(
            Store(), task_try, "never", Tombstone([asset], task_try, lambda: BEGAN)
        )
    )
    ledgers.start().write([], [ledgers.intent("code", "ab")])
    for changes in ({"host": "https://other.test"}, {"app_secret": "other"}, {"plan_id": 2}):
        lost = ledgers.new(try_number=2)
        assert not lost.claim()
        with pytest.raises(LedgerRefusedError, match="as the state of an outlet asset says"):
            lost.open(ledgers.header(**changes))
    lost = ledgers.new(try_number=3)
    lost.claim()
    assert lost.open(ledgers.header()).generation == 1
