"""An audience in a real PostgreSQL, through both of its drivers."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from airflow_provider_lingyang.storage.query import QueryError, stream_rows
from tests.conftest import AirflowConnection, Run
from tests.storage.memory import growth_while_reading
from tests.storage.real_campaign import check_campaign
from tests.versions import postgres_hook

TABLE = """
    DROP TABLE IF EXISTS audience;
    CREATE TABLE audience AS SELECT
        lpad(n::text, 5, '0')::char(12) AS order_no,
        10000000000 + n AS mobile,
        (n % 12 + 1)::numeric AS wave,
        '客户' || n || ' "😀" \\' AS customer,
        n * 1.10 AS price,
        jsonb_build_object('vip', n % 2 = 0) AS tags,
        timestamptz '2030-01-01 01:00:00+00' AS starts
    FROM generate_series(1, 2500) AS n
"""


@pytest.fixture(params=["psycopg3", "psycopg2"])
def database(
    request: pytest.FixtureRequest, postgres_server: AirflowConnection, monkeypatch: pytest.MonkeyPatch
) -> DbApiHook:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(postgres_server))
    hook: DbApiHook = postgres_hook(request.param, monkeypatch)("warehouse", log_sql=False)
    hook.run(TABLE, autocommit=True)
    connection = hook.get_conn()
    assert type(connection).__module__.split(".")[0] == request.param.rstrip("3")
    connection.close()
    return hook


def test_a_campaign_from_postgres_takes_its_types_as_they_are(
    database: DbApiHook, sandbox: SandboxProcess, run: Run
) -> None:
    check_campaign(run, sandbox, input_params_columns=["customer", "price", "tags"])


def test_postgres_errors_keep_their_reason_and_lose_their_values(database: DbApiHook) -> None:
    with pytest.raises(QueryError) as caught, stream_rows("warehouse", "SELECT customer::int FROM audience"):
        pass
    assert "InvalidTextRepresentation (SQLSTATE 22P02): its text may quote rows" in str(caught.value)
    missing = pytest.raises(QueryError, match='relation "nowhere" does not exist')
    with missing, stream_rows("warehouse", "SELECT 1 FROM nowhere"):
        pass


def test_an_error_in_the_middle_of_the_reading_ends_it_before_anything_is_sent(
    database: DbApiHook, sandbox: SandboxProcess, run: Run
) -> None:
    sql = "SELECT order_no AS biz_id, mobile AS phone_number, 1 / (2400 - mobile % 10000) AS source_id FROM audience"
    defaults = {"input_params": {}, "output_params": {}}
    operator = LingyangSubmitBatchOperator(
        task_id="submit", plan_id=1, sql=sql, sql_conn_id="warehouse", task_defaults=defaults
    )
    assert "DivisionByZero (SQLSTATE 22012)" in run.fails(operator)
    assert sandbox.record()["requests"] == []
    run.manifest()


def test_memory_does_not_grow_with_the_rows_of_postgres(database: DbApiHook) -> None:
    sql = "SELECT n, repeat('x', 1000) FROM generate_series(1, 100000) AS n"
    assert growth_while_reading("warehouse", sql, 100_000) < 20


def test_postgres_plans_for_all_rows_and_not_for_the_first(database: DbApiHook) -> None:
    with stream_rows("warehouse", "SELECT current_setting('cursor_tuple_fraction')") as (_, rows):
        assert list(rows) == [("1",)]


def test_postgres_gives_the_names_of_columns_without_rows(database: DbApiHook) -> None:
    with stream_rows("warehouse", "SELECT order_no, mobile AS m FROM audience WHERE false") as (names, rows):
        assert names == ["order_no", "m"]
        assert list(rows) == []


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM audience RETURNING order_no", 'at or near "DELETE" .*takes SELECT'),
        ("SHOW server_version", 'at or near "SHOW" .*takes SELECT'),
        ("WITH d AS (DELETE FROM audience RETURNING 1) SELECT * FROM d", "data-modifying .*only reads"),
        ("SELECT 1; DELETE FROM audience", "several statements|multiple commands"),
    ],
)
def test_postgres_reads_a_select_and_says_so_of_anything_else(
    database: DbApiHook, sql: str, expected: str
) -> None:
    with pytest.raises(QueryError, match=expected), stream_rows("warehouse", sql):
        pass
    assert database.get_first("SELECT count(*) FROM audience") == (2500,)


def test_a_reading_from_postgres_can_be_left_half_way(database: DbApiHook) -> None:
    with pytest.raises(ZeroDivisionError), stream_rows("warehouse", "SELECT * FROM audience") as (_, rows):
        next(rows)
        raise ZeroDivisionError


def test_a_kind_of_cursor_that_the_connection_names_changes_no_row(
    database: DbApiHook, postgres_server: AirflowConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = database.get_conn()
    extra = {
        "cursor": "realdictcursor" if type(connection).__module__.startswith("psycopg2") else "dictcursor"
    }
    connection.close()
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({**postgres_server, "extra": extra}))
    with stream_rows("warehouse", "SELECT 1 AS a, 2 AS b") as (names, rows):
        assert (names, list(rows)) == (["a", "b"], [(1, 2)])
