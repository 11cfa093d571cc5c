"""Campaigns to test with: their recipients, their tries, and what the gateway's record says became of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_lingyang.gateway.rate_limiter import forget_limiters
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.task_state import TaskStateStore

LOST = {"kind": "reset_after"}
NOT_DONE = {"kind": "reset_before"}


def bare_row(number: int) -> dict[str, Any]:
    """A recipient whose slots the campaign names."""
    return {"biz_id": f"B{number}", "phone_number": f"1000000{number:04}", "input_params": {}}


def row(number: int = 1, batch_num: str | None = None, **changes: Any) -> dict[str, Any]:
    """A recipient with slots of its own, none."""
    batch = {} if batch_num is None else {"batch_num": batch_num}
    return bare_row(number) | {"output_params": {}} | batch | changes


def recipients(*batches: int) -> list[dict[str, Any]]:
    """So many recipients in batch 1, 2 …"""
    numbers = [str(batch) for batch, count in enumerate(batches, 1) for _ in range(count)]
    return [row(number, batch_num) for number, batch_num in enumerate(numbers, 1)]


def submitted(run: Run, count: int = 60, **changes: Any) -> dict[str, Any]:
    """Submit a campaign of recipients B0, B1 … with task ``submit``, and return its manifest."""
    arguments: dict[str, Any] = {"task_id": "submit", "plan_id": 1, "output_slots": ["a"]}
    audience = [bare_row(number) for number in range(count)]
    manifest: dict[str, Any] = run.execute(
        LingyangSubmitBatchOperator(**(arguments | {"audience": audience} | changes))
    )
    return manifest


def connect(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    timeout = extra.pop("timeout", 5)
    options = {"timeout": timeout, "lookup_settle": timeout, "max_attempts": 2} | extra
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(sandbox.connection(**options)))


def executions(sandbox: SandboxProcess) -> dict[str, int]:
    found: dict[str, int] = sandbox.record()["executions"]["by_biz_id"]
    return found


def all_reached_once(sandbox: SandboxProcess, count: int) -> bool:
    return executions(sandbox) == {f"B{number}": 1 for number in range(1, count + 1)}


def sent(sandbox: SandboxProcess) -> list[list[str]]:
    return [r["biz_ids"] for r in sandbox.record()["requests"] if r["method"].endswith("batch.task")]


def empty(campaign: Campaign) -> None:
    if campaign.store is not None:
        campaign.store.values.clear()
        return
    with closing(sqlite3.connect(BaseHook.get_connection("ledger").host)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f"DELETE FROM {table}")
        db.commit()


class Campaign:
    """Tries of one task instance that share a ledger."""

    def __init__(self, run: Run, ledger: Mapping[str, Any], store: TaskStateStore | None) -> None:
        self.run = run
        self._new_context = run.context
        self.ledger = ledger
        self.store = store
        self.try_number = 0
        self.max_tries = 3

    def operator(self, **arguments: Any) -> LingyangSubmitBatchOperator:
        base: dict[str, Any] = {"task_id": "submit", "plan_id": 123, "batch_size": 2}
        return LingyangSubmitBatchOperator(**(base | dict(self.ledger) | arguments))

    def context(self) -> Mapping[str, Any]:
        context = dict(self._new_context("submit", try_number=self.try_number))
        context["ti"].max_tries = self.max_tries
        if self.store is not None:
            context["task_state_store"] = self.store
        return context

    def next_try(self, how: str = "execute", *, operator: Any = None, **arguments: Any) -> Any:
        """Let the next try end as ``how`` says: execute (well), fails, stops (a retry helps) or waits (deferred)."""
        self.try_number += 1
        return self.again(how, operator=operator, **arguments)

    def again(self, how: str, *, operator: Any = None, **arguments: Any) -> Any:
        context = self.context()
        self.run.context = lambda *_, **__: context
        return getattr(self.run, how)(operator or self.operator(**arguments))

    def resume(self, operator: Any) -> Any:
        """Go on after a deferral: in another process, once a ban is over."""
        forget_limiters()
        if self.store is None:
            with closing(sqlite3.connect(BaseHook.get_connection("ledger").host)) as db:
                db.execute("UPDATE lingyang_ledger_pace SET banned_until = 0, submits_banned_until = 0")
                db.commit()
        return operator.resume(self.context(), None)

    def clear(self) -> None:
        """What Airflow does to a task that a user clears: the next try follows, max_tries grows."""
        self.max_tries = self.try_number + 3
