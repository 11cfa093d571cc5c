"""What every test may use. Airflow reads its environment once, so it is set before anything imports it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest

AIRFLOW_HOME = tempfile.mkdtemp(prefix="lingyang-tests-")
atexit.register(shutil.rmtree, AIRFLOW_HOME, ignore_errors=True)
# With the last, every process of Airflow that a test starts would compile everything anew.
unwanted = ("AIRFLOW_", "http_proxy", "https_proxy", "PYTHONDONTWRITEBYTECODE")
for name in [name for name in os.environ if name.startswith(unwanted)]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": AIRFLOW_HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "NO_PROXY": "127.0.0.1,localhost",
}

from airflow_provider_lingyang.gateway.rate_limiter import forget_limiters  # noqa: E402  # after the environment
from airflow_provider_lingyang.sandbox.process import SandboxProcess  # noqa: E402
from tests.helpers.servers import Postgres, ServerMissingError, mariadb  # noqa: E402
from tests.versions import AIRFLOW, AIRFLOW_PYTHON, AIRFLOWS_OWN_WARNINGS, XCOMS  # noqa: E402

SUMMARY = pytest.StashKey[list[str]]()
AirflowConnection = dict[str, object]
"""The fields of one, as its JSON has them."""


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUMMARY] = []
    for message in AIRFLOWS_OWN_WARNINGS.get(AIRFLOW, []):
        config.addinivalue_line("filterwarnings", f"ignore:{message}")


HEAVY = ("tests/browser/", "tests/real/", "tests/chaos/")
"""They need a whole machine, and measure it."""
LONG = ("tests/model/test_model.py", "tests/test_examples.py", "tests/gateway/test_transport.py")
"""The longest files: they begin first, so that no process waits for another one in the end."""
SLOW_FILE = "tests/test_examples.py"
"""Its tests share nothing; each of them starts an Airflow."""
PROOF_FOLDERS = ("tests/browser/", "tests/chaos/", "tests/real/", "tests/sdks/")
PROOF_FIXTURES = {"airflow_cli", "postgres_server", "mariadb_server", "stoppable_postgres"}
PROOF_PARAMETERS = {"psycopg2", "psycopg3", "mariadb"}


def needs_proof(item: pytest.Item) -> bool:
    """Whether a test needs more than Python: a process of Airflow, a server, a browser, another environment."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return (
        item.nodeid.startswith(PROOF_FOLDERS)
        or not PROOF_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        or any(isinstance(value, str) and value in PROOF_PARAMETERS for value in parameters)
    )


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if needs_proof(item):
            item.add_marker("proof")
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """What is heavy comes last, when no other process of the tests has anything left to do."""
    if item.nodeid.startswith(LONG):
        return -1
    return next((n for n, folder in enumerate(HEAVY, 1) if item.nodeid.startswith(folder)), 0)


def only_in_proof(request: pytest.FixtureRequest) -> None:
    """Fail a test of `make test` that needs what only `make proof` may need."""
    if request.config.option.markexpr == "not proof":
        pytest.fail("this test belongs to make proof: tests/conftest.py does not see it, so mark it proof")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes share the work: file by file, but for one; and what is heavy all in one of them."""
    from xdist.scheduler import LoadScopeScheduling

    class FileByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(HEAVY):
                return "heavy"
            return nodeid if nodeid.startswith(SLOW_FILE) else nodeid.partition("::")[0]

    return FileByFile(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    def end(number: int, frame: Any) -> None:
        # After this test at the latest: Python swallows what is raised while it collects garbage.
        session.shouldstop = "told to end"
        signal.default_int_handler(number, frame)

    # So that the servers which were started are stopped, as after an interrupt.
    signal.signal(signal.SIGTERM, end)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["summary"] = session.config.stash[SUMMARY]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[SUMMARY] += getattr(node, "workeroutput", {}).get("summary", [])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in config.stash[SUMMARY]:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def no_earlier_bans() -> None:
    """Limiters are the process's, so a ban that one test has met would hold the next ones back."""
    forget_limiters()


