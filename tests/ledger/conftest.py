"""Ledgers of every kind, on real databases."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.__main__ import main
from airflow_provider_lingyang.ledger.base import Header, Intent, Ledger
from airflow_provider_lingyang.ledger.sql import SqlLedger
from airflow_provider_lingyang.ledger.task_state import TaskStateLedger
from airflow_provider_lingyang.ledger.task_try import TaskTry
from tests.versions import postgres_hook


def no_wait(seconds: float) -> None:
    """Do not wait."""


def unexpected_wait(seconds: float) -> None:
    """Fail: nothing is to be waited for."""
    raise AssertionError(f"waits {seconds} s")


def is_held_up(thread: threading.Thread) -> bool:
    """Whether a thread that has been started waits for a lock. On a slow machine it may not have come so far."""
    thread.join(0.5)
    return thread.is_alive()


TABLES = ("worker", "campaign", "request", "recipient", "row")


def task_try(**changes: Any) -> TaskTry:
    values = {"dag_id": "dag", "run_id": "run", "task_id": "submit", "map_index": -1, "try_number": 1}
    return TaskTry(**values | {"max_tries": 0} | changes)


class Ledgers:
    """Makes ledgers that share one memory, and tells what they remember."""

    def __init__(self, make: Callable[[TaskTry, str], Ledger]) -> None:
        self._make = make
        self._made: list[Ledger] = []

    def new(self, *, campaign_key: str = "campaign", **changes: Any) -> Any:
        """A ledger of a task instance's try, before its first call."""
        self._made.append(self._make(task_try(**changes), campaign_key))
        return self._made[-1]

    def start(
        self,
        *,
        plan_id: int = 1,
        resubmit: bool = False,
        app_secret: str = "secret",
        header: Header | None = None,
        **changes: Any,
    ) -> Any:
        """A try that has claimed and opened its campaign and knows what was before."""
        ledger = self.new(**changes)
        ledger.claim()
        ledger.open(header or self.header(plan_id=plan_id, app_secret=app_secret), resubmit=resubmit)
        list(ledger.history())
        return ledger

    def next_try(self, **changes: Any) -> Any:
        return self.start(try_number=2, **changes)

    @staticmethod
    def header(**changes: Any) -> Header:
        values = {"host": "https://gateway.test", "app_key": "app", "app_secret": "secret", "plan_id": 1}
        return Header.of(**values | changes)

    @staticmethod
    def intent(code: str, biz_ids: Iterable[str], *, again: bool = False, written_at: float = 1.5) -> Intent:
        return Intent(code, "7", list(biz_ids), code * 2, written_at, again)

    def states(self, ledger: Ledger, biz_ids: Iterable[str]) -> str:
        """One letter each: accepted, rejected, not executed, in doubt or - for unknown; read as the spool reads it."""
        found: dict[bytes, str] = {}
        for request in ledger.history():
            found |= dict.fromkeys(request.accepted, "a") | dict.fromkeys(request.rejected, "r")
            found |= dict.fromkeys(request.not_executed, "n") | {
                recipient_hash(biz_id): "d" for biz_id in request.in_doubt
            }
        return "".join(found.get(recipient_hash(biz_id), "-") for biz_id in biz_ids)

    def close(self) -> None:
        for ledger in self._made:
            ledger.close()


