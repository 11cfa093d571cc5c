"""Rows of a query as a stream, and a database's errors without its data."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from airflow_provider_lingyang.storage.query import QueryError, _without_values, stream_rows
from tests.conftest import FillDb


def test_rows_come_with_their_names_and_parameters_are_bound(audience_db: FillDb) -> None:
    audience_db(["a", "b"], [(number, f"x{number}") for number in range(5000)])
    with stream_rows("audience_db", 'SELECT a, b AS "B" FROM audience WHERE a >= ?;\n', (4998,)) as (
        names,
        rows,
    ):
        assert names == ["a", "B"]
        assert list(rows) == [(4998, "x4998"), (4999, "x4999")]


def test_memory_does_not_grow_with_the_rows(audience_db: FillDb) -> None:
    audience_db(["a"], [("x" * 500,)] * 20_000)

    def peak(limit: int) -> int:
        tracemalloc.start()
        with stream_rows("audience_db", f"SELECT a FROM audience LIMIT {limit}") as (_, rows):
            assert sum(1 for _ in rows) == limit
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(1)
    assert peak(20_000) < 2 * peak(2_000)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT nope FROM audience", "connection 'audience_db': OperationalError: no such column: nope"),
        ("DELETE FROM audience", "returns no rows: it must be a SELECT"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
    ],
)
def test_a_query_that_does_not_work_is_an_error_that_says_so(
    audience_db: FillDb, sql: str, expected: str
) -> None:
    audience_db(["a"], [(1,)])
    with pytest.raises(QueryError, match=expected), stream_rows("audience_db", sql):
        pass
    with stream_rows("audience_db", "SELECT count(*) FROM audience") as (_, rows):
        assert list(rows) == [(1,)]


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        (None, "'elsewhere' is not defined"),
        (
            {"conn_type": "nosuchdb"},
            "no installed provider knows: install .*apache-airflow-providers-nosuchdb",
        ),
        ({"conn_type": "lingyang", "host": "https://x/"}, "is not a SQL database"),
    ],
)
def test_a_connection_that_gives_no_rows_is_an_error_that_says_why(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any] | None, expected: str
) -> None:
    if connection:
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(connection))
    with pytest.raises(QueryError, match=expected), stream_rows("elsewhere", "SELECT 1"):
        pass


def test_error_of_the_reader_keeps_its_type(audience_db: FillDb) -> None:
    audience_db(["a"], [(1,)])
    with pytest.raises(ZeroDivisionError), stream_rows("audience_db", "SELECT a FROM audience"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('relation "audience" does not exist\nLINE 1: SELECT \'10000000001\'', 'relation "audience" does not exist'),
        ("Unknown column 'a.nope' in 'field list'", "Unknown column 'a.nope' in <value>"),
        ("Could not convert string 'ZhangSan' to INT32", "Could not convert string <value> to INT32"),
        ("converting the varchar value 'Smith' to int", "converting the varchar value <value> to int"),
        ('bad "张三" and \'a b\'', "bad <value> and <value>"),
        ("with text 'Smith\nand so on'", "with text "),
        ("mail someone@example.com, call +86-1000-0000001", "mail <email> call <number>"),
        ("out of range: 100 0000 0001.", "out of range: <number>."),
    ],
)  # fmt: skip
def test_a_drivers_text_keeps_the_statements_words_and_loses_values(text: str, expected: str) -> None:
    assert _without_values(Exception(text), "SELECT a.nope FROM audience AS a") == expected


def test_error_while_reading_rows_shows_no_text_of_the_driver(audience_db: FillDb) -> None:
    audience_db(["a"], [("x",)] * 1001 + [(b"O'Brien CANARY\xff",)])
    quoted = pytest.raises(QueryError, match="OperationalError: its text may quote rows")
    with stream_rows("audience_db", "SELECT CAST(a AS TEXT) FROM audience") as (_, rows), quoted as caught:
        list(rows)
    assert "CANARY" not in str(caught.value)
