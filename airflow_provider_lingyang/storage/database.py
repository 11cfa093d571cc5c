"""Transactions in a database behind a ``DbApiHook``, with errors that say what they mean to a ledger.

The table of answers of ``transfers/`` is written through it, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import wraps
from itertools import chain
from typing import Any, TypeVar, cast

from airflow_provider_lingyang.errors import LedgerError, LedgerFencedError, LedgerUnusableError

_ROWS = 100
"""Rows, or values of a list, in one statement at most."""
_PARAMETERS = 2000
"""Parameters of one statement, unless a single row has more: SQL Server takes 2,100, others ten times as many."""
_IDLE = 5.0
"""Seconds after which a connection is not used again."""
_GAVE_WAY = {"40001", "40P01", 1213}
"""SQLSTATEs, and MySQL's own number, of a transaction that was rolled back in favour of another one."""
_UNUSABLE = {1044, 1045, 1049, 1054, 1142, 1143, 1146}
"""MySQL's numbers for access denied and for databases, tables and columns that are not there."""
_SQLITE_UNUSABLE = {"SQLITE_ERROR", "SQLITE_READONLY"}
"""SQLite's names for a statement that its tables do not fit, and for a file that may not be written."""
_OR_IGNORE = {
    "postgres": ("INSERT INTO", " ON CONFLICT DO NOTHING"),
    "sqlite": ("INSERT OR IGNORE INTO", ""),
    "mysql": ("INSERT IGNORE INTO", ""),
}
"""By ``conn_type``: how an insert begins and ends that leaves out a key which is there, and logs no error."""
T = TypeVar("T")
_Method = TypeVar("_Method", bound=Callable[..., Any])


class UnreachableError(LedgerError):
    """There is no connection."""


class SerializationFailureError(LedgerError):
    """The database rolled this transaction back in favour of another one; it may be run again."""


class UniqueViolationError(LedgerFencedError):
    """A row with the same key is there already."""


