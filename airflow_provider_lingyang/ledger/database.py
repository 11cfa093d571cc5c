"""Transactions in a database behind a ``DbApiHook``, with errors that say what they mean to a ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain
from typing import Any, TypeVar

from airflow_provider_lingyang.ledger.base import LedgerError, LedgerFencedError

_ROWS = 100
"""Rows, or values of a list, in one statement at most: databases limit how many parameters they take."""
_IDLE = 5.0
"""Seconds after which a connection is not used again."""
_GAVE_WAY = {"40001", "40P01", 1213}
"""SQLSTATEs, and MySQL's own number, of a transaction that was rolled back in favour of another one."""
T = TypeVar("T")


class UnreachableError(LedgerError):
    """There is no connection."""


class GaveWayError(LedgerError):
    """The database rolled this transaction back in favour of another one; it may be run again."""


class CollisionError(LedgerFencedError):
    """A row with the same key is there already."""


class Statements:
    """Runs statements in one transaction. They are written with question marks for the parameters."""

    def __init__(self, cursor: Any, placeholder: str) -> None:
        self._cursor = cursor
        self._placeholder = placeholder

    def count(self, sql: str, parameters: Sequence[Any]) -> int:
        """Return how many rows a statement touched."""
        self._cursor.execute(sql.replace("?", self._placeholder), tuple(parameters))
        return int(self._cursor.rowcount)

    def rows(self, sql: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        """Return all rows of a query."""
        self._cursor.execute(sql.replace("?", self._placeholder), tuple(parameters))
        return list(self._cursor.fetchall())

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, many in one statement: a round trip for each would be slow."""
        for some in chunks(rows):
            values = ",".join(f"({marks(row)})" for row in some)
            self.count(f"INSERT INTO {table} ({columns}) VALUES {values}", list(chain.from_iterable(some)))


class Database:
    """Holds one connection, and makes a new one after it broke.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors.
    """

    def __init__(self, hook: Any, conn_id: str) -> None:
        self._hook = hook
        self._conn_id = conn_id
        self._connection: Any = None
        self._used_at = 0.0

    @contextmanager
    def transaction(self) -> Iterator[Statements]:
        """Run statements, all or nothing.

        :raises UnreachableError: there is no connection.
        :raises CollisionError: a key is there already.
        :raises GaveWayError: another transaction was preferred.
        :raises LedgerError: anything else of the database. Its text holds no values of rows.
        """
        # Servers and firewalls cut a connection that is idle for long, and it looks well until it is used.
        if time.monotonic() - self._used_at > _IDLE:
            self.close()
        try:
            if self._connection is None:
                self._connection = self._hook.get_conn()
                if self._hook.supports_autocommit:
                    self._hook.set_autocommit(self._connection, False)
        except Exception as error:
            self.close()
            raise UnreachableError(
                f"the ledger's database (connection {self._conn_id!r}) cannot be reached: {_kind(error)}"
            ) from error
        try:
            with closing(self._connection.cursor()) as cursor:
                yield Statements(cursor, self._hook.placeholder)
            self._connection.commit()
            self._used_at = time.monotonic()
        except BaseException as error:
            with suppress(Exception):
                self._connection.rollback()
            if isinstance(error, LedgerError):
                raise
            # A connection that broke, or was interrupted in the middle of an answer, would fail for ever.
            self.close()
            if not isinstance(error, Exception):
                raise
            if any(parent.__name__ == "IntegrityError" for parent in type(error).__mro__):
                raise CollisionError(
                    "another worker of the same campaign has written one of these recipients to the ledger "
                    f"(connection {self._conn_id!r})"
                ) from error
            gave_way = not _GAVE_WAY.isdisjoint([_state(error), *error.args[:1]])
            raise (GaveWayError if gave_way else LedgerError)(
                f"the ledger's database (connection {self._conn_id!r}) failed: {_kind(error)}"
            ) from error

    def has(self, table: str) -> bool:
        """Whether there is a table that can be read.

        :raises UnreachableError: there is no connection.
        """
        try:
            with self.transaction() as run:
                run.rows(f"SELECT count(*) FROM {table} WHERE 1=0", [])
        except UnreachableError:
            raise
        except LedgerError:
            return False
        return True

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # Nothing was left to be written.
                connection.close()


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield as many items at a time as one statement takes."""
    for start in range(0, len(items), _ROWS):
        yield items[start : start + _ROWS]


def marks(items: Sequence[Any]) -> str:
    """Return as many question marks."""
    return ",".join("?" * len(items))


def _state(error: Exception) -> str | None:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _kind(error: Exception) -> str:
    state = _state(error)
    return f"{type(error).__name__} (SQLSTATE {state})" if state else type(error).__name__
