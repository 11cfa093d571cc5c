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
        with _readable(conn_id):
            connection = stack.enter_context(closing(_hook(conn_id).get_conn()))
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
        with _readable(conn_id):
            chunk = cursor.fetchmany(_FETCH)


def _hook(conn_id: str) -> Any:
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
def _readable(conn_id: str) -> Iterator[None]:
    """Turn a driver's error into one whose text holds no values: drivers quote rows and literals."""
    try:
        yield
    except AirflowException:
        raise
    except Exception as error:
        raise QueryError(
            f"connection {conn_id!r}: {type(error).__name__}: {_without_values(error)}"
        ) from None


_QUOTED = re.compile(
    r"""(?P<before>(?:value|:)\s*)?(?P<quote>["'])(?P<inner>(?:(?!(?P=quote)).)*)(?P=quote)"""
)


def _without_values(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0][:300]
    text = _QUOTED.sub(_keep_identifier, text)
    text = re.sub(r"[^\s@]+@[^\s@]+", "<email>", text)
    return re.sub(r"\+?\d[\d-]{4,}", "<number>", text)


def _keep_identifier(quoted: re.Match[str]) -> str:
    """Names of tables and columns are what a person needs; "value 'x'" and ": 'x'" quote the data."""
    inner = quoted["inner"]
    if quoted["before"] is None and inner.isascii() and inner.replace(".", "_").isidentifier():
        return quoted[0]
    return f"{quoted['before'] or ''}<value>"
