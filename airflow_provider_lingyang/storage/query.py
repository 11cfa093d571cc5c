"""Rows of a query as a stream, through any database hook of Airflow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

from airflow_provider_lingyang.storage.database import sqlstate

_FETCH = 1000


class QueryError(AirflowException):
    """A database did not give the rows. The text holds no values of theirs."""


@contextmanager
def stream_rows(
    conn_id: str, sql: str, parameters: Iterable[Any] | Mapping[str, Any] | None = None
) -> Iterator[tuple[list[str], Iterator[Sequence[Any]]]]:
    """Run a query and give its column names and its rows, a thousand in memory at a time.

    Nothing is logged and nothing is committed.

    :param conn_id: connection of any type whose hook is a ``DbApiHook``.
    :param sql: one statement.
    :param parameters: bound to it, as the database's driver wants them.
    :raises QueryError: the connection or the query does not work.
    """
    with ExitStack() as stack:
        with _readable(conn_id, sql, parameters):
            hook = sql_hook(conn_id)
            connection = hook.get_conn()
            stack.callback(_close, connection)
            cursor, declared = _streaming_cursor(hook, connection)
            if not _is_of(connection, "MySQLdb", "mysql"):
                # There it would read all that is left first, or refuse to.
                stack.callback(_close, cursor)
            bound = () if parameters is None else (parameters,)
            cursor.execute(sql.strip().rstrip(";"), *bound)
            if declared and cursor.statusmessage not in (None, "DECLARE CURSOR"):
                # Only the first of them would be read.
                raise QueryError(
                    f"the sql on connection {conn_id!r} holds several statements: it must be one SELECT"
                )
            first = _fetched(cursor) if declared else _first_rows(cursor)
        if not cursor.description:
            raise QueryError(f"the sql on connection {conn_id!r} returns no rows: it must be a SELECT")
        names = [column[0] for column in cursor.description]
        yield names, _rows(conn_id, cursor, first, names)


def _streaming_cursor(hook: Any, connection: Any) -> tuple[Any, bool]:
    """Return a server-side cursor: it leaves the rows with the server until they are fetched, as plain sequences.

    :return: it, and whether the statement is put into a DECLARE CURSOR.
    """
    # The drivers of PostgreSQL and MySQL read every row into memory before they give the first one. Each is imported
    # already: the connection is its own.
    if _is_of(connection, "psycopg", "psycopg2"):
        # DECLARE CURSOR needs a transaction.
        hook.set_autocommit(connection, False)
        _plan_for_all_rows(connection)
        if _is_of(connection, "psycopg"):
            from psycopg.rows import tuple_row

            return connection.cursor(_CURSOR, row_factory=tuple_row), True
        from psycopg2.extensions import cursor

        return connection.cursor(_CURSOR, cursor_factory=cursor), True
    if _is_of(connection, "MySQLdb"):
        from MySQLdb.cursors import SSCursor

        return connection.cursor(SSCursor), False
    if _is_of(connection, "mysql"):
        return connection.cursor(buffered=False), False
    return connection.cursor(), False


_CURSOR = "lingyang_rows"
_NOT_DECLARABLE = ("42601", "0A000")
"""SQLSTATEs: a syntax error, and a feature that is not supported there."""


def _is_of(connection: Any, *drivers: str) -> bool:
    """Whether a connection is one of these drivers, or a class derived from one of theirs."""
    return any(parent.__module__.partition(".")[0] in drivers for parent in type(connection).__mro__)


def _plan_for_all_rows(connection: Any) -> None:
    """Have PostgreSQL plan for the last row: of a cursor it expects that a tenth is read, and may take far longer."""
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute("SET LOCAL cursor_tuple_fraction = 1")
    except Exception:
        # One of its relatives that does not know it.
        connection.rollback()


def _close(what: Any) -> None:
    """Close a cursor or a connection. Where that fails there is nothing left to save."""
    with suppress(Exception):
        what.close()


def _first_rows(cursor: Any) -> list[Any]:
    if cursor.description:
        return _fetched(cursor)
    # Some drivers know the columns only once rows have come. Where no row can come, most refuse to be asked.
    try:
        return _fetched(cursor)
    except Exception as error:
        refused = {"ProgrammingError", "InterfaceError"} & {parent.__name__ for parent in type(error).__mro__}
        if cursor.description or not refused:
            raise
        return []


def _fetched(cursor: Any) -> list[Any]:
    # A driver may give a generator, which is never empty before it is asked.
    return list(cursor.fetchmany(_FETCH))


def _rows(conn_id: str, cursor: Any, chunk: list[Any], names: Sequence[str]) -> Iterator[Sequence[Any]]:
    of_mappings = bool(chunk) and isinstance(chunk[0], Mapping)
    if of_mappings and len(set(names)) < len(names):
        raise QueryError(
            f"connection {conn_id!r} gives rows as mappings, and the sql selects a name twice: give each column a "
            "name of its own (AS), or let the connection give plain rows"
        )
    while chunk:
        if of_mappings:
            with _readable(conn_id, None):
                chunk = [tuple(row[name] for name in names) for row in chunk]
        yield from chunk
        # What goes wrong here goes wrong with the rows, whose values a driver quotes.
        with _readable(conn_id, None):
            chunk = _fetched(cursor)


def sql_hook(conn_id: str) -> Any:
    """Return the ``DbApiHook`` of a connection.

    :raises QueryError: there is none.
    """
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    try:
        conn = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise QueryError(f"the Airflow connection {conn_id!r} is not defined") from None
    try:
        hook = conn.get_hook()  # type: ignore[no-untyped-call]  # untyped in Airflow
    except AirflowException:
        raise QueryError(
            f"connection {conn_id!r} is of type {conn.conn_type!r}, which no installed provider knows: "
            f"install the one for it, such as apache-airflow-providers-{conn.conn_type}"
        ) from None
    if not isinstance(hook, DbApiHook):
        raise QueryError(f"connection {conn_id!r} is of type {conn.conn_type!r}, which is not a SQL database")
    return hook


@contextmanager
def _readable(
    conn_id: str, sql: str | None, parameters: Iterable[Any] | Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Turn a driver's error into one whose text holds no values of rows.

    :param sql: words of the statement may be quoted; None: no text of the driver at all.
    :param parameters: bound to it; their names and types may be shown.
    """
    try:
        yield
    except AirflowException:
        raise
    except Exception as error:
        kind = type(error).__name__
        if state := sqlstate(error):
            kind += f" (SQLSTATE {state})"
        about_data = sql is None or any(parent.__name__ == "DataError" for parent in type(error).__mro__)
        text = "its text may quote rows and is left out" if about_data else _without_values(error, sql or "")
        if state in _NOT_DECLARABLE and not about_data:
            text += " (the sql is read through DECLARE CURSOR, which takes SELECT, VALUES, and a WITH that only reads)"
        if sql is not None:
            text += binding_hint(error, sql, parameters)
        raise QueryError(f"connection {conn_id!r}: {kind}: {text}") from None


