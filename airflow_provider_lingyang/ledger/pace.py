"""One pace for one App key: its rate limit and its bans, in a row that all tasks share which share a database.

The row says from when on turns are free, and until when a ban lasts, on the database's clock. A process reserves turns
by moving the first on, in a short transaction of its own, about once a second, on the connection on which it writes
intents several times a second. It is never the intents' transaction: a process that freezes before its commit keeps its
rows locked, and every campaign writes outcomes with its intents, which must not wait for another campaign's process.
How long the row is waited for, and held, is limited besides: while another one holds it, nothing is sent, and outcomes
are written. Each process reserves at the interval of its own connection. Turns of a process that ends are lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.identity import digest
from airflow_provider_lingyang.storage.database import (
    Database,
    SerializationFailureError,
    Transaction,
    UniqueViolationError,
)
from airflow_provider_lingyang.turns import Ask, Grant

_MICROSECONDS = 1_000_000
_NOW = {
    "postgres": f"CAST(EXTRACT(EPOCH FROM clock_timestamp()) * {_MICROSECONDS} AS BIGINT)",
    # SYSDATE is of the moment, also after a wait for the row. Its zone is the session's, with a summer time perhaps.
    "mysql": "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6)) - "
    "TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), NOW(6)))",
    "sqlite": f"CAST((julianday('now') - 2440587.5) * {86_400 * _MICROSECONDS} AS INTEGER)",
}
"""Microseconds since the epoch on the database's clock, by the connection's type. Elsewhere it is this machine's clock:
one that is ahead reserves later turns, and none too early."""
_WAIT, _HOLD = 2, 10
"""Whole seconds for which the row is waited for, and for which a process that is silent may hold it."""
_LIMITS = {
    "postgres": (
        "SELECT set_config('lock_timeout', '{wait}s', true), "
        "set_config('idle_in_transaction_session_timeout', '{hold}s', true)",
        "",
    ),
    # Variables of the session, which the ledger uses, too. What is in the comment is MariaDB's alone.
    "mysql": (
        "SET @lingyang_wait=@@SESSION.innodb_lock_wait_timeout, SESSION innodb_lock_wait_timeout={wait} "
        "/*M!100300 , @lingyang_hold=@@SESSION.idle_write_transaction_timeout, "
        "SESSION idle_write_transaction_timeout={hold} */",
        "SET SESSION innodb_lock_wait_timeout=@lingyang_wait "
        "/*M!100300 , SESSION idle_write_transaction_timeout=@lingyang_hold */",
    ),
}
"""What limits both in a transaction, by the connection's type, and what ends that. SQLite's driver waits for 5 s."""


class SharedPace:
    """The row of one host and App key. One exchange at a time; from any thread.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name.
    :param patience: seconds for which it is waited for while it is away.
    :param monotonic: seconds that only grow, of this process.
    :param clock: epoch seconds, for databases without a clock that is known.
    """

    def __init__(
        self,
        hook: Any,
        conn_id: str,
        host: str,
        app_key: str,
        patience: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.patience = patience
        self._database = Database(hook, conn_id)
        self._lent: tuple[int, Database] | None = None
        self._key = digest(host, app_key)
        self._now = _NOW.get(self._database.conn_type or "")
        self._monotonic = monotonic
        self._clock = clock

    def lend(self, database: Database) -> None:
        """Take the connection of the ledger, for calls of this thread, until :meth:`give_back`."""
        self._lent = threading.get_ident(), database

    def give_back(self, database: Database) -> None:
        """Use a connection no more that was lent."""
        if self._lent is not None and self._lent[1] is database:
            self._lent = None

    def exchange(self, ask: Ask) -> Grant:
        """Note a ban, reserve turns and read until when a ban lasts, in a transaction of its own.

        :raises LedgerError: it is away; nothing is reserved.
        """
        lent = self._lent
        if lent is not None and lent[0] == threading.get_ident():
            return self._exchange(lent[1], ask)
        try:
            return self._exchange(self._database, ask)
        finally:
            # The next call may be another thread's, or hours later.
            self._database.close()

    def _exchange(self, database: Database, ask: Ask) -> Grant:
        for _ in range(9):
            # Another process makes the row, or was preferred.
            with suppress(SerializationFailureError, UniqueViolationError):
                return self._exchange_once(database, ask)
        raise LedgerError(f"{database.name} keeps preferring others in the row of the rate limit")

    def _exchange_once(self, database: Database, ask: Ask) -> Grant:
        limit, unlimit = _LIMITS.get(database.conn_type or "", ("", ""))
        is_reading = not any((ask.turns, ask.ban, ask.submits_ban))
        with database.transaction() as run:
            if limit and not is_reading:
                run.execute(limit.format(wait=_WAIT, hold=_HOLD), [])
            grant = self.exchange_in(run, ask)
            if grant is None:
                columns = "pace, next_at, banned_until, submits_banned_until"
                run.insert("lingyang_ledger_pace", columns, [(self._key, 0, 0, 0)])
                grant = self.exchange_in(run, ask)
            assert grant is not None
            # After a failure the connection is not used again.
            if unlimit and not is_reading:
                run.execute(unlimit, [])
        return grant

    def exchange_in(self, run: Transaction, ask: Ask) -> Grant | None:
        """Do the same in a transaction; return None where there is no row."""
        for column, ban in (("banned_until", ask.ban), ("submits_banned_until", ask.submits_ban)):
            if ban > 0:
                ends, moment = self._expression(f"{{now}} + {round(ban * _MICROSECONDS)}")
                sql = f"CASE WHEN {column} > {ends} THEN {column} ELSE {ends} END"
                self._update(run, f"{column}={sql}", [*moment, *moment])
        reserved = round(ask.turns * ask.interval * _MICROSECONDS)
        if reserved:
            now, moment = self._expression("{now}")
            sql = (
                f"CASE WHEN next_at > banned_until AND next_at > {now} THEN next_at "
                f"WHEN banned_until > {now} THEN banned_until ELSE {now} END"
            )
            if not self._update(run, f"next_at={reserved} + {sql}", [*moment, *moment, *moment]):
                # Another process may just make the row: what is read next is not what was reserved.
                return None
        now, moment = self._expression("{now}")
        rows = run.rows(
            f"SELECT next_at, banned_until, submits_banned_until, {now} FROM lingyang_ledger_pace WHERE pace=?",
            [*moment, self._key],
        )
        # After the answer: a turn is never earlier than on the database's clock.
        read_at = self._monotonic()
        if not rows:
            return None
        *moments, at = (int(value) for value in rows[0])
        moments[0] -= reserved
        return Grant(*(read_at + (moment - at) / _MICROSECONDS for moment in moments))

    def _expression(self, sql: str) -> tuple[str, list[int]]:
        """Return SQL with the present moment, and its parameters."""
        if self._now is not None:
            return sql.format(now=self._now), []
        return sql.format(now="?"), [round(self._clock() * _MICROSECONDS)]

    def _update(self, run: Transaction, change: str, parameters: list[int]) -> int:
        return run.execute(f"UPDATE lingyang_ledger_pace SET {change} WHERE pace=?", [*parameters, self._key])


def shared_limiter(
    hook: Any, conn_id: str, host: str, app_key: str, max_requests_per_second: float | None, patience: float
) -> RateLimiter:
    """Return the rate limiter that all share which share a database.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name.
    :param patience: seconds for which the database is waited for while it is away.
    """
    return RateLimiter.of_process(
        host,
        app_key,
        max_requests_per_second,
        ledger=conn_id,
        pace=lambda: SharedPace(hook, conn_id, host, app_key, patience),
    )
