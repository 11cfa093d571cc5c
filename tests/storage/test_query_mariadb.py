"""An audience in a real MariaDB, through both of the drivers that Airflow's hook takes."""

from __future__ import annotations

import importlib.util
import json
import os

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from airflow_provider_lingyang.storage.query import QueryError, stream_rows
from tests.conftest import AirflowConnection, Run, missing
from tests.storage.memory import growth_while_reading
from tests.storage.real_campaign import check_campaign

TABLE = """
    CREATE OR REPLACE TABLE audience CHARACTER SET utf8mb4 AS SELECT
        lpad(seq, 5, '0') AS order_no,
        10000000000 + seq AS mobile,
        CAST(seq % 12 + 1 AS DECIMAL(10, 2)) AS wave,
        concat('客户', seq, ' "😀" ') AS customer,
        seq * 1.10 AS price,
        TIMESTAMP '2030-01-01 09:00:00' AS starts
    FROM seq_1_to_2500
"""


@pytest.fixture(params=["mysql-connector-python", "mysqlclient"])
def database(
    request: pytest.FixtureRequest, mariadb_server: AirflowConnection, monkeypatch: pytest.MonkeyPatch
) -> DbApiHook:
    mysql = pytest.importorskip("airflow.providers.mysql.hooks.mysql")
    if request.param == "mysqlclient" and importlib.util.find_spec("MySQLdb") is None:
        missing("mysqlclient")
    connection = {**mariadb_server, "extra": {"client": request.param, "charset": "utf8mb4"}}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    hook: DbApiHook = mysql.MySqlHook("warehouse", log_sql=False)
    hook.run(TABLE, autocommit=True)
    return hook


def test_a_campaign_from_mariadb_takes_its_types_as_they_are(
    database: DbApiHook, sandbox: SandboxProcess, run: Run
) -> None:
    check_campaign(run, sandbox, input_params_columns=["customer", "price"])


def test_memory_does_not_grow_with_the_rows_of_mariadb(database: DbApiHook) -> None:
    sql = "SELECT seq, repeat('x', 5000) FROM seq_1_to_20000"
    assert growth_while_reading("warehouse", sql, 20_000) < 20


def test_text_comes_from_mariadb_as_it_was_written(database: DbApiHook) -> None:
    sql = "SELECT customer FROM audience WHERE order_no = '00007'"
    with stream_rows("warehouse", sql) as (names, rows):
        assert (names, list(rows)) == (["customer"], [('客户7 "😀" ',)])


def test_mariadb_gives_the_names_of_columns_without_rows(database: DbApiHook) -> None:
    with stream_rows("warehouse", "SELECT order_no, mobile AS m FROM audience WHERE false") as (names, rows):
        assert names == ["order_no", "m"]
        assert list(rows) == []


def test_a_reading_from_mariadb_can_be_left_half_way(database: DbApiHook) -> None:
    with pytest.raises(ZeroDivisionError), stream_rows("warehouse", "SELECT * FROM audience") as (_, rows):
        next(rows)
        raise ZeroDivisionError


def test_a_wrong_column_is_named_although_rows_of_mariadb_are_left_unread(
    database: DbApiHook, sandbox: SandboxProcess, run: Run
) -> None:
    operator = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=1,
        sql="SELECT order_no AS biz_id, wave FROM audience",
        sql_conn_id="warehouse",
    )
    assert "column 'wave' is not a field of the API" in run.fails(operator)


def test_a_kind_of_cursor_that_the_connection_names_changes_no_row(
    database: DbApiHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_WAREHOUSE"])
    connection["extra"]["cursor"] = "dictcursor"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    with stream_rows("warehouse", "SELECT 1 AS a, 2 AS b") as (names, rows):
        assert (names, list(rows)) == (["a", "b"], [(1, 2)])


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM audience", "returns no rows: it must be a SELECT"),
        ("SELECT nope FROM audience", "1054.*Unknown column 'nope' in"),
        ("SELECT 1 FROM nowhere", "1146.*doesn't exist|1146.*<value>"),
    ],
)
def test_a_query_that_mariadb_does_not_take_is_an_error_that_says_so(
    database: DbApiHook, sql: str, expected: str
) -> None:
    with pytest.raises(QueryError, match=expected), stream_rows("warehouse", sql):
        pass
    assert database.get_first("SELECT count(*) FROM audience") == (2500,)


def test_an_error_in_the_middle_of_mariadbs_rows_shows_no_value(database: DbApiHook) -> None:
    sql = "SELECT 18446744073709551615 - 2400 + seq, '客户' FROM seq_1_to_2500"
    quoted = pytest.raises(QueryError, match="its text may quote rows")
    with stream_rows("warehouse", sql) as (_, rows), quoted as caught:
        list(rows)
    assert "客户" not in str(caught.value)
