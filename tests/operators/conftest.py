"""Ledgers for runs without Airflow's database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.clock import SkippingClock, skip_waits
from tests.operators.people import connect
from tests.versions import needs_task_state


class StoreGone(Exception):
    """What Airflow's task state store raises is none of ours."""


class TaskStateStore:
    """As much of Airflow's as is used. One for all tries; each try has its own token."""

    values: dict[str, str]

    def __init__(self) -> None:
        self.values = {}
        self.fails: Callable[[str], bool] = lambda key: False

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        if self.fails(key):
            raise StoreGone(key)
        self.values[key] = json.dumps(value)


class Campaign:
    """Tries of one task instance that share a ledger."""

    def __init__(self, run: Any, ledger: Mapping[str, Any], store: TaskStateStore | None) -> None:
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
        """Go on after a deferral."""
        return operator.resume(self.context(), None)

    def clear(self) -> None:
        """What Airflow does to a task that a user clears: the next try follows, max_tries grows."""
        self.max_tries = self.try_number + 3


@pytest.fixture(autouse=True)
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SkippingClock | None:
    """Waits take no time, but where the gateway's clock or another thread's is waited for, too."""
    return None if "real_time" in request.keywords else skip_waits(monkeypatch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was replaced is waited for, but not for seconds."""
    monkeypatch.setattr("airflow_provider_lingyang.delivery.recovery.WRITTEN_WITHIN", 0.3)
    monkeypatch.setattr("airflow_provider_lingyang.delivery.lost_history.WRITTEN_WITHIN", 0.3)


@pytest.fixture(params=[pytest.param("task state", marks=needs_task_state), "sql"])
def campaign(
    request: pytest.FixtureRequest, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Campaign:
    # What fails in these tests stays so; test_ledger_away.py has the others.
    monkeypatch.setenv("AIRFLOW__LINGYANG__LEDGER_PATIENCE", "0")
    if request.param == "task state":
        return Campaign(run, {}, TaskStateStore())
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return Campaign(run, {"ledger_conn_id": "ledger"}, None)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a run of the campaign."""
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))

    def run(run_id: str) -> Campaign:
        run = Run()
        make = run.context
        run.context = lambda *args, **kwargs: make(*args, run_id=run_id, **kwargs)  # type: ignore[method-assign]
        return Campaign(run, {"ledger_conn_id": "ledger", "campaign_key": "spring"}, None)

    return run


@pytest.fixture
def blind(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> SandboxProcess:
    """A gateway without a look-up."""
    connect(sandbox, monkeypatch, result_query=None)
    return sandbox


@pytest.fixture
def seeing(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> SandboxProcess:
    """A gateway with a look-up."""
    connect(sandbox, monkeypatch)
    return sandbox
