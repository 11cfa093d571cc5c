"""Ledgers for runs without Airflow's database."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.campaigns import Campaign, connect
from tests.helpers.clock import SkippingClock, skip_waits
from tests.helpers.task_state import TaskStateStore
from tests.versions import needs_task_state


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
    request: pytest.FixtureRequest, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Campaign:
    # What fails in these tests stays so; test_ledger_away.py has the others.
    monkeypatch.setenv("AIRFLOW__LINGYANG__LEDGER_PATIENCE", "0")
    if request.param == "task state":
        return Campaign(run, {}, TaskStateStore())
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return Campaign(run, {"ledger_conn_id": "ledger"}, None)


@pytest.fixture
def instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mapping[int, Campaign]]:
    """Makes the instances of a mapped task in a DAG run, by their map_index."""
    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(ledger))

    class Instances(defaultdict[int, Campaign]):
        def __init__(self, run_id: str = "run", **arguments: Any) -> None:
            self.run_id = run_id
            self.arguments = {"ledger_conn_id": "ledger"} | arguments

        def __missing__(self, map_index: int) -> Campaign:
            run = Run()
            make = run.context

            def context(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
                made = make(*args, run_id=self.run_id, **kwargs)
                made["ti"].map_index = map_index
                return made

            run.context = context  # type: ignore[method-assign]
            self[map_index] = Campaign(run, self.arguments, None)
            return self[map_index]

    return Instances


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Campaign]:
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
def without_lookup(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> SandboxProcess:
    """A gateway without a look-up."""
    connect(sandbox, monkeypatch, result_query=None)
    return sandbox


@pytest.fixture
def with_lookup(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> SandboxProcess:
    """A gateway with a look-up."""
    connect(sandbox, monkeypatch)
    return sandbox
