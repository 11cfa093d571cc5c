"""What the fleet's Airflow needs besides itself: PostgreSQL, Redis, the gateway, and the consumer of pushed results."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from airflow_provider_lingyang.sandbox import simulated_people
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.fleet.evidence import Gateway, connect
from tests.helpers.airflow_processes import own_database
from tests.helpers.servers import Postgres, Redis
from tests.helpers.sessions import Sessions

ANSWER_AFTER = 30.0
"""Seconds until the last recipient has answered."""
SHARDS, BATCHES = 4, 5
PLANS = {"with_lookup": 1, "with_pushed_results": 2}
"""Campaign → its plan."""
_DELAY = 0.5
"""Seconds from a request's execution to its answer: the campaigns are to last long enough to be disturbed."""
_SETTINGS = {"timeout": 10, "lookup_settle": 10}


def audience(plan_id: int, size: int) -> dict[str, tuple[int, str, str]]:
    """Return the audience of a campaign: biz_id → shard, phone number and ``batch_num``, in no order of them."""
    return {
        f"order-{plan_id}-{n:06}": (n % SHARDS, f"1000{plan_id}{n:06}", str(n // SHARDS % BATCHES + 8))
        for n in range(size)
    }


class Consumer:
    """Writes the results of the campaign without a look-up into a table, as they come, once it is no longer held.

    :param server: with the table's database.
    """

    def __init__(self, gateway: Gateway, server: Mapping[str, Any], plan_id: int) -> None:
        self._gateway = gateway
        self._server = server
        self._plan_id = plan_id
        self._last = 0
        self._looked_at = 0.0
        self._pending: dict[str, tuple[int, float]] = {}
        self.is_held = True
        """So that its waits are deferred for as long as they are to be disturbed, however slow the machine is."""

    def run(self) -> None:
        """Do what is due; where the database is away, later."""
        if self.is_held or time.monotonic() < self._looked_at + 1:
            return
        self._looked_at = time.monotonic()
        for number, biz_id, task_id, executed_at in self._gateway.tasks_after(self._plan_id, self._last):
            self._last = number
            self._pending[biz_id] = task_id, executed_at
        if rows := list(self._due(time.time())):
            try:
                with connect(self._server, "audience") as db, db.cursor() as cursor, db.transaction():
                    cursor.executemany("INSERT INTO answers VALUES (%s, %s, %s, %s)", rows)
            except psycopg.OperationalError:
                return
            for biz_id, *_ in rows:
                del self._pending[biz_id]

    def _due(self, now: float) -> Iterator[tuple[str, str, str, str]]:
        for biz_id, (task_id, executed_at) in self._pending.items():
            status, slots = simulated_people.result(
                0, biz_id, ["intention"], waited=now - executed_at, answer_after=ANSWER_AFTER
            )
            if status != simulated_people.WAITING:
                yield biz_id, json.dumps(slots), status, str(task_id)


class Servers:
    """All of them, in a folder, with their data.

    :param work: the folder.
    :param sessions: end them at the latest.
    :param size: of each campaign's audience.
    """

    def __init__(self, work: Path, sessions: Sessions, size: int) -> None:
        self.work = work
        self.sessions = sessions
        (work / "redis").mkdir()
        self.postgres = Postgres(work / "postgres", "-c max_connections=300")
        self.redis = Redis(work / "redis", sessions)
        store = work / "sandbox.db"
        self.sandbox = SandboxProcess("--store", str(store), "--answer-after", str(ANSWER_AFTER))
        self.gateway = Gateway(store)
        self.size = size
        self.consumer = Consumer(self.gateway, self.postgres.connection, PLANS["with_pushed_results"])

    def start(self) -> None:
        """Start them, and fill the databases."""
        self.start_postgres()
        self.redis.start()
        self.sandbox.start()
        self.sandbox.add_fault(kind="slow", seconds=_DELAY, times=None, method="submit")
        self.database = own_database(self.postgres.connection)
        for name in ("audience", "ledger", "warehouse"):
            own_database(self.postgres.connection, name)
        with connect(self.postgres.connection, "audience") as db:
            db.execute("CREATE TABLE answers (biz_id text, output_params text, status text, task_id text)")
            db.execute(
                "CREATE TABLE audience (plan_id int, biz_id text, shard int, phone_number text, batch_num text, "
                "customer text)"
            )
            with db.cursor().copy("COPY audience FROM STDIN") as copy:
                for plan_id in PLANS.values():
                    for biz_id, row in audience(plan_id, self.size).items():
                        copy.write_row((plan_id, biz_id, *row, f"customer {biz_id}"))

    def start_postgres(self) -> None:
        """Start PostgreSQL, also after it was stopped."""
        self.postgres.start()
        self.sessions.add(self.postgres.pid)

    def stop(self) -> None:
        """Stop what the sessions do not end."""
        self.sandbox.stop()
        if self.postgres.is_running:
            self.postgres.stop()
        if not self.postgres.folder.is_relative_to(self.work):
            if (log := self.postgres.folder / "log").exists():
                shutil.copyfile(log, self.work / "postgres.txt")
            shutil.rmtree(self.postgres.folder)

    def environment(self) -> dict[str, str]:
        """Return what Airflow needs to know of them."""
        plain = self.sandbox.connection(**_SETTINGS)
        pushed = {**plain, "extra": dict(_SETTINGS)}
        connections = {"with_lookup": plain, "with_pushed_results": pushed}
        connections |= {
            conn_id: self.postgres.connection | {"schema": name}
            for conn_id, name in (
                ("audience_db", "audience"),
                ("ledger_db", "ledger"),
                ("warehouse", "warehouse"),
            )
        }
        return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()} | {
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL": "True",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "16",
            # A scheduler that was started again looks for what another one had begun every 5 minutes by default, and
            # not before that one has been silent for 30 s.
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            # Longer than for the tests of single tasks: an outage of 8 s is not yet a lost worker.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "40",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
            "FLEET_SHARDS": str(SHARDS),
            "FLEET_BATCH_SIZE": str(max(1, min(25, self.size // SHARDS // 100))),
        }
