"""A ledger that is away for seconds in the middle of a campaign. The gateway's record is the judge."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import Any

import pytest

from airflow_provider_lingyang.ledger.sql import SqlLedger
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from airflow_provider_lingyang.storage.database import Database
from tests.conftest import AirflowConnection, Run
from tests.helpers.campaigns import Campaign, all_reached_once, connect, recipients, sent
from tests.helpers.servers import Postgres
from tests.helpers.task_state import TaskStateStore
from tests.versions import needs_task_state, postgres_hook


@pytest.fixture
def gateway(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> SandboxProcess:
    """A gateway without a look-up: what the ledger does not know stays in doubt."""
    connect(sandbox, monkeypatch, result_query=None)
    return sandbox


def watch(monkeypatch: pytest.MonkeyPatch, method: str, when: Any) -> None:
    """Call ``when`` with the number of the call and the method's work, in place of a method of the SQL ledger."""
    original, calls = getattr(SqlLedger, method), 0

    def watched(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        return when(calls, lambda: original(*args))

    monkeypatch.setattr(SqlLedger, method, watched)


@pytest.mark.real_time  # the server's
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg3"])
@pytest.mark.parametrize("method", ["claim", "write", "finish"])
def test_continues_when_the_database_server_is_back(
    gateway: SandboxProcess,
    run: Run,
    stoppable_postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
    method: str,
) -> None:
    postgres_hook(driver, monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(stoppable_postgres.connection))
    failed: list[BaseException] = []

    def away(call: int, work: Any) -> Any:
        if call == (4 if method == "write" else 1) and not failed:
            stoppable_postgres.stop()
            try:
                return work()
            except Exception as error:
                failed.append(error)
                threading.Thread(target=stoppable_postgres.start).start()
                raise
        return work()

    watch(monkeypatch, method, away)
    campaign = Campaign(run, {"ledger_conn_id": "ledger"}, None)
    campaign.next_try(audience=recipients(6, 4, 10), max_in_flight=2)
    assert failed
    assert campaign.run.counts() == {"audience": 20, "accepted": 20}
    assert all_reached_once(gateway, 20)
    assert gateway.record()["order_violations"] == []
    # The ledger knows it all, although nothing could be looked up.
    campaign.clear()
    campaign.next_try(audience=recipients(6, 4, 10))
    assert campaign.run.counts() == {"audience": 20, "already_accepted": 20}


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("commit", range(3, 12))
def test_continues_after_a_commit_with_a_lost_answer(
    gateway: SandboxProcess,
    run: Run,
    postgres_server: AirflowConnection,
    monkeypatch: pytest.MonkeyPatch,
    stays: bool,
    commit: int,
) -> None:
    """The server ends the connection before or after the commit of any transaction."""
    hook = postgres_hook("psycopg2", monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(postgres_server))
    commits, broken = 0, []

    class Connection:
        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def commit(self) -> None:
            nonlocal commits
            commits += 1
            if commits != commit:
                self._connection.commit()
                return
            broken.append(commit)
            if stays:
                self._connection.commit()
            with closing(hook("ledger").get_conn()) as other, closing(other.cursor()) as cursor:
                pid = self._connection.info.backend_pid
                cursor.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
            self._connection.cursor().execute("SELECT 1")

    get_conn = hook.get_conn

    def wrapped(self: Any) -> Any:
        return get_conn(self) if broken else Connection(get_conn(self))

    init = Database.__init__

    def made(self: Database, db_hook: Any, *args: Any, **how: Any) -> None:
        monkeypatch.setattr(db_hook, "get_conn", lambda: wrapped(db_hook))
        monkeypatch.setattr(db_hook, "set_autocommit", lambda connection, value: None)
        init(self, db_hook, *args, **how)

    monkeypatch.setattr(Database, "__init__", made)
    key = {"campaign_key": f"lost-{stays}-{commit}", "ledger_conn_id": "ledger"}
    campaign = Campaign(run, key, None)
    campaign.next_try(audience=recipients(4, 4))
    assert broken
    assert campaign.run.counts() == {"audience": 8, "accepted": 8}
    assert sent(gateway) == [["B1", "B2"], ["B3", "B4"], ["B5", "B6"], ["B7", "B8"]]
    campaign.clear()
    campaign.next_try(audience=recipients(4, 4))
    assert campaign.run.counts() == {"audience": 8, "already_accepted": 8}
    assert all_reached_once(gateway, 8)


@needs_task_state
@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("first", range(6))
def test_continues_when_the_api_server_is_back(
    gateway: SandboxProcess, run: Run, first: int, stays: bool
) -> None:
    calls, failed = 0, []

    class Store(TaskStateStore):
        def set(self, key: str, value: Any, *, retention: Any) -> None:
            nonlocal calls
            calls += 1
            if first <= calls - 1 < first + 3:
                failed.append(key)
                if stays:
                    super().set(key, value, retention=retention)
                raise OSError("timed out")
            super().set(key, value, retention=retention)

    campaign = Campaign(run, {}, Store())
    campaign.next_try(audience=recipients(4, 4))
    assert len(failed) == 3
    assert campaign.run.counts() == {"audience": 8, "accepted": 8}
    assert sent(gateway) == [["B1", "B2"], ["B3", "B4"], ["B5", "B6"], ["B7", "B8"]]
    campaign.clear()
    campaign.next_try(audience=recipients(4, 4))
    assert campaign.run.counts() == {"audience": 8, "already_accepted": 8}
    assert all_reached_once(gateway, 8)


@needs_task_state
def test_reports_outcomes_missing_from_the_ledger(
    gateway: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__LEDGER_PATIENCE", "1")
    store = TaskStateStore()
    store.fails = lambda key: "/w" in key and len(sent(gateway)) > 2
    campaign = Campaign(run, {}, store)
    message = campaign.next_try("stops", audience=recipients(20))
    accepted = campaign.run.counts()["accepted"]
    lacks = campaign.run.manifest()["ledger_lacks"]["accepted"]
    assert f"accepted {accepted}" in message
    assert f"The ledger does not know of {lacks} accepted" in message
    assert campaign.run.counts() == {"audience": 20, "accepted": accepted, "not_sent": 20 - accepted}
    store.fails = lambda key: False
    message = campaign.next_try("fails", audience=recipients(20))
    assert campaign.run.counts()["in_doubt"] >= lacks
    assert len(sent(gateway)) == accepted // 2
