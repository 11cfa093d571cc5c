"""A ledger and an audience behind PgBouncer in transaction mode: no two transactions need have the same server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.storage.query import stream_rows
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator
from tests.conftest import AirflowConnection, Run, missing
from tests.helpers.campaigns import connect, executions
from tests.helpers.servers import free_port
from tests.ledger.conftest import SqlLedgers
from tests.ledger.test_sql_ledger import at_once
from tests.versions import postgres_hook

POOL = 2
"""Connections to the server, for all."""
PAGE = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pgbouncer(postgres_server: AirflowConnection) -> Iterator[AirflowConnection]:
    """PgBouncer before the PostgreSQL server, as an Airflow connection; each transaction takes the next server."""
    program = shutil.which(
        "pgbouncer", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    )
    if program is None:
        missing("PgBouncer")
    assert program is not None
    # It refuses to run as root; PostgreSQL's package brings a user for it.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="lingyang-pgbouncer-"))
    port = free_port()
    (folder / "users").write_text('"lingyang" ""\n')
    # What the page recommends, on a port of its own and with a pool that is soon used up.
    (settings,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    own = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": folder / "users",
        "admin_users": "lingyang",
        "default_pool_size": POOL,
        "min_pool_size": POOL,
        "server_round_robin": 1,
    }
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={postgres_server['port']}\n{settings}"
        + "".join(f"{name} = {value}\n" for name, value in own.items())
    )
    try:
        if user:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, **user)
        # Into a file: a pipe that is not read any more would stop it.
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(
                [program, str(folder / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                **user,
            ) as process,
        ):
            try:
                until = time.monotonic() + 300
                while b"process up" not in (folder / "log").read_bytes():
                    assert process.poll() is None and time.monotonic() < until, "PgBouncer did not start"
                    time.sleep(0.05)
                yield {**postgres_server, "port": port}
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["psycopg2", "psycopg3"])
def bounced(
    request: pytest.FixtureRequest, pgbouncer: AirflowConnection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SqlLedgers]:
    Hook = postgres_hook(request.param, monkeypatch)  # noqa: N806
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(pgbouncer))
    ledgers = SqlLedgers(lambda: Hook("ledger"), None)
    yield ledgers
    ledgers.close()
    ledgers.drop_tables()


def many_writes(ledgers: SqlLedgers, map_index: int) -> None:
    """Submit forty requests as one task instance: as often as it takes to meet each server with each statement."""
    ledger = ledgers.start(map_index=map_index)
    for number in range(40):
        code, biz_ids = f"{map_index}-{number}", [f"{map_index}-{number}-{n}" for n in range(10)]
        ledger.write([], [ledgers.intent(code, biz_ids)])
        ledger.write([Outcome(code, {biz_id: n for n, biz_id in enumerate(biz_ids)})], [])
    ledger.finish()
    ledger.release()


def test_two_task_instances_at_once_write_the_ledger_through_pgbouncer(bounced: SqlLedgers) -> None:
    assert at_once([lambda: many_writes(bounced, 0), lambda: many_writes(bounced, 1)]) == [None, None]
    with closing(bounced.next_try(map_index=0)) as ledger:
        assert bounced.states(ledger, ["0-0-0", "0-39-9", "1-0-0", "1-39-9", "new"]) == "aaaa-"


def test_more_task_instances_than_servers_share_them(bounced: SqlLedgers) -> None:
    """A connection of a ledger needs a server during its transactions only."""
    ledgers = [bounced.start(map_index=number) for number in range(3 * POOL)]
    for code in ("first", "second"):
        for number, ledger in enumerate(ledgers):
            ledger.write([], [bounced.intent(f"{code}-{number}", [f"{code}-{number}"])])
    assert bounced.sql("SELECT count(*) FROM lingyang_ledger_request") == [(6 * POOL,)]


def audience(count: int) -> Iterator[Any]:
    """Read rows through a cursor of the server: several fetches in one transaction."""
    with stream_rows("ledger", f"SELECT n, repeat('x', 100) FROM generate_series(1, {count}) AS n") as (
        _,
        rows,
    ):
        yield from rows


def test_nothing_stays_prepared_on_a_server(bounced: SqlLedgers) -> None:
    """A statement that stays is in the way of the next client of that server."""
    many_writes(bounced, 0)
    list(audience(6000))
    for _ in range(2 * POOL):
        assert bounced.sql("SELECT name FROM pg_prepared_statements") == []


def test_audiences_stream_through_pgbouncer_while_a_ledger_is_written(bounced: SqlLedgers) -> None:
    ledger = bounced.start()
    rows = audience(6000)
    for number in range(30):
        assert [row[0] for row in islice(rows, 100)] == list(range(number * 100 + 1, number * 100 + 101))
        ledger.write([], [bounced.intent(f"code-{number}", [f"biz-{number}"])])
    assert [row[0] for row in rows] == list(range(3001, 6001))


def test_as_many_readings_as_servers_keep_a_ledger_waiting(
    bounced: SqlLedgers, pgbouncer: AirflowConnection
) -> None:
    """Why the page keeps audiences out of the ledger's pool."""
    ledger = bounced.start()
    readings = [audience(6000) for _ in range(POOL)]
    for rows in readings:
        next(rows)
    writing = threading.Thread(target=ledger.write, args=([], [bounced.intent("code", ["biz"])]))
    writing.start()
    until = time.monotonic() + 300
    while waiting(pgbouncer) == 0:
        assert writing.is_alive() and time.monotonic() < until
    for rows in readings:
        assert len(list(rows)) == 5999
    writing.join()
    assert bounced.sql("SELECT count(*) FROM lingyang_ledger_request") == [(1,)]


