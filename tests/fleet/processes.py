"""The processes of a fleet: an Airflow with two workers of Celery, and the keeper that starts again what ended."""

from __future__ import annotations

import json
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg

from tests.helpers import sessions
from tests.helpers.airflow_processes import PATIENCE, AirflowProcesses

T = TypeVar("T")
RUN_ID = "fleet"
WORKERS = ("worker-1", "worker-2")
_PAUSE = 2.0
"""Seconds from the start of a process to the next one, at least: those without their database end at once."""


def worker(name: str, home: Path) -> list[str]:
    """Return the command of a worker, which is a node of its own."""
    return [
        *("celery", "worker", "--skip-serve-logs", "--celery-hostname", name),
        *("--concurrency", "5", "--pid", str(home / f"{name}.pid")),
    ]


class Fleet(AirflowProcesses):
    """All of Airflow's processes; one that ends is started again, as an orchestrator does.

    :param tick: is called again and again while something is waited for.
    """

    def __init__(
        self, home: Path, database: str, dags: Path, env: Mapping[str, str], tick: Callable[[], None]
    ) -> None:
        super().__init__(home, database, dags, env, dag="with_lookup")
        self.commands = {
            **AirflowProcesses.commands,
            "triggerer": ["triggerer", "--skip-serve-logs"],
            **{name: worker(name, home) for name in WORKERS},
        }
        self._tick = tick
        self._started_at: dict[str, float] = {}
        self.runs: list[str] = []
        """The DAGs that were triggered."""
        self._runs_looked_at = 0.0
        self.restarts: Counter[str] = Counter()

    def _launch(self, name: str, command: Sequence[str]) -> Any:
        self._started_at[name] = time.monotonic()
        return super()._launch(name, command)

    def _look_after(self) -> None:
        for name, process in self._running.items():
            if (
                name in self.commands
                and process.poll() is not None
                and time.monotonic() > self._started_at[name] + _PAUSE
            ):
                # What its session still holds would go on beside the next one.
                sessions.kill([process.pid])
                self.restarts[name] += 1
                self._launch(name, self.commands[name])
        self._tick()
        self._check_runs()

    def _check_runs(self) -> None:
        """Fail where a run has failed: what is waited for will never be."""
        if time.monotonic() < self._runs_looked_at + 5:
            return
        self._runs_looked_at = time.monotonic()
        for dag_id in self.runs:
            try:
                assert self.state(dag_id) != "failed", f"the run of {dag_id} failed"
            except OSError:
                pass  # A server is away.

    def until(self, happens: Callable[[], T], what: str, seconds: float = PATIENCE, every: float = 0.2) -> T:
        """Return what is true at last; where a server is away, it is not true yet."""

        def at_last() -> T | None:
            try:
                return happens()
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
            except (OSError, psycopg.OperationalError):
                pass
            return None

        found = super().until(at_last, what, seconds, every)
        assert found is not None
        return found

    def wait(self, seconds: float) -> None:
        """Let seconds pass: those for which a server is away."""
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until, f"{seconds} s")

    def session(self, name: str) -> int:
        """Return the process id of what runs under a name: its session."""
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """End a process and all that it started, at once."""
        assert sessions.kill([self.session(name)]), f"{name} does not end"

    def trigger(self, dag_id: str) -> None:
        body = {"dag_run_id": RUN_ID, "logical_date": None}
        self.until(lambda: self.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", body), f"the run of {dag_id}")
        self.runs.append(dag_id)

    def state(self, dag_id: str) -> str:
        """Return the state of the run."""
        found: str = self.api("GET", f"/api/v2/dags/{dag_id}/dagRuns/{RUN_ID}")["state"]
        return found

    def instances(self, dag_id: str, task_id: str = "") -> list[dict[str, Any]]:
        """Return the task instances of the run, or those of one task."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{RUN_ID}/taskInstances?limit=100"
        found: list[dict[str, Any]] = self.api("GET", path)["task_instances"]
        return [each for each in found if task_id in ("", each["task_id"])]

    def manifests(self, dag_id: str) -> list[dict[str, Any]]:
        """Return what the submit tasks of the run say of themselves, as far as they have ended."""
        found = []
        for each in self.instances(dag_id, "submit"):
            path = f"/api/v2/dags/{dag_id}/dagRuns/{RUN_ID}/taskInstances/submit/xcomEntries/manifest"
            path += f"?map_index={each['map_index']}"
            if self.has(path):
                value = self.api("GET", path)["value"]
                found.append(json.loads(value) if isinstance(value, str) else value)
        return found

    def running_on(self, name: str, dag_id: str) -> list[int]:
        """Return the shards of a campaign whose submit task runs on a worker."""
        titles = {_title(pid) for pid in sessions.members([self.session(name)])}
        return [
            each["map_index"]
            for each in self.instances(dag_id, "submit")
            if each["state"] == "running" and f"airflow worker -- {each['id']}" in titles
        ]


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline()).strip()
    except psutil.Error:
        return ""
