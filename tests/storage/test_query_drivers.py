"""Rows of drivers with habits of their own, and what to mend where a statement and its parameters do not fit."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_lingyang.storage import query
from airflow_provider_lingyang.storage.query import QueryError, binding_hint, stream_rows
from tests.conftest import AirflowConnection

Row = namedtuple("Row", "a b")
VALUES = [(number, f"x{number}") for number in range(2500)]


class Cursor:
    """A cursor of a DB-API driver: rows in its own shape, columns known at once or only with the first rows."""

    def __init__(self, shape: Any, *, late: bool, lazy: bool, names: tuple[str, ...] = ("a", "b")) -> None:
        self._shape, self._late, self._lazy = shape, late, lazy
        self._names = names
        self._left = list(VALUES)
        self.description: Any = None

    def execute(self, sql: str, *parameters: Any) -> None:
        if not self._late:
            self._describe()

    def _describe(self) -> None:
        self.description = [(name, None) for name in self._names]

    def fetchmany(self, size: int) -> Any:
        self._describe()
        some, self._left = self._left[:size], self._left[size:]
        shaped = [self._shape(row) for row in some]
        return (row for row in shaped) if self._lazy else shaped

    def close(self) -> None:
        pass


class ProgrammingError(Exception):
    """What DB-API drivers call it."""


class Connection:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def cursor(self) -> Cursor:
        return self._cursor

    def close(self) -> None:
        pass


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[[Cursor], None]:
    def use(cursor: Any) -> None:
        class Hook:
            def get_conn(self) -> Connection:
                return Connection(cursor)

        monkeypatch.setattr(query, "sql_hook", lambda conn_id: Hook())

    return use


SHAPES = {
    "tuples": tuple,
    "lists": list,
    "named tuples": Row._make,
    "mappings": lambda row: dict(zip("ab", row, strict=True)),
    "mappings in another order": lambda row: {"b": row[1], "a": row[0]},
}


@pytest.mark.parametrize("late", [False, True], ids=["columns at once", "columns with the rows"])
@pytest.mark.parametrize("lazy", [False, True], ids=["lists", "generators"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_every_shape_are_the_same(
    driver: Callable[[Cursor], None], shape: str, lazy: bool, late: bool
) -> None:
    driver(Cursor(SHAPES[shape], late=late, lazy=lazy))
    with stream_rows("warehouse", "SELECT a, b FROM t") as (names, found):
        assert names == ["a", "b"]
        assert [tuple(row) for row in found] == VALUES


def test_name_that_a_mapping_loses_is_refused(driver: Callable[[Cursor], None]) -> None:
    driver(Cursor(lambda row: {"a": row[0]}, late=False, lazy=False, names=("a", "a")))
    twice = pytest.raises(QueryError, match="selects a name twice: give each column a name of its own")
    with twice, stream_rows("warehouse", "SELECT a, a FROM t") as (_, found):
        list(found)


def test_statement_without_rows_is_refused_also_where_columns_come_late(
    driver: Callable[[Cursor], None],
) -> None:
    class Nothing(Cursor):
        def fetchmany(self, size: int) -> Any:
            raise ProgrammingError("no results to fetch")

    driver(Nothing(tuple, late=True, lazy=False))
    with pytest.raises(QueryError, match="must be a SELECT"), stream_rows("warehouse", "DELETE FROM t"):
        pass


def test_error_of_the_first_row_is_reported_when_columns_come_late(
    driver: Callable[[Cursor], None],
) -> None:
    class Broken(Cursor):
        def fetchmany(self, size: int) -> Any:
            raise ArithmeticError

    driver(Broken(tuple, late=True, lazy=False))
    with pytest.raises(QueryError, match="ArithmeticError"), stream_rows("warehouse", "SELECT 1 / a FROM t"):
        pass


@pytest.fixture(params=["psycopg3", "psycopg2"])
def postgres(
    request: pytest.FixtureRequest, postgres_server: AirflowConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.versions import postgres_hook

    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(postgres_server))
    postgres_hook(request.param, monkeypatch)


@pytest.fixture
def mariadb(mariadb_server: AirflowConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(mariadb_server))


def refused(sql: str, parameters: Any) -> str:
    with pytest.raises(QueryError) as caught, stream_rows("warehouse", sql, parameters) as (_, found):
        list(found)
    return str(caught.value)


NAMED, PER_CENT = "this database's driver binds %(name)s, not :name", "is written %%"
MISFITS: list[tuple[str, Any, str]] = [
    ("SELECT 1 WHERE 'a' = :run_id", {"run_id": "CANARY"}, NAMED),
    ("SELECT 'a' WHERE 'abc' LIKE 'a%' AND 'x' = %(run_id)s", {"run_id": "CANARY"}, PER_CENT),
    ("SELECT 'a' WHERE 'abc' LIKE 'a%c' AND 'x' = %s", ["CANARY"], PER_CENT),
    ("SELECT 'a' WHERE 'x' = %(other)s", {"run_id": "CANARY"}, PER_CENT),
    ("SELECT 'a' WHERE 'x' = %s AND 'y' = %s", ["CANARY"], PER_CENT),
]


@pytest.mark.parametrize(("sql", "parameters", "hint"), MISFITS)
@pytest.mark.usefixtures("postgres")
def test_postgres_says_how_parameters_are_bound(sql: str, parameters: Any, hint: str) -> None:
    message = refused(sql, parameters)
    assert hint in message
    assert "CANARY" not in message


@pytest.mark.usefixtures("postgres")
def test_postgres_syntax_error_shows_its_token() -> None:
    assert 'syntax error at or near ":"' in refused("SELECT 1 WHERE 'a' = :run_id", {"run_id": "x"})


@pytest.mark.usefixtures("postgres")
def test_postgres_names_parameters_of_another_type_and_no_value() -> None:
    message = refused("SELECT 1 WHERE 5 = CAST(%(wave)s AS integer)", {"wave": "CANARY", "day": 7})
    assert "the parameters are wave (str), day (int)" in message
    assert "CANARY" not in message


@pytest.mark.usefixtures("mariadb")
def test_mariadb_says_how_parameters_are_bound() -> None:
    assert NAMED in refused("SELECT 1 FROM DUAL WHERE 'a' = :run_id", {"run_id": "CANARY"})


@pytest.mark.parametrize(
    ("error", "parameters"),
    [(RuntimeError("gone"), None), (ValueError(2013, "gone"), {"a": 1})],
)
def test_other_errors_get_no_hint(error: Exception, parameters: Any) -> None:
    assert binding_hint(error, "SELECT a FROM t WHERE b = %(a)s", parameters) == ""
