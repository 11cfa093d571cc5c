"""Where the ledgers of the model live: one SQLite database, and a task state store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from airflow_provider_lingyang.ledger.sql_migrations import migrate
from airflow_provider_lingyang.storage import database as storage
from tests.model.simulated_time import Process


class StoreError(Exception):
    """What Airflow's task state store raises."""


class ReplacedError(StoreError):
    """What it raises for a try that was replaced: the API server does not know that one any more."""

    error = SimpleNamespace(
        detail={"status_code": 404, "detail": {"detail": {"reason": "not_found", "message": "gone"}}}
    )


class Away:
    """Whether the ledgers can be reached.

    :param now: logical seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.until = 0.0

    def __bool__(self) -> bool:
        return self._now() < self.until


class Points:
    """Lets happen what happens around a write.

    :param before: called before a write becomes lasting; may kill the process.
    :param after: called after it; True: its confirmation is lost.
    """

    def __init__(self, before: Callable[[Process], None], after: Callable[[Process], bool]) -> None:
        self.before, self.after = before, after


class Database:
    """One for all histories of this process: emptied between them."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self.db.execute("PRAGMA synchronous=OFF")
        # Before any history: making them is none of its events.
        migrate(storage.Database(_Plain(self.db), "ledger"))

    def empty(self) -> None:
        self.db.rollback()
        for (table,) in self.db.execute(
            "SELECT name FROM sqlite_master WHERE type='table' AND name<>'lingyang_ledger_schema'"
        ).fetchall():
            self.db.execute(f"DELETE FROM {table}")
        self.db.commit()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.db.execute(sql).fetchall()


class _Plain:
    """As much of a ``DbApiHook`` as making the tables needs."""

    conn_type = "sqlite"
    placeholder = "?"
    supports_autocommit = False

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def get_conn(self) -> Any:
        return self

    def close(self) -> None:
        """Keep it: it is in memory only."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class Hook:
    """As much of a ``DbApiHook`` as the ledger uses, for one process."""

    conn_type = "sqlite"
    placeholder = "?"
    supports_autocommit = False

    def __init__(self, database: Database, process: Process, away: Away, points: Points) -> None:
        self._connect = lambda: _Connection(database.db, process, away, points)
        self._away = away

    def get_conn(self) -> Any:
        if self._away:
            raise sqlite3.OperationalError("unreachable")
        return self._connect()


class _Connection:
    def __init__(self, db: sqlite3.Connection, process: Process, away: Away, points: Points) -> None:
        self._db, self._process, self._away, self._points = db, process, away, points

    def cursor(self) -> Any:
        return _Cursor(self._db.cursor(), self._check)

    def _check(self) -> None:
        self._process.check()
        if self._away:
            raise sqlite3.OperationalError("the server closed the connection")

    def commit(self) -> None:
        self._check()
        wrote = self._db.in_transaction
        if wrote:
            self._points.before(self._process)
            self._check()
        self._db.commit()
        if wrote and self._points.after(self._process):
            raise sqlite3.OperationalError("the server closed the connection during the commit")

    def rollback(self) -> None:
        self._db.rollback()

    def close(self) -> None:
        pass


class _Cursor:
    def __init__(self, cursor: sqlite3.Cursor, check: Callable[[], None]) -> None:
        self._cursor, self._check = cursor, check
        self.fetchall = cursor.fetchall
        self.close = cursor.close

    def execute(self, *args: Any) -> None:
        self._check()
        self._cursor.execute(*args)

    def executemany(self, *args: Any) -> None:
        self._check()
        self._cursor.executemany(*args)

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    @property
    def description(self) -> Any:
        return self._cursor.description


class TaskState:
    """The state of one task instance; only its newest try may write."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.newest: Process | None = None


class Store:
    """What ``context["task_state_store"]`` is, for one try."""

    def __init__(self, state: TaskState, process: Process, away: Away, points: Points) -> None:
        self._state, self._process, self._away, self._points = state, process, away, points
        state.newest = process

    def _check(self) -> None:
        self._process.check()
        if self._away:
            raise StoreError("unreachable")

    def get(self, key: str, default: Any = None) -> Any:
        self._check()
        return json.loads(self._state.values[key]) if key in self._state.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._check()
        self._points.before(self._process)
        self._check()
        if self.fenced():
            raise ReplacedError
        self._state.values[key] = json.dumps(value)
        if self._points.after(self._process):
            raise StoreError("timed out")

    def delete(self, key: str) -> None:
        self._check()
        self._state.values.pop(key, None)

    def fenced(self) -> bool:
        return self._state.newest is not self._process
