"""A real Airflow, with every process it has in production, on this machine only."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from airflow_provider_lingyang.sandbox import SUBMIT
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowConnection
from tests.helpers.airflow_processes import AirflowProcesses, own_database
from tests.versions import AIRFLOW_PYTHON, STARTED_AIRFLOW

T = TypeVar("T")
HERE = Path(__file__).parent
BATCHES = {1: 50, 2: 50, 3: 50, 4: 50, 10: 16, 11: 32}
"""Plan → how many ``batch_num`` its campaign has. Each is two requests: one is intended while another is in flight."""
ROWS = 4
"""People of one ``batch_num``."""
LOOKUP_SETTLE = 1.0
ANSWER_DELAY = 0.2
"""Seconds from a request's execution to its answer."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    airflow = getattr(item, "funcargs", {}).get("airflow")
    if report.failed and airflow is not None:
        report.sections += airflow.logs()
    return report


class Campaign:
    """A DAG run of ``campaign``, and what the gateway saw of it.

    :param gateway: a sandbox, and the name of the connection that leads to it; no other campaign uses it meanwhile.
    """

    def __init__(
        self, airflow: AirflowProcesses, sandbox: SandboxProcess, gateway: str, plan_id: int
    ) -> None:
        self.airflow = airflow
        self.sandbox = sandbox
        self.audience = {biz_id for biz_id, _, _ in people(plan_id)}
        self.requests = BATCHES[plan_id] * 2
        self.run_id = f"plan_{plan_id}"
        self.path = f"/api/v2/dags/campaign/dagRuns/{self.run_id}"
        sandbox.clear_faults()
        sandbox.reset()
        sandbox.add_fault(kind="slow", seconds=ANSWER_DELAY, times=None)
        conf = {"plan_id": plan_id, "gateway": gateway}
        body = {"dag_run_id": self.run_id, "logical_date": None, "conf": conf}
        airflow.api("POST", "/api/v2/dags/campaign/dagRuns", body)
        self._known: set[str] = set()

    def task(self) -> dict[str, Any]:
        """The task instance as the API shows it."""
        found: dict[str, Any] = self.airflow.api("GET", f"{self.path}/taskInstances/submit")
        return found

    def next_try(self, patience: float = 40) -> TaskProcess:
        """Return the process of a try that was not returned before, as soon as it is there."""

        def started() -> TaskProcess | None:
            task = self.task()
            assert task["state"] not in ("success", "failed"), f"the task ended too soon: {task['state']}"
            pid = None if task["id"] in self._known else _pid_of(task["id"])
            return TaskProcess(pid, task["id"], task["try_number"]) if pid else None

        found = self.airflow.until(started, f"the next try of {self.run_id}", patience, every=0.05)
        self._known.add(found.ti_id)
        return found

    def totals(self) -> dict[str, int]:
        totals: dict[str, int] = self.sandbox.record(requests=False, executions=False)["totals"]
        return totals

    def wait_for_submits(self, count: int, patience: float = 40) -> None:
        what = f"request {count} of {self.run_id}"
        self.airflow.until(lambda: self.totals()["submits"] >= count, what, patience, every=0.02)

    def submits(self) -> list[dict[str, Any]]:
        """The requests that arrived."""
        return [request for request in self.sandbox.record()["requests"] if request["method"] == SUBMIT]

    def in_flight(self, at: float) -> list[dict[str, Any]]:
        """The requests that were under way at a moment (epoch seconds)."""
        return [
            request
            for request in self.submits()
            if request["received_at"] <= at <= (request["ended_at"] or float("inf"))
        ]

    def wait_for_end(self, patience: float = 60) -> str:
        """Return the state of the DAG run when it has ended."""

        def ended() -> str | None:
            state: str = self.airflow.api("GET", self.path)["state"]
            return state if state in ("success", "failed") else None

        return self.airflow.until(ended, f"the end of {self.run_id}", patience) or ""

    def tries(self) -> int:
        tries: int = self.task()["try_number"]
        return tries

    def manifest(self) -> dict[str, Any]:
        entry = self.airflow.api("GET", f"{self.path}/taskInstances/submit/xcomEntries/manifest")
        value = entry["value"]
        manifest: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
        counts = manifest["counts"]
        parts = ("accepted", "already_accepted", "rejected", "invalid", "not_sent", "in_doubt")
        assert counts["audience"] == sum(counts[part] for part in parts) == len(self.audience)
        assert min(counts.values()) >= 0
        return manifest

    def clear(self, settle: Mapping[str, str]) -> None:
        """Say what became of the requests in doubt, and clear the task."""
        key = f"{self.run_id}_settle"
        variable = {"key": key, "value": json.dumps(settle)}
        if self.airflow.has(f"/api/v2/variables/{key}"):
            self.airflow.api("PATCH", f"/api/v2/variables/{key}", variable)
        else:
            self.airflow.api("POST", "/api/v2/variables", variable)
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": ["submit"], "only_failed": False}
        self.airflow.api("POST", "/api/v2/dags/campaign/clearTaskInstances", body | {"reset_dag_runs": True})

    def log(self, try_number: int) -> str:
        """What was written about a try."""
        folder = self.airflow.home / "logs" / "dag_id=campaign" / f"run_id={self.run_id}" / "task_id=submit"
        return (folder / f"attempt={try_number}.log").read_text(errors="replace")

    def judge(self) -> Counter[str]:
        """Compare the finished campaign's manifest with what the gateway saw; return what is wrong, and how often."""
        record = self.sandbox.record()
        counts = self.manifest()["counts"]
        executed: dict[str, int] = record["executions"]["by_biz_id"]
        assert counts["accepted"] + counts["already_accepted"] == len(self.audience)
        assert set(executed) <= self.audience
        contacts = record["executions"]["by_contact"]
        return Counter(
            {
                "duplicates": sum(times - 1 for times in [*executed.values(), *contacts.values()]),
                "lost": len(self.audience - set(executed)),
                "order violations": len(record["order_violations"]),
            }
        )


