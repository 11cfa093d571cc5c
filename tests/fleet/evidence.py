"""Reads what the gateway, the ledger and the warehouse hold of a campaign. Each has one function."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from airflow_provider_lingyang.sandbox import SUBMIT
from tests.fleet.verdict import Request


def connect(server: Mapping[str, Any], database: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a database of the fleet."""
    return psycopg.connect(
        host=server["host"],
        port=server["port"],
        user=server["login"],
        dbname=database,
        autocommit=True,
        connect_timeout=5,
    )


class Gateway:
    """The store of the sandbox, which a process of its own writes.

    :param store: its file.
    """

    def __init__(self, store: Path) -> None:
        self._uri = f"{store.as_uri()}?mode=ro"

    def _rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._uri, uri=True, timeout=60)) as db:
            return db.execute(sql, parameters).fetchall()

    def requests(self, plan_id: int) -> list[Request]:
        """Return the requests that submit, in order of arrival; one that is under way never ends."""
        rows = self._rows(
            "SELECT biz_ids, batch_num, received_at, ended_at FROM requests WHERE plan_id = ? AND method = ? ORDER BY seq",
            plan_id,
            SUBMIT,
        )
        return [
            Request(json.loads(biz_ids), int(batch_num), received_at, ended_at or math.inf)
            for biz_ids, batch_num, received_at, ended_at in rows
        ]

    def contacted(self, plan_id: int) -> int:
        """Return how many recipients were contacted, repetitions included."""
        ((count,),) = self._rows(
            "SELECT count(*) FROM tasks JOIN requests USING (seq) WHERE plan_id = ?", plan_id
        )
        return int(count)

    def executed(self, plan_id: int) -> list[tuple[str, str]]:
        """Return biz_id and phone number of each contact."""
        return self._rows(
            "SELECT biz_id, phone FROM tasks JOIN requests USING (seq) WHERE plan_id = ? ORDER BY number",
            plan_id,
        )

    def tasks_after(self, plan_id: int, number: int) -> list[tuple[int, str, int, float]]:
        """Return the contacts after one of a number: number, biz_id, task id and when each was executed."""
        return self._rows(
            "SELECT number, biz_id, task_id, executed_at FROM tasks JOIN requests USING (seq) "
            "WHERE plan_id = ? AND number > ? ORDER BY number",
            plan_id,
            number,
        )


def ledger_rows(server: Mapping[str, Any], plan_id: int) -> list[tuple[str, str]]:
    """Return biz_id and state of each recipient of a campaign's ledger."""
    return _rows(
        server, "ledger", "SELECT biz_id, state FROM lingyang_recipients WHERE plan_id = %s", plan_id
    )


def warehouse_rows(server: Mapping[str, Any], plan_id: int) -> list[tuple[str, str]]:
    """Return biz_id and status of each row."""
    return _rows(server, "warehouse", "SELECT biz_id, status FROM landed WHERE plan_id = %s", plan_id)


def _rows(
    server: Mapping[str, Any], database: str, sql: LiteralString, plan_id: int
) -> list[tuple[str, str]]:
    with connect(server, database) as db:
        try:
            return [(biz_id, text) for biz_id, text in db.execute(sql, [plan_id])]
        except psycopg.errors.UndefinedTable:
            return []  # The campaign did not come as far.