_PERCENT_DRIVERS = ("psycopg", "psycopg2", "MySQLdb", "mysql", "pymysql")
_COLON_NAME = re.compile(r"(?<![:\w]):[A-Za-z_]\w*")
_SYNTAX = ("42601", 1064, 1149)
"""A syntax error: PostgreSQL's SQLSTATE, MySQL's own numbers."""
_NOT_OF_ITS_TYPE = ("22P02", "22007", "22008", "22003", "42883", "42804")
"""SQLSTATEs of PostgreSQL: a value that is not of the type that it is compared with."""


def binding_hint(error: Exception, sql: str, parameters: Iterable[Any] | Mapping[str, Any] | None) -> str:
    """Return what to mend where a statement and its parameters do not go together; empty where they may.

    :param error: the driver's.
    """
    state = sqlstate(error)
    module = type(error).__module__.partition(".")[0]
    # What a driver raises while it puts the parameters in has no state: some raise Python's own errors.
    binds = state is None and (module in ("builtins", *_PERCENT_DRIVERS))
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    if (state in _SYNTAX or number in _SYNTAX) and _COLON_NAME.search(sql):
        return " (this database's driver binds %(name)s, not :name)"
    if parameters is not None and binds and number is None and "%" in sql:
        return (
            " (this driver binds %(name)s to a dict and %s to a list, and each must be given; beside parameters, a per "
            "cent sign of the sql itself is written %%)"
        )
    if parameters is not None and state in _NOT_OF_ITS_TYPE:
        named = (
            parameters.items()
            if isinstance(parameters, Mapping)
            else ((f"number {place}", value) for place, value in enumerate(parameters, 1))
        )
        types = ", ".join(f"{str(name)[:40]} ({type(value).__name__})" for name, value in named)
        return (
            f" (the parameters are {types}; a template renders to text: cast it in the sql, such as "
            "CAST(%(name)s AS integer))"
        )
    return ""


_QUOTED = re.compile(r"""(?P<quote>["'`])(?P<inner>(?:(?!(?P=quote)).)*)(?P=quote)""")


def _without_values(error: Exception, sql: str) -> str:
    """Return the first line of a driver's text, with those quoted words only that stand in the statement."""
    # mysqlclient's text is a tuple in Python's words: all of it would be in quotes.
    number_and_text = len(error.args) == 2 and isinstance(error.args[0], int)
    text = f"{error.args[0]}: {error.args[1]}" if number_and_text else str(error)
    line = text.strip().split("\n", 1)[0]
    known = {word.lower() for word in re.findall(r"\w+", sql)}

    def keep(quoted: re.Match[str]) -> str:
        inner = quoted["inner"]
        words = re.findall(r"\w+", inner.lower())
        # What the parser stumbled over may be a mark of the statement: a colon, a per cent sign.
        is_in_sql = known.issuperset(words) if words else len(inner) <= 3 and inner in sql
        return quoted[0] if inner and is_in_sql and inner.isascii() else "<value>"

    line = _QUOTED.sub(keep, line)
    # A quote without its end: what follows may be a value's first line.
    unmatched = re.search(r"""["'`]""", _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), line))
    line = line[: unmatched.start()] if unmatched else line
    line = re.sub(r"[^\s@]+@[^\s@]+", "<email>", line)
    return re.sub(r"\+?\d[\d -]{3,}\d", "<number>", line)[:300]