class TaskProcess:
    """The process that runs ``execute``, and the one that supervises it.

    :param pid: its process id.
    :param ti_id: the try's own id.
    """

    def __init__(self, pid: int, ti_id: str, try_number: int) -> None:
        self.task = psutil.Process(pid)
        self.supervisor = psutil.Process(self.task.ppid())
        self.ti_id = ti_id
        self.try_number = try_number
        assert "LocalExecutor" in _title(self.supervisor), _title(self.supervisor)

    def gone(self) -> bool:
        """Whether the task's process has ended."""
        return _status(self.task) in (None, psutil.STATUS_ZOMBIE)

    def pause(self) -> None:
        """Stop both, so that no heartbeat tells anybody that they live."""
        for process in (self.supervisor, self.task):
            process.suspend()
        deadline = time.monotonic() + 5
        while not self.paused():
            assert time.monotonic() < deadline, "the processes do not stop"

    def paused(self) -> bool:
        """Whether both are stopped."""
        return {_status(self.supervisor), _status(self.task)} == {psutil.STATUS_STOPPED}

    def wake(self) -> None:
        """Let both go on."""
        for process in (self.supervisor, self.task):
            process.resume()

    def talks_to(self, sandbox: SandboxProcess) -> bool:
        """Whether it has a connection to a gateway: this is the process that sends."""
        port = int(sandbox.base_url.rpartition(":")[2])
        return any(
            found.raddr and found.raddr.port == port for found in self.task.net_connections(kind="tcp")
        )


def _pid_of(ti_id: str) -> int | None:
    for process in psutil.process_iter():
        if _title(process) == f"airflow worker -- {ti_id}":
            return process.pid
    return None


def _status(process: psutil.Process) -> str | None:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return None


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def people(plan_id: int) -> list[tuple[str, str, str]]:
    """The audience of a plan: ``biz_id``, phone number and ``batch_num``, in no order."""
    rows = [
        (
            f"order-{plan_id}-{batch}-{row}",
            f"1000000{(plan_id * 50 + batch - 1) * ROWS + row:04}",
            str(batch),
        )
        for row in range(ROWS)
        for batch in range(BATCHES[plan_id], 0, -1)
    ]
    return rows[1::2] + rows[::2]


@pytest.fixture(scope="package")
def gateways() -> Iterator[list[SandboxProcess]]:
    with ExitStack() as stack:
        yield [stack.enter_context(SandboxProcess("--answer-after", "0")) for _ in range(2)]


@pytest.fixture(scope="package")
def new_enough() -> None:
    if STARTED_AIRFLOW < (3, 3):
        pytest.skip("a task's own state, which outlives a killed try, is new in Airflow 3.3")


@pytest.fixture(scope="package")
def database(new_enough: None, postgres_server: AirflowConnection) -> str:
    """Airflow's own. Under this many processes SQLite is locked now and then."""
    return own_database(postgres_server)


@pytest.fixture(scope="package")
def airflow(
    database: str, gateways: list[SandboxProcess], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowProcesses]:
    """Connections ``gateway_0`` and ``gateway_1`` lead to the gateways, ``mute`` to the first, without a look-up."""
    home = tmp_path_factory.mktemp("airflow")
    with sqlite3.connect(home / "audience.db") as db:
        db.execute("CREATE TABLE audience (plan_id INTEGER, biz_id TEXT, phone_number TEXT, batch_num TEXT)")
        for plan_id in BATCHES:
            rows = [(plan_id, *person) for person in people(plan_id)]
            db.executemany("INSERT INTO audience VALUES (?, ?, ?, ?)", rows)
    db.close()
    connections: dict[str, dict[str, Any]] = {
        f"gateway_{number}": gateway.connection(timeout=LOOKUP_SETTLE, lookup_settle=LOOKUP_SETTLE)
        for number, gateway in enumerate(gateways)
    }
    connections["mute"] = gateways[0].connection(timeout=5)
    del connections["mute"]["extra"]["result_query"]
    connections["audience_db"] = {"conn_type": "sqlite", "host": str(home / "audience.db")}
    env = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}
    processes = AirflowProcesses(home, database, HERE / "dags", env, python=AIRFLOW_PYTHON)
    processes.start()
    try:
        yield processes
    finally:
        processes.stop()


@pytest.fixture
def campaigns(airflow: AirflowProcesses, gateways: list[SandboxProcess]) -> Callable[..., Campaign]:
    """Starts a campaign through a gateway of a number."""

    def start(number: int, plan_id: int, gateway: str | None = None) -> Campaign:
        return Campaign(airflow, gateways[number], gateway or f"gateway_{number}", plan_id)

    return start
