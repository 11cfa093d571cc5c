"""One pace for one App key: the rate limit and the bans in a row of the ledger's database."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_lingyang.errors import LedgerError, LedgerUnusableError
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.ledger import pace
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.pace import SharedPace
from airflow_provider_lingyang.ledger.sql_migrations import migrate
from airflow_provider_lingyang.storage.database import Database, SerializationFailureError, Transaction
from airflow_provider_lingyang.turns import FRESH, Ask, Grant, Turns
from tests.gateway.conftest import Time
from tests.ledger.conftest import SqlLedgers
from tests.ledger.test_sql_ledger import at_once

HOST = "https://gateway.test"
EPOCH = 1_700_000_000.0
Paces = Callable[..., SharedPace]


@pytest.fixture
def tables(database: SqlLedgers) -> SqlLedgers:
    with closing(Database(database.hook(), "ledger")) as made:
        migrate(made)
    return database


@pytest.fixture
def paces(tables: SqlLedgers) -> Paces:
    """Makes the pace as each process has it, on the database's clock."""
    return lambda app_key="app", **how: SharedPace(tables.hook(), "ledger", HOST, app_key, 60.0, **how)


@pytest.fixture
def timed(paces: Paces, time_machine: Time, monkeypatch: pytest.MonkeyPatch) -> Paces:
    """The same on the test's clock, which each process counts by, too."""
    monkeypatch.setattr(pace, "_NOW", {})
    return lambda app_key="app": paces(
        app_key, monotonic=lambda: time_machine.seconds, clock=lambda: EPOCH + time_machine.seconds
    )


@pytest.fixture
def time_machine() -> Time:
    return Time()


def limiter(own: SharedPace, time: Time, rate: float | None) -> RateLimiter:
    return RateLimiter(rate, monotonic=lambda: time.seconds, turns=Turns(own))


def row(tables: SqlLedgers) -> tuple[float, float]:
    """From when on turns are free, and until when a ban lasts."""
    ((next_at, banned_until),) = tables.sql("SELECT next_at, banned_until FROM lingyang_ledger_pace")
    return next_at / 1e6, banned_until / 1e6


# --- the row -------------------------------------------------------------------------------------------------------


TURNS = [
    # at, process, what it asks for → its first turn
    (0.0, "a", Ask(5, 0.2), 0.0),
    (0.1, "b", Ask(5, 0.2), 1.0),
    # Its own interval, where its connection says another one.
    (0.2, "c", Ask(2, 0.5), 2.0),
    (0.3, "a", Ask(1, 10.0), 3.0),
    # Another App key has a pace of its own.
    (0.3, "other app", Ask(1, 10.0), 0.3),
    # Nothing is saved up.
    (50.0, "b", Ask(1, 0.2), 50.0),
    # Turns go on after a ban.
    (50.0, "b", Ask(0, 0.2, ban=20.0), 50.2),
    (51.0, "a", Ask(5, 0.2), 70.0),
    (51.0, "b", Ask(5, 0.2), 71.0),
    # A shorter ban does not end a longer one.
    (52.0, "c", Ask(0, 0.2, ban=3.0), 72.0),
]


def test_turns_of_all_processes_follow_one_another(timed: Paces, time_machine: Time) -> None:
    processes = {name: timed(name if " " in name else "app") for name in ("a", "b", "c", "other app")}
    for at, name, ask, first in TURNS:
        time_machine.seconds = at
        grant = processes[name].exchange(ask)
        assert grant.starts_at == pytest.approx(first), (at, name)
        if name != "other app":
            assert grant.banned_until == pytest.approx(70.0 if at >= 50 and ask != TURNS[5][2] else -EPOCH)


def test_no_two_tasks_get_overlapping_turns(paces: Paces) -> None:
    def work(number: int) -> list[float]:
        # Without moments, the answer is what the row said.
        own = paces(monotonic=lambda: 0.0)
        own._now = "0"
        return [own.exchange(Ask(1 + number % 3, 0.2)).starts_at for _ in range(6)]

    found = at_once([lambda number=number: work(number) for number in range(6)])
    assert not [each for each in found if isinstance(each, Exception)]
    taken = sorted(
        round(start / 0.2) + turn
        for number in range(6)
        for start in found[number]
        for turn in range(1 + number % 3)
    )
    assert taken == list(range(72))