def waiting(pgbouncer: AirflowConnection) -> int:
    """How many clients wait for a server, as PgBouncer's own console says."""
    psycopg2 = pytest.importorskip("psycopg2")
    where = {
        "host": pgbouncer["host"],
        "port": pgbouncer["port"],
        "user": pgbouncer["login"],
        "dbname": "pgbouncer",
    }
    with closing(psycopg2.connect(**where)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SHOW POOLS")
            names = [column[0] for column in cursor.description]
            return sum(int(row[names.index("cl_waiting")]) for row in cursor.fetchall())


def test_pgbouncer_refuses_options_of_a_connection(
    bounced: SqlLedgers, pgbouncer: AirflowConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {**pgbouncer, "extra": {"options": "-c statement_timeout=60000"}}
    refused = pytest.raises(Exception, match="unsupported startup parameter")
    with monkeypatch.context() as patch, refused:
        patch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))
        bounced.hook().get_conn()


def test_statements_of_the_page_run(bounced: SqlLedgers) -> None:
    bounced.start()
    statements = re.findall(r"^ *(ALTER TABLE [^;`]+);$", PAGE, re.MULTILINE)
    assert len(statements) == 2
    for statement in statements:
        bounced.sql(statement)


@pytest.fixture
def most_at_once(bounced: SqlLedgers, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how many connections were open at a time, at most, since it was last called."""
    hook = type(bounced.hook())
    get_conn, opened, counts = hook.get_conn, [], [0]

    def noting(self: Any) -> Any:
        opened.append(get_conn(self))
        counts.append(sum(not connection.closed for connection in opened))
        return opened[-1]

    def most() -> int:
        found = max(counts)
        counts[:] = [0]
        return found

    monkeypatch.setattr(hook, "get_conn", noting)
    return most


def test_a_campaign_goes_through_pgbouncer_with_no_more_connections_than_the_page_says(
    bounced: SqlLedgers,
    most_at_once: Callable[[], int],
    sandbox: SandboxProcess,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounced.sql("DROP TABLE IF EXISTS answers")
    connect(sandbox, monkeypatch, max_requests_per_second=200)
    found = {}
    manifest = run.execute(
        LingyangSubmitBatchOperator(
            task_id="submit",
            plan_id=123,
            sql="SELECT 'B' || n AS biz_id, 10000000000 + n AS phone_number, n % 3 + 1 AS batch_num "
            "FROM generate_series(1, 2500) AS n",
            sql_conn_id="ledger",
            task_defaults={"input_params": {}},
            output_slots=["intention"],
            max_in_flight=4,
            ledger_conn_id="ledger",
        )
    )
    found["LingyangSubmitBatchOperator"] = most_at_once()
    run.execute(LingyangResultSensor(task_id="wait", campaign=manifest, poke_interval=1, timeout=300))
    found["LingyangResultSensor"] = most_at_once()
    run.execute(
        LingyangToSqlOperator(
            task_id="transfer", campaign=manifest, table="answers", sql_conn_id="ledger", create_table=True
        )
    )
    found["LingyangToSqlOperator"] = most_at_once()
    assert executions(sandbox) == {f"B{number}": 1 for number in range(1, 2501)}
    assert bounced.sql("SELECT count(*) FROM answers") == [(2500,)]
    said = re.findall(r"^\| `(Lingyang\w+)`[^|]*\| (\d+) \|", PAGE, re.MULTILINE)
    # Looked at now and then, so a moment of the most may be missed.
    assert {name for name, _ in said} == found.keys()
    assert all(0 < found[name] <= int(count) for name, count in said), found
