"""Rows of a query as a stream, through any database hook of Airflow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

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
        with _readable(conn_id, sql):
            connection = stack.enter_context(closing(sql_hook(conn_id).get_conn()))
            cursor = stack.enter_context(closing(connection.cursor()))
            bound = () if parameters is None else (parameters,)
            cursor.execute(sql.strip().rstrip(";"), *bound)
            # Some drivers know the columns only once rows have come.
            first = cursor.fetchmany(_FETCH) if cursor.description else []
        if not cursor.description:
            raise QueryError(f"the sql on connection {conn_id!r} returns no rows: it must be a SELECT")
        yield [column[0] for column in cursor.description], _rows(conn_id, cursor, first)


def _rows(conn_id: str, cursor: Any, chunk: Sequence[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    while chunk:
        yield from chunk
        # What goes wrong here goes wrong with the rows, whose values a driver quotes.
        with _readable(conn_id, None):
            chunk = cursor.fetchmany(_FETCH)


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
def _readable(conn_id: str, sql: str | None) -> Iterator[None]:
    """Turn a driver's error into one whose text holds no values of rows.

    :param sql: words of the statement may be quoted; None: no text of the driver at all.
    """
    try:
        yield
    except AirflowException:
        raise
    except Exception as error:
        kind = type(error).__name__
        if state := getattr(error, "sqlstate", None) or getattr(error, "pgcode", None):
            kind += f" (SQLSTATE {state})"
        about_data = sql is None or any(parent.__name__ == "DataError" for parent in type(error).__mro__)
        text = "its text may quote rows and is left out" if about_data else _without_values(error, sql or "")
        raise QueryError(f"connection {conn_id!r}: {kind}: {text}") from None


_QUOTED = re.compile(r"""(?P<quote>["'`])(?P<inner>(?:(?!(?P=quote)).)*)(?P=quote)""")


def _without_values(error: Exception, sql: str) -> str:
    """Return the first line of a driver's text, with those quoted words only that stand in the statement."""
    line = str(error).strip().split("\n", 1)[0]
    known = {word.lower() for word in re.findall(r"\w+", sql)}

    def keep(quoted: re.Match[str]) -> str:
        words = re.findall(r"\w+", quoted["inner"].lower())
        return quoted[0] if words and known.issuperset(words) and quoted["inner"].isascii() else "<value>"

    line = _QUOTED.sub(keep, line)
    # A quote without its end: what follows may be a value's first line.
    unmatched = re.search(r"""["'`]""", _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), line))
    line = line[: unmatched.start()] if unmatched else line
    line = re.sub(r"[^\s@]+@[^\s@]+", "<email>", line)
    return re.sub(r"\+?\d[\d -]{3,}\d", "<number>", line)[:300]
