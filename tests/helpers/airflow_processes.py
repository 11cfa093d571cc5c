"""A real Airflow, with every process it has in production, on this machine only."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from cryptography.fernet import Fernet

from tests.helpers import sessions
from tests.helpers.servers import free_port

T = TypeVar("T")
HEARTBEAT_TIMEOUT = 6
"""Seconds without a heartbeat after which the scheduler gives a task up; 300 by default."""
PATIENCE = 300
"""Seconds for each process of Airflow to be there: in a new environment on a busy machine it compiles for minutes."""


class AirflowProcesses:
    """Scheduler with LocalExecutor, API server and DAG processor, and a client of their API.

    :param home: an empty folder.
    :param database: SQLAlchemy's URL.
    :param dags: folder of the DAG files.
    :param env: more of their environment.
    :param dag: the one that is waited for at the start.
    :param standalone: whether `airflow standalone` starts all of them, a triggerer, too.
    :param python: interpreter of the environment whose Airflow it is.
    """

    commands: Mapping[str, Sequence[str]] = {
        "api-server": ["api-server"],
        "dag-processor": ["dag-processor"],
        "scheduler": ["scheduler", "--skip-serve-logs"],
    }
    """Of each process, by its name."""

    def __init__(
        self,
        home: Path,
        database: str,
        dags: Path,
        env: Mapping[str, str],
        *,
        dag: str = "campaign",
        standalone: bool = False,
        python: str = sys.executable,
    ) -> None:
        self.home = home
        self.dag = dag
        self.standalone = standalone
        self.python = python
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
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
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
            "PATH": os.pathsep.join([str(Path(python).parent), os.environ["PATH"]]),
            **env,
        }
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._token = ""
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.sessions = sessions.Sessions().__enter__()
        try:
            if self.standalone:
                self._launch("standalone", ["standalone"])
            else:
                migrate = self._launch("db", ["db", "migrate"])
                assert migrate.wait(PATIENCE) == 0, self._tail("db")
                del self._running["db"]
                for name, command in self.commands.items():
                    self._launch(name, command)
            self.until(lambda: self.has("/api/v2/monitor/health"), "the API server")
            self._token = self.api("GET", "/auth/token")["access_token"]
            self.until(lambda: self.has(f"/api/v2/dags/{self.dag}"), "the DAG")
            self.until(
                lambda: self.api("GET", "/api/v2/monitor/health")["scheduler"]["status"] == "healthy",
                "the scheduler",
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self.sessions.close()

    def start_triggerer(self) -> None:
        """Start the triggerer; only few tests need it."""
        self._launch("triggerer", ["triggerer", "--skip-serve-logs"])

    def kill_triggerer(self) -> None:
        """End the triggerer and the process that runs its triggers (SIGKILL), as a crash of the machine would."""
        process = self._running.pop("triggerer", None)
        if process is not None:
            assert sessions.kill([process.pid]), "the triggerer does not end"
            process.wait(10)

    def _launch(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        self._running[name] = process = self.sessions.start(
            [self.python, "-m", "airflow", *command],
            env=self.env,
            cwd=self.home,
            output=self.home / f"{name}.txt",
        )
        return process

    def until(self, happens: Callable[[], T], what: str, seconds: float = PATIENCE, every: float = 0.1) -> T:
        """Return what is true at last."""
        # A busy machine may be ten times slower: minutes, whatever a caller finds enough.
        seconds = max(seconds, PATIENCE)
        deadline = time.monotonic() + seconds
        while not (found := happens()):
            self._look_after()
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(every)
        return found

    def _look_after(self) -> None:
        """Fail where a process has ended."""
        for name, process in self._running.items():
            assert process.poll() is None, f"airflow {name} ended by itself: {self._tail(name)}"

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


def own_database(server: Mapping[str, Any], name: str = "airflow") -> str:
    """Make a database on a server of PostgreSQL, and return its URL for SQLAlchemy."""
    where = f"{server['login']}@{server['host']}:{server['port']}"
    with psycopg.connect(f"postgresql://{where}/{server['schema']}", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg2://{where}/{name}"
