"""A real Airflow, with every process it has in production, on this machine only."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg
import pytest
from cryptography.fernet import Fernet

from airflow_provider_lingyang.sandbox import SUBMIT
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowConnection
from tests.versions import AIRFLOW_PYTHON, STARTED_AIRFLOW

T = TypeVar("T")
HERE = Path(__file__).parent
BATCHES = {1: 50, 2: 50, 3: 50, 4: 50, 10: 16, 11: 32}
"""Plan → how many ``batch_num`` its campaign has. Each is two requests: one is intended while another is in flight."""
ROWS = 4
"""People of one ``batch_num``."""
HEARTBEAT_TIMEOUT = 6
"""Seconds without a heartbeat after which the scheduler gives a task up; 300 by default."""
LOOKUP_SETTLE = 1.0
PATIENCE = 300
"""Seconds for each process of Airflow to be there: in a new environment on a busy machine it compiles for minutes."""
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


class AirflowProcesses:
    """Scheduler with LocalExecutor, API server and DAG processor, and a client of their API.

    :param home: an empty folder.
    :param database: SQLAlchemy's URL.
    :param env: more of their environment.
    :param dag: the one that is waited for at the start.
    :param standalone: whether `airflow standalone` starts all of them, a triggerer, too.
    """

    def __init__(
        self,
        home: Path,
        database: str,
        env: Mapping[str, str],
        *,
        dag: str = "campaign",
        standalone: bool = False,
    ) -> None:
        self.home = home
        self.dag = dag
        self.standalone = standalone
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(48),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "0.5",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "1",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # On a busy machine the API server answers late; a task that cannot begin would be another failure.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            # `airflow standalone` looks for the others there.
            "PATH": os.pathsep.join([str(Path(AIRFLOW_PYTHON).parent), os.environ["PATH"]]),
            **env,
        }
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self._airflow_processes = subprocess.Popen(
            [sys.executable, str(HERE / "airflow_processes.py")],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            if self.standalone:
                self._launch("standalone")
            else:
                migrate = self._launch("db", "migrate")
                assert migrate.wait(PATIENCE) == 0, self._tail("db")
                del self._running["db"]
                self._launch("api-server")
                self._launch("dag-processor")
                self._launch("scheduler", "--skip-serve-logs")
            self.until(lambda: self.has("/api/v2/monitor/health"), "the API server", PATIENCE)
            self._token = self.api("GET", "/auth/token")["access_token"]
            self.until(lambda: self.has(f"/api/v2/dags/{self.dag}"), "the DAG", PATIENCE)
            self.until(
                lambda: self.api("GET", "/api/v2/monitor/health")["scheduler"]["status"] == "healthy",
                "the scheduler",
                PATIENCE,
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        assert self._airflow_processes.stdin is not None
        self._airflow_processes.stdin.close()
        left = self._airflow_processes.wait(30)
        for process in self._running.values():
            process.wait(10)
        assert not left, "processes of Airflow are left over"

    def start_triggerer(self) -> None:
        """Start the triggerer; only few tests need it."""
        self._launch("triggerer", "--skip-serve-logs")

    def kill_triggerer(self) -> None:
        """End the triggerer and the process that runs its triggers (SIGKILL), as a crash of the machine would."""
        process = self._running.pop("triggerer", None)
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def _launch(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.txt").open("ab") as output:
            process = subprocess.Popen(
                [AIRFLOW_PYTHON, "-m", "airflow", name, *args],
                env=self.env,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.end_with_tests(process.pid)
        self._running[name] = process
        return process

    def end_with_tests(self, session: int) -> None:
        """Let a session of processes end when Airflow is stopped, or the tests are, however they end."""
        assert self._airflow_processes.stdin is not None
        self._airflow_processes.stdin.write(b"%d\n" % session)
        self._airflow_processes.stdin.flush()

    def until(self, happens: Callable[[], T], what: str, seconds: float, every: float = 0.1) -> T:
        """Return what is true at last."""
        # A busy machine may be ten times slower: minutes, whatever a caller finds enough.
        seconds = max(seconds, PATIENCE)
        deadline = time.monotonic() + seconds
        while not (found := happens()):
            for name, process in self._running.items():
                assert process.poll() is None, f"airflow {name} ended by itself: {self._tail(name)}"
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(every)
        return found

    def api(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
            method=method,
        )
        with self._opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def has(self, path: str) -> bool:
        """Whether the API answers, and knows this."""
        try:
            self.api("GET", path)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def output(self, name: str) -> str:
        """Everything that a process wrote, and those before it of the same name."""
        return (self.home / f"{name}.txt").read_text(errors="replace")

    def _tail(self, name: str, size: int = 8000) -> str:
        return self.output(name)[-size:]

    def logs(self) -> list[tuple[str, str]]:
        """Title and end of every log."""
        tasks = sorted((self.home / "logs").rglob("attempt=*.log"), key=lambda path: path.stat().st_mtime)
        return [(f"airflow {name}", self._tail(name)) for name in self._running] + [
            (str(path.relative_to(self.home)), path.read_text(errors="replace")[-3000:])
            for path in tasks[-6:]
        ]


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


def own_database(server: Mapping[str, Any]) -> str:
    """Make a database for Airflow, and return its URL."""
    where = f"{server['login']}@{server['host']}:{server['port']}"
    with psycopg.connect(f"postgresql://{where}/{server['schema']}", autocommit=True) as connection:
        connection.execute("CREATE DATABASE airflow")
    return f"postgresql+psycopg2://{where}/airflow"


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
    processes = AirflowProcesses(home, database, env)
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
