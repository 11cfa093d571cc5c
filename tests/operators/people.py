"""Who campaigns are sent to in these tests, and what the gateway's record says became of them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_lingyang.sandbox.process import SandboxProcess

LOST = {"kind": "reset_after"}
NOT_DONE = {"kind": "reset_before"}


def row(number: int, batch_num: str | None = None, **changes: Any) -> dict[str, Any]:
    batch = {} if batch_num is None else {"batch_num": batch_num}
    base = {
        "biz_id": f"B{number}",
        "phone_number": f"1000000{number:04}",
        "input_params": {},
        "output_params": {},
    }
    return base | batch | changes


def people(*batches: int) -> list[dict[str, Any]]:
    """So many people in batch 1, 2 …"""
    numbers = [str(batch) for batch, count in enumerate(batches, 1) for _ in range(count)]
    return [row(number, batch_num) for number, batch_num in enumerate(numbers, 1)]


def connect(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    timeout = extra.pop("timeout", 5)
    options = {"timeout": timeout, "lookup_settle": timeout, "max_attempts": 2} | extra
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(sandbox.connection(**options)))


def executions(sandbox: SandboxProcess) -> dict[str, int]:
    found: dict[str, int] = sandbox.record()["executions"]["by_biz_id"]
    return found


def everybody_once(sandbox: SandboxProcess, count: int) -> bool:
    return executions(sandbox) == {f"B{number}": 1 for number in range(1, count + 1)}


def sent(sandbox: SandboxProcess) -> list[list[str]]:
    return [r["biz_ids"] for r in sandbox.record()["requests"] if r["method"].endswith("batch.task")]


def empty(campaign: Any) -> None:
    if campaign.store is not None:
        campaign.store.values.clear()
        return
    with closing(sqlite3.connect(BaseHook.get_connection("ledger").host)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f"DELETE FROM {table}")
        db.commit()