@pytest.fixture(scope="session")
def summary(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes a line that is shown at the end of the test run, passed or failed."""
    return pytestconfig.stash[SUMMARY].append


@pytest.fixture
def sandbox(lingyang_sandbox: SandboxProcess, lingyang_connection: Callable[..., object]) -> SandboxProcess:
    """A gateway without a past, and the connection ``lingyang_default`` that leads to it: what users' tests have."""
    lingyang_connection(timeout=15)
    return lingyang_sandbox


class FillDb(Protocol):
    """Fills a table of a database."""

    def __call__(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, table: str = "audience"
    ) -> None: ...


@pytest.fixture
def audience_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FillDb:
    """Fills table ``audience``, or another one, of the connection ``audience_db``."""
    path = tmp_path / "audience.db"
    monkeypatch.setenv("AIRFLOW_CONN_AUDIENCE_DB", json.dumps({"conn_type": "sqlite", "host": str(path)}))

    def fill(columns: Sequence[str], rows: Sequence[Sequence[object]], *, table: str = "audience") -> None:
        with sqlite3.connect(path) as db:
            db.execute(f"DROP TABLE IF EXISTS {table}")
            db.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)
        db.close()

    return fill


class TaskInstance:
    """The part of a task instance that operators use, for runs without Airflow's database."""

    map_index = -1
    max_tries = 0
    first_poll: Any = None

    def __init__(
        self, task_id: str, xcom: dict[tuple[str, str], Any], *, run_id: str = "run", try_number: int = 1
    ):
        self.dag_id, self.run_id, self.task_id, self.try_number = "dag", run_id, task_id, try_number
        self._xcom = xcom

    def get_first_reschedule_date(self, context: Any) -> Any:
        return self.first_poll

    def xcom_push(self, key: str, value: Any) -> None:
        self._xcom[self.task_id, key] = json.loads(json.dumps(value))


class Run:
    """One DAG run in small: hands tasks what they pushed to one another."""

    def __init__(self) -> None:
        self.xcom: dict[tuple[str, str], Any] = {}

    def context(self, task_id: str, **kwargs: Any) -> Mapping[str, Any]:
        return {"ti": TaskInstance(task_id, self.xcom, **kwargs)}

    def get_xcom(self, *, dag_id: str, run_id: str, task_id: str, map_index: int, key: str) -> Any:
        assert (dag_id, run_id, map_index) == ("dag", "run", -1)
        return self.xcom.get((task_id, key))

    def execute(self, operator: Any, **kwargs: Any) -> Any:
        if AIRFLOW < (3, 0):
            # It keeps who called execute for each thread, and fails in another than it was imported in.
            from airflow.models.baseoperator import ExecutorSafeguard

            ExecutorSafeguard._sentinel.callers = {}
        return operator.execute(self.context(operator.task_id, **kwargs))

    def fails(self, operator: Any, **kwargs: Any) -> str:
        """Execute it and return the message of the final failure that it must end with."""
        from airflow.providers.common.compat.sdk import AirflowFailException

        with pytest.raises(AirflowFailException) as caught:
            self.execute(operator, **kwargs)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        return str(caught.value)

    def stops(self, operator: Any, **kwargs: Any) -> str:
        """Execute it and return the message of the failure that a retry goes on from."""
        from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

        with pytest.raises(AirflowException) as caught:
            self.execute(operator, **kwargs)
        assert not isinstance(caught.value, AirflowFailException)
        assert caught.value.__suppress_context__
        return str(caught.value)

    def waits(self, operator: Any, **kwargs: Any) -> Any:
        """Execute it and return the moment until which it is deferred."""
        from airflow.providers.common.compat.sdk import TaskDeferred

        with pytest.raises(TaskDeferred) as caught:
            self.execute(operator, **kwargs)
        assert caught.value.method_name == "resume"
        return caught.value.trigger.serialize()[1]["moment"]

    def manifest(self, task_id: str = "submit") -> dict[str, Any]:
        manifest: dict[str, Any] = self.xcom[task_id, "manifest"]
        counts = manifest["counts"]
        parts = ("accepted", "already_accepted", "rejected", "invalid", "not_sent", "in_doubt")
        assert counts["audience"] == sum(counts[part] for part in parts)
        assert min(counts.values()) >= 0
        return manifest

    def counts(self, task_id: str = "submit") -> dict[str, int]:
        """The states that hold anybody."""
        counts: dict[str, int] = self.manifest(task_id)["counts"]
        return {state: count for state, count in counts.items() if count}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    monkeypatch.setattr("airflow.providers.common.compat.sdk.XCom.get_one", run.get_xcom)
    return run