class Store:
    """Airflow's task state store in small: JSON in, JSON out, and fenced on demand."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.fail_after: int | None = None
        self.sets = 0
        self.largest = 0

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise RuntimeError("409: this try was replaced")
            self.fail_after -= 1
        assert retention == "never"
        self.values[key] = json.dumps(value)
        self.sets += 1
        self.largest = max(self.largest, len(self.values[key]))
        assert self.largest <= 65_535

    def segments(self) -> list[str]:
        return sorted(key for key in self.values if "/w" in key)


class SqlLedgers(Ledgers):
    """Ledgers in one database, and the ways to look into it and to break it."""

    def __init__(self, hook: Callable[[], Any], path: Path | None) -> None:
        super().__init__(lambda task_try, campaign_key: SqlLedger(hook(), "ledger", campaign_key, task_try))
        self.hook = hook
        self.conn_type: str = hook().conn_type
        self.path = path
        self.drop_tables()

    def drop_tables(self) -> None:
        self.drop_views()
        for table in (*TABLES, "schema", "request_2", "recipient_2", "shard", "pace"):
            self.sql(f"DROP TABLE IF EXISTS lingyang_ledger_{table}")

    def drop_views(self) -> None:
        for view in ("lingyang_recipients", "lingyang_campaigns"):
            self.sql(f"DROP VIEW IF EXISTS {view}")

    def sql(self, statement: str) -> list[Any]:
        with closing(self.hook().get_conn()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement)
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
        return rows

    def everything(self) -> list[Any]:
        """Every value of every table."""
        rows = [row for table in TABLES for row in self.sql(f"SELECT * FROM lingyang_ledger_{table}")]
        return [value for row in rows for value in row]

    def interrupt(self) -> Callable[[], None]:
        """Break the connections of all ledgers, and return what mends the database."""
        if self.path is not None:
            content = self.path.read_bytes()
            self.path.write_bytes(b"no database" * 1000)

            def mend(path: Path = self.path) -> None:
                path.write_bytes(content)

            return mend
        if self.conn_type == "postgres":
            self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        else:
            rows = (
                "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND user = 'root'"
            )
            for (number,) in self.sql(rows):
                self.sql(f"KILL {number}")
        return lambda: None


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def task_state_ledgers(store: Store) -> Ledgers:
    return Ledgers(lambda task_try, _: TaskStateLedger(store, task_try, "never"))


SQL = ["sqlite", "psycopg2", "psycopg3", "mariadb"]


@pytest.fixture
def make_sql(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterable[Callable[[str], SqlLedgers]]:
    made: list[SqlLedgers] = []

    def make(kind: str) -> SqlLedgers:
        path = None
        if kind == "sqlite":
            from airflow.providers.sqlite.hooks.sqlite import SqliteHook as Hook

            path = tmp_path / "ledger.db"
            connection = {"conn_type": "sqlite", "host": str(path)}
        elif kind == "mariadb":
            Hook = pytest.importorskip("airflow.providers.mysql.hooks.mysql").MySqlHook  # noqa: N806
            pytest.importorskip("mysql.connector")
            connection = request.getfixturevalue("mariadb_server")
        else:
            Hook = postgres_hook(kind, monkeypatch)  # noqa: N806
            connection = request.getfixturevalue("postgres_server")
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))
        made.append(SqlLedgers(lambda: Hook("ledger"), path))
        return made[-1]

    yield make
    for ledgers in made:
        ledgers.close()
        if ledgers.path is None:  # the server is shared with other tests, and some of these break its tables
            with suppress(Exception):  # where the test has led the connection away, it made none
                ledgers.drop_tables()


@pytest.fixture(params=SQL)
def database(request: pytest.FixtureRequest, make_sql: Callable[[str], SqlLedgers]) -> SqlLedgers:
    return make_sql(request.param)


@pytest.fixture(params=[*SQL, "task_state"])
def ledgers(request: pytest.FixtureRequest, make_sql: Callable[[str], SqlLedgers]) -> Ledgers:
    if request.param == "task_state":
        found: Ledgers = request.getfixturevalue("task_state_ledgers")
        return found
    return make_sql(request.param)


class Command:
    """Runs the ledger's command line in this process, on the connection ``ledger``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, name: str, *args: str, conn_id: str = "ledger") -> tuple[int, str, str]:
        """The exit code, what is printed, and what is said beside it."""
        self._capsys.readouterr()  # what Airflow logged before
        code = main([name, "--conn-id", conn_id, *args])
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    def json(self, name: str, *args: str, code: int = 0) -> Any:
        """What it prints as JSON."""
        ended, printed, said = self(name, *args, "--output", "json")
        assert ended == code, said
        return json.loads(printed)

    def fails(self, name: str, *args: str, code: int = 1) -> str:
        """What it says that prints nothing."""
        ended, printed, said = self(name, *args)
        assert (ended, printed) == (code, "")
        return said


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    # What it sets for its own process ends with the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    return Command(capsys)