class Transaction:
    """Runs statements in one transaction. They are written with question marks for the parameters."""

    def __init__(self, cursor: Any, placeholder: str) -> None:
        self._cursor = cursor
        self._placeholder = placeholder

    def execute(self, sql: str, parameters: Sequence[Any]) -> int:
        """Return how many rows a statement touched."""
        self._cursor.execute(sql.replace("?", self._placeholder), tuple(parameters))
        return int(self._cursor.rowcount)

    def rows(self, sql: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        """Return all rows of a query."""
        self._cursor.execute(sql.replace("?", self._placeholder), tuple(parameters))
        return list(self._cursor.fetchall())

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        self._cursor.execute(f"SELECT * FROM {table} WHERE 1=0")
        names = [column[0] for column in self._cursor.description]
        self._cursor.fetchall()
        return names

    def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters, as fast as the driver can."""
        if rows:
            self._cursor.executemany(sql.replace("?", self._placeholder), [tuple(row) for row in rows])

    def exists(self, sql: str, parameters: Sequence[Any]) -> bool:
        """Return whether a query has a row."""
        ((found,),) = self.rows(f"SELECT CASE WHEN EXISTS ({sql}) THEN 1 ELSE 0 END", parameters)
        return bool(found)

    def insert(
        self, table: str, columns: str, rows: Sequence[Sequence[Any]], *, or_ignore: str | None = None
    ) -> None:
        """Insert rows, many in one statement: a round trip for each would be slow.

        :param or_ignore: the kind of database, whose keys then leave out what is there instead of failing, as far as
            it can. Default None: they fail.
        """
        if not rows:
            return
        into, ending = _OR_IGNORE.get(or_ignore or "", ("INSERT INTO", ""))
        for some in chunks(rows, max(1, min(_ROWS, _PARAMETERS // len(rows[0])))):
            values = ",".join(f"({marks(row)})" for row in some)
            self.execute(
                f"{into} {table} ({columns}) VALUES {values}{ending}", list(chain.from_iterable(some))
            )


class Database:
    """Holds one connection, and makes a new one after it broke.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors.
    :param what: what it is, for errors.
    :param collision: what it means that the database refuses a row because of one that is there, for errors.
    :param on_connect: statements for each new connection.
    """

    def __init__(
        self,
        hook: Any,
        conn_id: str,
        *,
        what: str = "the ledger's database",
        collision: str = (
            "another task of the same campaign has written one of these recipients to the ledger first. There is "
            "nothing to do: the next try, or Clear, goes on without the recipients that the other has"
        ),
        on_connect: Sequence[str] = (),
    ) -> None:
        self._hook = hook
        self.conn_type = getattr(hook, "conn_type", None)
        self._conn_id = conn_id
        self.name = f"{what} (connection {conn_id!r})"
        self._collision = f"{collision} (connection {conn_id!r})"
        self._on_connect = on_connect
        self._connection: Any = None
        self._used_at = 0.0

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Run statements, all or nothing.

        :raises UnreachableError: there is no connection.
        :raises UniqueViolationError: a key is there already.
        :raises SerializationFailureError: another transaction was preferred.
        :raises LedgerError: anything else of the database. Its text holds no values of rows.
        """
        # Servers and firewalls cut a connection that is idle for long, and it looks well until it is used.
        if time.monotonic() - self._used_at > _IDLE:
            self.close()
        try:
            if self._connection is None:
                self._connection = self._hook.get_conn()
                if hasattr(self._connection, "prepare_threshold"):
                    # Behind PgBouncer the next transaction may have another server, which knows no prepared statement.
                    self._connection.prepare_threshold = None
                if self._hook.supports_autocommit:
                    self._hook.set_autocommit(self._connection, False)
                with closing(self._connection.cursor()) as cursor:
                    for sql in self._on_connect:
                        cursor.execute(sql)
        except Exception as error:
            self.close()
            raise UnreachableError(f"{self.name} cannot be reached: {_kind(error)}") from error
        try:
            with closing(self._connection.cursor()) as cursor:
                yield Transaction(cursor, self._hook.placeholder)
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
                raise UniqueViolationError(f"{self._collision}: {_kind(error)}") from error
            raise _meaning(error)(f"{self.name} failed: {_kind(error)}") from error

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns; none where there is no such table that can be read.

        :raises UnreachableError: there is no connection.
        """
        try:
            with self.transaction() as run:
                # Its log would have an error of a table that is not there.
                if self.conn_type == "postgres" and run.rows("SELECT to_regclass(?)", [table]) == [(None,)]:
                    return []
                return run.columns(table)
        except UnreachableError:
            raise
        except LedgerError:
            return []

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # Nothing was left to be written.
                connection.close()


def repeated_after(*errors: type[LedgerError]) -> Callable[[_Method], _Method]:
    """Run a method again when nothing of it stayed because another process's transaction was there first."""

    def decorate(method: _Method) -> _Method:
        @wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            for _ in range(4):
                with suppress(*errors):
                    return method(*args, **kwargs)
            return method(*args, **kwargs)

        return cast("_Method", run)

    return decorate


def chunks(items: Sequence[T], size: int = _ROWS) -> Iterator[Sequence[T]]:
    """Yield as many items at a time as one statement takes."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def portions(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Yield as many items at a time as fit into a size; an item that is too large by itself comes alone."""
    portion: list[T] = []
    size = 0
    for item in items:
        length = size_of(item)
        if portion and size + length > most:
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += length
    if portion:
        yield portion


def marks(items: Sequence[Any]) -> str:
    """Return as many question marks."""
    return ",".join("?" * len(items))


def _meaning(error: Exception) -> type[LedgerError]:
    """Return what a database's error says; anything unknown may be over in a moment."""
    facts = {sqlstate(error), getattr(error, "sqlite_errorname", None), *error.args[:1]}
    if facts & _GAVE_WAY:
        return SerializationFailureError
    # Class 42: access rule violated, or no such table or column. 3D000: no such database.
    lasting = any(isinstance(fact, str) and re.fullmatch("42[0-9A-Z]{3}|3D000", fact) for fact in facts)
    return LedgerUnusableError if lasting or facts & (_UNUSABLE | _SQLITE_UNUSABLE) else LedgerError


def sqlstate(error: BaseException | None) -> str | None:
    """Return the SQLSTATE of a driver's error, or None."""
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def _kind(error: Exception) -> str:
    """Return what kind of error it is. Not its text, which may quote rows."""
    state, number = sqlstate(error), error.args[0] if error.args else None
    facts = [f"SQLSTATE {state}"] if state else []
    # MySQL's own number says more than HY000, under which it files most.
    facts += [f"error {number}"] if type(number) is int else []
    return f"{type(error).__name__} ({', '.join(facts)})" if facts else type(error).__name__
