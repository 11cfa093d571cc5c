"""Tables of results in real databases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import pytest

from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator
from tests.conftest import FillDb, Run
from tests.helpers.campaigns import submitted
from tests.versions import postgres_hook

SQL = ["sqlite", "psycopg2", "psycopg3", "mariadb"]
MakeTransfer = Callable[..., LingyangToSqlOperator]
Submit = Callable[..., Mapping[str, object]]


class Warehouse:
    """The database of connection ``warehouse``, and its rows."""

    def __init__(self, kind: str, hook: Callable[[], Any]) -> None:
        self.kind = kind
        self._hook = hook
        self.sql("DROP TABLE IF EXISTS answers")

    @property
    def quote(self) -> str:
        return "`" if self.kind == "mariadb" else '"'

    def sql(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        hook = self._hook()
        with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement.replace("?", hook.placeholder), tuple(parameters))
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
        return rows

    def rows(self, *columns: str, of: str = "answers", quoted: bool = True) -> dict[str, Any]:
        """``biz_id`` → the named columns; a single one bare."""
        q = self.quote if quoted else ""
        names = ", ".join(["biz_id", *(f"{q}{column}{q}" for column in columns)])
        found = self.sql(f"SELECT {names} FROM {of} ORDER BY biz_id")
        rows = {row[0]: row[1] if len(columns) == 1 else tuple(row[1:]) for row in found}
        assert len(rows) == len(found)
        return rows

    def connection(self) -> Any:
        return self._hook().get_conn()


@pytest.fixture
def make_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Warehouse]:
    def make(kind: str) -> Warehouse:
        if kind == "sqlite":
            from airflow.providers.sqlite.hooks.sqlite import SqliteHook as Hook

            connection = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
        elif kind == "mariadb":
            Hook = pytest.importorskip("airflow.providers.mysql.hooks.mysql").MySqlHook  # noqa: N806
            pytest.importorskip("mysql.connector")
            connection = request.getfixturevalue("mariadb_server")
        else:
            Hook = postgres_hook(kind, monkeypatch)  # noqa: N806
            connection = request.getfixturevalue("postgres_server")
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
        return Warehouse(kind, lambda: Hook("warehouse"))

    return make


@pytest.fixture(params=SQL)
def warehouse(request: pytest.FixtureRequest, make_warehouse: Callable[[str], Warehouse]) -> Warehouse:
    return make_warehouse(request.param)


@pytest.fixture
def sqlite(make_warehouse: Callable[[str], Warehouse]) -> Warehouse:
    return make_warehouse("sqlite")


@pytest.fixture
def transfer() -> MakeTransfer:
    """Makes an operator that writes to the warehouse's table ``answers``."""

    def make(**changes: Any) -> LingyangToSqlOperator:
        arguments = {"task_id": "to_sql", "table": "answers", "sql_conn_id": "warehouse"}
        return LingyangToSqlOperator(**(arguments | {"create_table": True} | changes))

    return make


@pytest.fixture
def submit(run: Run) -> Submit:
    """Submits a campaign of ``count`` recipients, B0, B1 …, and returns its manifest."""
    return partial(submitted, run, plan_id=7, output_slots=["a", "b"])


class ResultsSource(TypedDict):
    """Arguments that read results from a table."""

    results_sql: str
    results_conn_id: str
    result_query: dict[str, list[str]]


Pushed = Callable[[Sequence[Sequence[object]]], ResultsSource]


@pytest.fixture
def pushed(audience_db: FillDb) -> Pushed:
    """Fills a table with results, and returns the arguments that read them."""

    def push(rows: Sequence[Sequence[object]]) -> ResultsSource:
        columns = ["biz_id", "output_params", "status", "task_id"]
        audience_db(columns, [tuple(row) + (None,) * (4 - len(row)) for row in rows], table="pushed")
        return {
            "results_sql": "SELECT * FROM pushed",
            "results_conn_id": "audience_db",
            "result_query": {"done_values": ["OK"], "failed_values": ["HUNG_UP"]},
        }

    return push


class Written(TypedDict):
    """What a transfer returns, as far as it is used here."""

    counts: dict[str, int]


Counts = Callable[[Written], dict[str, int]]


def counts(value: Written) -> dict[str, int]:
    """The counts that are not 0, once they add up."""
    found = value["counts"]
    assert found.keys() == {
        *(
            "recipients",
            "rows",
            "inserted",
            "updated",
            "filled",
            "empty",
            "not_reached",
            "unknown",
            "foreign",
        ),
        "unreadable",
        "cut",
    }
    parts = ("filled", "empty", "not_reached", "unknown", "foreign")
    assert sum(found[part] for part in parts) == found["recipients"]
    assert found["inserted"] + found["updated"] == found["rows"]
    assert found["filled"] + found["empty"] + found["not_reached"] == found["rows"]
    return {name: count for name, count in found.items() if count}


@pytest.fixture(name="counts")
def counts_fixture() -> Counts:
    return counts