def rendered(kind: Any, arguments: Mapping[str, Any]) -> Any:
    """Return a task as it is when it runs: what its templated arguments hold came out of templates."""
    fields = [name for name in kind.template_fields if arguments.get(name) is not None]
    rows = {"audience": []} if "audience" in fields else {}
    task = kind(**{**arguments, **dict.fromkeys(fields, "{{ x }}"), **rows})
    for name in fields:
        setattr(task, name, arguments[name])
    return task


class AirflowCli:
    """The command line of a real Airflow with a home and a database of its own.

    :param home: an empty folder, or one whose ``airflow.db`` is there.
    """

    python = AIRFLOW_PYTHON

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {
            name: value for name, value in os.environ.items() if name != "AIRFLOW__CORE__UNIT_TEST_MODE"
        }
        self.env |= {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            # Airflow 3.0 draws a box around an error, and breaks its lines.
            "COLUMNS": "1000",
        }

    def __call__(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.command([self.python, "-m", "airflow", *args], self.env | env)

    def command(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run any program in the home; what it prints, errors too, is its ``stdout``."""
        return subprocess.run(
            command,
            env=env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def everything_written(self) -> str:
        """Every log and the whole database, as text."""
        parts = [
            path.read_text(errors="replace") for path in (self.home / "logs").rglob("*") if path.is_file()
        ]
        with closing(sqlite3.connect(self.home / "airflow.db")) as db:
            parts += db.iterdump()
        return "\n".join(parts)

    def xcom(self, dag_id: str, task_id: str, key: str) -> Any:
        with closing(sqlite3.connect(self.home / "airflow.db")) as db:
            found = db.execute(
                f"SELECT value FROM {XCOMS} WHERE dag_id = ? AND task_id = ? AND key = ? ORDER BY timestamp DESC",
                (dag_id, task_id, key),
            ).fetchone()
        assert found, f"{dag_id}.{task_id} pushed no {key}"
        value = json.loads(found[0])
        # Airflow 3 stores the JSON text of the JSON text.
        return json.loads(value) if isinstance(value, str) else value


@pytest.fixture(scope="session")
def empty_airflow_db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    only_in_proof(request)
    cli = AirflowCli(tmp_path_factory.mktemp("empty_airflow"))
    migrated = cli("db", "migrate")
    assert migrated.returncode == 0, migrated.stdout[-3000:]
    return cli.home / "airflow.db"


@pytest.fixture
def airflow_cli(empty_airflow_db: Path, tmp_path: Path) -> AirflowCli:
    shutil.copy(empty_airflow_db, tmp_path)
    return AirflowCli(tmp_path)


def missing(what: str) -> None:
    """Skip a test whose server is not installed; where servers are required (CI), fail it."""
    if os.environ.get("LINGYANG_REQUIRE_SERVERS"):
        pytest.fail(f"{what} is not installed, and LINGYANG_REQUIRE_SERVERS is set")
    pytest.skip(f"{what} is not installed")


def _postgres() -> Postgres:
    try:
        return Postgres()
    except ServerMissingError as error:
        missing(str(error))
        raise


@pytest.fixture
def stoppable_postgres(request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A PostgreSQL server of this test alone, which may stop it."""
    only_in_proof(request)
    with _postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[AirflowConnection]:
    """A PostgreSQL server of its own, as an Airflow connection; stopped and gone afterwards."""
    only_in_proof(request)
    with _postgres() as server:
        yield server.connection


@pytest.fixture(scope="session")
def mariadb_server(request: pytest.FixtureRequest) -> Iterator[AirflowConnection]:
    """A MariaDB server of its own with its bare defaults, as an Airflow connection; stopped and gone afterwards."""
    only_in_proof(request)
    try:
        with mariadb() as connection:
            yield connection
    except ServerMissingError as error:
        missing(str(error))