def test_no_two_processes_get_overlapping_turns(tmp_path: Path) -> None:
    """With no more than Python between them and the database's own clock."""
    path = tmp_path / "ledger.db"
    command = [sys.executable, str(Path(__file__).with_name("reserve_turns.py")), str(path)]
    subprocess.run([*command, "make"], check=True)
    processes = [subprocess.Popen([*command, "20"], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    moments = sorted(float(line) for each in lines for line in each.split())
    assert len(moments) == 3 * 20 * 2
    # Rounded to microseconds each.
    assert min(after - before for before, after in pairwise(moments)) >= 0.2 - 2e-6


def test_turns_begin_on_the_databases_clock(paces: Paces, tables: SqlLedgers) -> None:
    if tables.conn_type == "mysql":
        # It is not the session's zone that counts.
        tables.sql("SET GLOBAL time_zone = '+08:00'")
    before = time.monotonic()
    grant = paces().exchange(Ask(5, 0.2))
    # Not an hour ahead, nor behind: what differs is how long the answer took.
    assert before - 60 < grant.starts_at <= time.monotonic()
    assert abs(row(tables)[0] - 1.0 - time.time()) < 60
    if tables.conn_type == "mysql":
        tables.sql("SET GLOBAL time_zone = 'SYSTEM'")


def test_first_processes_make_the_row_together(paces: Paces, tables: SqlLedgers) -> None:
    found = at_once([lambda: paces().exchange(Ask(1, 100.0)) for _ in range(6)])
    assert not [each for each in found if isinstance(each, Exception)]
    starts = sorted(each.starts_at for each in found)
    assert starts[-1] - starts[0] == pytest.approx(500, abs=60)
    assert len(tables.sql("SELECT pace FROM lingyang_ledger_pace")) == 1


def test_a_preferred_process_is_let_pass_and_then_followed(
    paces: Paces, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, tries, execute = paces(), iter(range(3)), Transaction.execute

    def gives_way(run: Transaction, *args: object) -> int:
        if next(tries, None) is not None:
            raise SerializationFailureError("in favour of another one")
        return execute(run, *args)  # type: ignore[arg-type]

    own.exchange(Ask(0, 0.0))
    monkeypatch.setattr(Transaction, "execute", gives_way)
    assert own.exchange(Ask(1, 0.2)).starts_at <= time.monotonic()
    assert next(tries, None) is None


def test_a_row_names_neither_app_nor_host(paces: Paces, tables: SqlLedgers) -> None:
    paces().exchange(Ask(1, 0.2))
    ((key,),) = tables.sql("SELECT pace FROM lingyang_ledger_pace")
    assert len(key) == 32 and not {"app", "gateway"} & set(key.split("."))


# --- what a process makes of it ------------------------------------------------------------------------------------


def sent(
    limits: list[RateLimiter], time: Time, until: float, *, rare: int | None = None
) -> list[tuple[float, int]]:
    """When which of several processes sends, each as often as it may, but for a rare one: that once a second."""
    found: list[tuple[float, int]] = []
    while time.seconds < until:
        for number, limit in enumerate(limits):
            if number == rare and any(each == rare and int(at) == int(time.seconds) for at, each in found):
                continue
            while limit.is_due:
                limit.synchronise()
            if limit.acquire() <= 0:
                found.append((round(time.seconds, 2), number))
        time.seconds += 0.01
    return found


@pytest.mark.parametrize("rate", [0.5, 1, 5, 40])
def test_processes_keep_one_rate_together(timed: Paces, time_machine: Time, rate: float) -> None:
    found = sent([limiter(timed(), time_machine, rate) for _ in range(4)], time_machine, 40)
    # The last windows are not used up yet.
    assert 0.9 * rate <= len(found) / 40 <= rate + 1 / 40
    assert {number for _, number in found} == set(range(4))


def test_one_process_reserves_a_second_at_a_time(
    timed: Paces, time_machine: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Ask] = []
    exchange = SharedPace.exchange
    monkeypatch.setattr(SharedPace, "exchange", lambda own, ask: asked.append(ask) or exchange(own, ask))
    found = sent([limiter(timed(), time_machine, 5)], time_machine, 40)
    assert len(found) == 200
    # It begins with one turn, and doubles while all are used.
    assert [ask.turns for ask in asked if ask.turns][:4] == [1, 2, 4, 5]
    assert len(asked) < 50


def test_a_process_that_wastes_turns_reserves_no_more_than_it_needs(timed: Paces, time_machine: Time) -> None:
    # A look-up every second, beside a submission.
    found = sent([limiter(timed(), time_machine, 5) for _ in range(2)], time_machine, 40, rare=0)
    assert [int(at) for at, number in found if number == 0] == list(range(40))
    assert 4.7 < len(found) / 40 <= 5.1


def test_a_turn_that_was_not_used_in_time_is_lost(
    timed: Paces, time_machine: Time, tables: SqlLedgers
) -> None:
    limit = limiter(timed(), time_machine, 5)
    limit.synchronise(5)
    time_machine.seconds = 3.0
    # The last one may come late, for a machine or a database that is slow.
    assert [limit.acquire() <= 0, limit.is_due] == [True, True]
    limit.synchronise(5)
    time_machine.seconds = 100.0
    assert limit.is_due
    limit.synchronise(2)
    assert row(tables)[0] == EPOCH + 100.4
    assert limit.acquire() == 0.0
    time_machine.seconds += 0.15
    assert limit.acquire() == pytest.approx(0.05)


def test_a_ban_is_shared_at_once_and_meets_windows_already_reserved(timed: Paces, time_machine: Time) -> None:
    first, second = (limiter(timed(), time_machine, 5) for _ in range(2))
    first.synchronise(5)
    second.synchronise(5)
    assert second.delay() == pytest.approx(1.0)
    assert not second.is_due
    assert first.acquire() == 0.0
    first.ban(20)
    assert first.is_due
    first.synchronise()
    assert not first.is_due
    time_machine.seconds = 1.0
    # Its turn has come, and what it knows of bans is a second old.
    assert second.is_due
    second.synchronise()
    assert second.pause_left == pytest.approx(19.0)
    assert second.acquire() >= 19.0


def test_a_ban_of_the_api_that_submits_lets_look_ups_go_on(timed: Paces, time_machine: Time) -> None:
    first, second = (limiter(timed(), time_machine, None) for _ in range(2))
    first.synchronise()
    first.ban(7200, submits_only=True)
    assert first.is_due
    first.synchronise()
    second.synchronise()
    assert not first.is_due
    for each in (first, second):
        assert each.submits_pause_left == pytest.approx(7200)
        assert each.acquire() == 0.0


def test_a_ban_is_shared_without_a_rate_limit(timed: Paces, time_machine: Time, tables: SqlLedgers) -> None:
    first, second = (limiter(timed(), time_machine, None) for _ in range(2))
    for each in (first, second):
        each.synchronise()
        assert each.acquire() == 0.0
    first.ban(20)
    first.synchronise()
    # Nothing is reserved, and looked at once a second.
    assert row(tables) == (0.0, EPOCH + 20)
    assert second.acquire() == 0.0
    time_machine.seconds = FRESH
    assert second.is_due
    second.synchronise()
    assert second.pause_left > 0


def test_a_ban_that_could_not_be_shared_is_shared_later(
    timed: Paces, time_machine: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (limiter(timed(), time_machine, None) for _ in range(2))
    first.synchronise()
    first.ban(20)

    def away(*_: object) -> None:
        raise LedgerError("away")

    with monkeypatch.context() as patch:
        patch.setattr(SharedPace, "exchange", away)
        with pytest.raises(LedgerError):
            first.synchronise()
        assert first.is_due
    first.synchronise()
    second.synchronise()
    assert second.pause_left == pytest.approx(20)


def test_nothing_is_sent_while_the_row_cannot_be_read(
    timed: Paces, time_machine: Time, tables: SqlLedgers
) -> None:
    limit = limiter(timed(), time_machine, 5)
    tables.sql("DROP TABLE lingyang_ledger_pace")
    for _ in range(3):
        with pytest.raises(LedgerUnusableError):
            limit.synchronise()
        assert limit.is_due
        assert limit.acquire() > 0
        time_machine.seconds += 60


# --- beside the intents --------------------------------------------------------------------------------------------


def paced_ledger(tables: SqlLedgers, limit: RateLimiter, **changes: object) -> SqlLedgers:
    ledger = tables.start(**changes)
    ledger.lend_to(limit)
    return ledger


def test_intents_and_outcomes_leave_the_row_alone(
    timed: Paces, time_machine: Time, tables: SqlLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = limiter(timed(), time_machine, 5)
    ledger = paced_ledger(tables, limit)
    statements: list[str] = []
    execute = Transaction.execute

    def noting(run: Transaction, sql: str, parameters: list[object]) -> int:
        statements.append(sql)
        return execute(run, sql, parameters)

    monkeypatch.setattr(Transaction, "execute", noting)
    ledger.write([], [tables.intent("code", ["id"])])
    ledger.write([Outcome("code", {"id": 5})], [tables.intent("other", ["other"])])
    assert statements and not [sql for sql in statements if "lingyang_ledger_pace" in sql]
    limit.synchronise()
    assert [sql for sql in statements if "lingyang_ledger_pace" in sql]


@pytest.fixture
def end_frozen(paces: Paces, tables: SqlLedgers) -> Iterator[Callable[[], None]]:
    """A process has stopped between moving the row on and its commit; this undoes what it did."""
    if tables.conn_type == "sqlite":
        pytest.skip("a process that has begun to write holds the whole file")
    paces().exchange(Ask(1, 0.2))
    hook = tables.hook()
    with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
        hook.set_autocommit(connection, False)
        cursor.execute("UPDATE lingyang_ledger_pace SET next_at=next_at+1")
        # Who waits for it without an end fails then.
        end = threading.Timer(120, tables.interrupt)
        end.start()
        yield connection.rollback
        end.cancel()
        end.join()


def test_outcomes_are_written_while_another_process_holds_the_row(
    paces: Paces, tables: SqlLedgers, monkeypatch: pytest.MonkeyPatch, end_frozen: Callable[[], None]
) -> None:
    monkeypatch.setattr(pace, "_WAIT", 1)
    limit = RateLimiter(5, turns=Turns(paces()))
    ledger = paced_ledger(tables, limit)
    ledger.write([], [tables.intent("code", ["id"])])
    with pytest.raises(LedgerError):
        limit.synchronise()
    # Nothing leaves.
    assert limit.is_due and limit.acquire() > 0
    ledger.write([Outcome("code", {"id": 5})], [tables.intent("other", ["other"])])
    assert tables.states(tables.next_try(), ["id", "other"]) == "ad"
    end_frozen()
    limit.synchronise()
    assert limit.acquire() <= 0


def test_the_database_ends_a_process_that_holds_the_row(
    paces: Paces, tables: SqlLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tables.conn_type == "sqlite":
        pytest.skip("SQLite has no server")
    own, exchange_in = paces(), SharedPace.exchange_in
    own.exchange(Ask(1, 0.2))
    monkeypatch.setattr(pace, "_HOLD", 1)
    granted: list[Grant] = []

    def freezes(frozen: SharedPace, run: Transaction, ask: Ask) -> Grant | None:
        grant = exchange_in(frozen, run, ask)
        monkeypatch.setattr(SharedPace, "exchange_in", exchange_in)
        with closing(Database(tables.hook(), "ledger")) as other:
            deadline = time.monotonic() + 300
            while not granted:
                assert time.monotonic() < deadline
                with suppress(LedgerError):
                    granted.append(own._exchange(other, Ask(1, 0.2)))
        return grant

    monkeypatch.setattr(SharedPace, "exchange_in", freezes)
    # When it goes on, it has lost its connection, and has reserved nothing.
    with pytest.raises(LedgerError):
        own.exchange(Ask(100, 1000.0))
    assert own.exchange(Ask(1, 0.2)).starts_at - granted[0].starts_at < 50_000


def test_what_limits_the_row_limits_no_other_transaction(paces: Paces, tables: SqlLedgers) -> None:
    limits = {
        "postgres": "SELECT current_setting('lock_timeout')",
        "mysql": "SELECT @@SESSION.innodb_lock_wait_timeout, @@SESSION.idle_write_transaction_timeout",
    }
    if (sql := limits.get(tables.conn_type)) is None:
        pytest.skip("SQLite has no such limits")
    with closing(Database(tables.hook(), "ledger")) as lent:
        with lent.transaction() as run:
            before = run.rows(sql, [])
        own = paces()
        own.lend(lent)
        own.exchange(Ask(1, 0.2))
        with lent.transaction() as run:
            assert run.rows(sql, []) == before


def test_a_closed_ledger_lends_its_connection_no_more(paces: Paces, tables: SqlLedgers) -> None:
    own = paces()
    limit = RateLimiter(5, turns=Turns(own))
    ledger = paced_ledger(tables, limit)
    limit.synchronise()
    assert ledger._database._connection is not None
    ledger.close()
    own.exchange(Ask(1, 0.2))
    assert ledger._database._connection is None


def test_tasks_that_write_at_once_do_not_wait_for_each_other_for_ever(
    paces: Paces, tables: SqlLedgers
) -> None:
    paces().exchange(Ask(0, 0.0))

    def work(number: int) -> int:
        ledger = tables.start(map_index=number)
        limit = RateLimiter(1000, turns=Turns(paces()))
        ledger.lend_to(limit)
        for n in range(10):
            ledger.write([], [tables.intent(f"code-{number}-{n}", [f"{number}-{n}"])])
            with suppress(LedgerError):
                limit.synchronise()
        ledger.close()
        return number

    assert at_once([lambda number=number: work(number) for number in range(4)]) == [0, 1, 2, 3]
