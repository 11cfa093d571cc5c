"""A write whose answer was lost: it may have been committed, and is asked for before it is written again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lingyang.errors import (
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    LedgerUnusableError,
)
from airflow_provider_lingyang.ledger.base import Outcome
from tests.ledger.conftest import Ledgers, SqlLedgers, Store


class Commits:
    """A database connection that breaks when its transaction is committed, before it or after it."""

    def __init__(self, connection: Any, database: SqlLedgers, *, stays: bool) -> None:
        self._connection, self._database, self._stays = connection, database, stays

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def commit(self) -> None:
        if self._stays:
            self._connection.commit()
        else:
            self._connection.rollback()
        if self._database.path is None:
            self._database.interrupt()
            self._connection.cursor().execute("SELECT 1")
        raise sqlite3.OperationalError("disk I/O error")


@contextmanager
def answer_lost(ledgers: Ledgers, ledger: Any, store: Store, *, stays: bool) -> Iterator[None]:
    """Let the next writes fail, although they are there when ``stays``."""
    if isinstance(ledgers, SqlLedgers):
        list(ledger.history())
        ledger._database._connection = Commits(ledger._database._connection, ledgers, stays=stays)
        yield
        return
    set_ = store.set

    def lost(key: str, value: Any, **how: Any) -> None:
        if stays:
            set_(key, value, **how)
        raise OSError("timed out")

    store.set = lost
    yield
    store.set = set_


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_says_which_intents_a_failed_write_has_left(
    ledgers: Ledgers, store: Store, stays: bool, again: bool
) -> None:
    ledger = ledgers.start()
    if again:
        # Under the same code: the same recipients in the same order.
        ledger.write([], [ledgers.intent("code", "ab")])
        ledger.write([Outcome("code", {}, (), "ab")], [])
    intents = [ledgers.intent("code", "ab", again=again), ledgers.intent("other", "c")]
    assert ledger.holds(intents) == set()
    with answer_lost(ledgers, ledger, store, stays=stays), pytest.raises(LedgerError) as caught:
        ledger.write([], intents)
    assert not isinstance(caught.value, (LedgerFencedError, LedgerRefusedError, LedgerUnusableError))
    assert ledger.holds(intents) == ({"code", "other"} if stays else set())
    if not stays:
        ledger.write([], intents)
    assert ledgers.states(ledger, "abc") == "ddd"
    ledger.write([Outcome("code", {"a": 1}, ["b"])], [ledgers.intent("third", "d")])
    assert ledgers.states(ledgers.next_try(), "abcd") == "ardd"


@pytest.mark.parametrize("stays", [False, True])
def test_takes_an_abandoned_write_back(ledgers: Ledgers, store: Store, stays: bool) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("first", "a")])
    with answer_lost(ledgers, ledger, store, stays=stays), pytest.raises(LedgerError):
        ledger.write([Outcome("first", {"a": 1})], [ledgers.intent("code", "bc")])
    ledger.write([Outcome("first", {"a": 1}), Outcome("code", {}, (), "bc")], [])
    assert ledgers.states(ledgers.next_try(), "abc") == ("ann" if stays else "a--")


@pytest.mark.parametrize("stays", [False, True])
def test_an_outcome_between_a_failed_write_and_its_repetition(
    ledgers: Ledgers, store: Store, stays: bool
) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("first", "a")])
    intents = [ledgers.intent("code", "bc")]
    with answer_lost(ledgers, ledger, store, stays=stays), pytest.raises(LedgerError):
        ledger.write([], intents)
    ledger.write([Outcome("first", {"a": 1})], [])
    ledger.write([], intents)
    assert ledgers.states(ledgers.next_try(), "abc") == "add"


def test_an_intent_of_another_process_is_not_this_ones(ledgers: Ledgers) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    second = ledgers.next_try()
    if isinstance(ledgers, SqlLedgers):
        assert second.holds([ledgers.intent("code", "ab")]) == set()
        with pytest.raises(LedgerFencedError):
            first.holds([ledgers.intent("code", "ab")])
        second.take_over(["code"])
    assert second.holds([ledgers.intent("code", "ab")]) == {"code"}


def test_an_intent_with_other_recipients_or_outcomes_is_not_there(ledgers: Ledgers) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "ab")])
    assert ledger.holds([ledgers.intent("code", "abc")]) == set()
    ledger.write([Outcome("code", {"a": 1}, (), (), ["b"])], [])
    assert ledger.holds([ledgers.intent("code", "ab")]) == set()


def test_a_write_that_arrives_late_outranks_nothing(task_state_ledgers: Ledgers, store: Store) -> None:
    ledgers = task_state_ledgers
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("first", "a")])
    late: list[Callable[[], None]] = []
    set_ = store.set

    def delayed(key: str, value: Any, **how: Any) -> None:
        late.append(lambda: set_(key, value, **how))
        raise OSError("timed out")

    store.set = delayed
    with pytest.raises(LedgerError):
        ledger.write([], [ledgers.intent("code", "bc")])
    store.set = set_
    ledger.write([Outcome("first", {"a": 1})], [ledgers.intent("code", "bc")])
    ledger.write([Outcome("code", {"b": 1}, ["c"])], [ledgers.intent("next", "d")])
    for arrive in late:
        arrive()
    assert ledgers.states(ledgers.next_try(), "abcd") == "aard"


@pytest.mark.parametrize(
    ("status", "detail", "fenced"),
    [
        (404, {"detail": {"reason": "not_found", "message": "Task instance … not found"}}, True),
        (404, {"detail": "Not Found"}, False),
        (404, None, False),
        (None, None, False),
        (503, {"detail": {"reason": "not_found"}}, False),
        (401, {"detail": "Signature has expired"}, False),
    ],
)
def test_knows_a_replaced_try_by_the_api_servers_own_word(
    task_state_ledgers: Ledgers, store: Store, status: int | None, detail: Any, fenced: bool
) -> None:
    class AirflowRuntimeError(Exception):
        error = SimpleNamespace(detail={"status_code": status, "message": "…", "detail": detail})

    def refuse(key: str, value: Any, **how: Any) -> None:
        raise AirflowRuntimeError

    ledger = task_state_ledgers.start()
    store.set = refuse
    with pytest.raises(LedgerError, match="replaced this try") as caught:
        ledger.write([], [task_state_ledgers.intent("code", "ab")])
    assert isinstance(caught.value, LedgerFencedError) == fenced


@pytest.mark.parametrize("kind", ["table", "column"])
def test_permanent_write_errors_are_distinguished(database: SqlLedgers, kind: str) -> None:
    ledger = database.start()
    if kind == "table":
        database.drop_views()
        database.sql("DROP TABLE lingyang_ledger_recipient")
    else:
        database.sql("ALTER TABLE lingyang_ledger_recipient RENAME COLUMN place TO places")
    with pytest.raises(LedgerUnusableError):
        ledger.write([], [database.intent("code", "ab")])
