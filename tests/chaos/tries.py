"""One try of the submit task, in a process of its own that may be killed or paused at any moment."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sqlite3
import sys
import threading
import time
import traceback
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)
from store import TaskStateStore

from airflow_provider_lingyang.delivery.ledger_writer import LedgerWriter

# Each try is forked from here: what a task imports only when it runs is imported once, and not by every try.
from airflow_provider_lingyang.delivery.sender_pool import SenderPool
from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.hooks.lingyang import LingyangHook  # noqa: F401  # likewise
from airflow_provider_lingyang.ledger.sql import SqlLedger
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator


class TaskInstance:
    dag_id, run_id, task_id, map_index = "dag", "run", "submit", -1

    def __init__(self, folder: Path, try_number: int, max_tries: int) -> None:
        self.try_number, self.max_tries, self._folder = try_number, max_tries, folder

    def xcom_push(self, key: str, value: Any) -> None:
        # Whole or not at all, whenever the process is killed.
        written = self._folder / f"xcom-{key}.part"
        written.write_text(json.dumps(value))
        written.replace(self._folder / f"xcom-{key}.json")


@dataclass
class Plan:
    """What is to happen in one try.

    :param events: name → number of ledger writes (for "kill in flight": of requests) before it happens.
    """

    folder: Path
    ledger: str
    rows: list[dict[str, Any]]
    arguments: dict[str, Any]
    connection: dict[str, Any]
    try_number: int
    max_tries: int
    token: int
    resumed: bool = False
    events: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    patches: tuple[Any, ...] = ()


class Happening:
    """Counts ledger writes and requests, and lets happen what is due."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.events = dict(plan.events)
        self.writes = 0
        self.requests = 0
        self.under_way = 0
        self.away = 0
        """So many writes to come fail, too."""
        self.opening = 2 if plan.ledger == "task state" else 0
        """Writes before the first intent that are counted."""
        # Airflow's store may raise anything; a database's errors come out of SqlLedger as its own.
        self.failure: type[Exception] = OSError if plan.ledger == "task state" else LedgerError
        self.rng = random.Random(plan.seed)
        self.before = self.rng.random() < 0.5

    def note(self, name: str) -> None:
        with (self.plan.folder / "happened").open("a") as file:
            file.write(name + "\n")

    def due(self, name: str, count: int) -> bool:
        if name in self.events and count > self.events[name]:
            del self.events[name]
            self.note(name)
            return True
        return False

    def before_write(self, *_: object) -> None:
        self.writes += 1
        if self.before:
            self.end()
        if self.away:
            self.away -= 1
            raise self.failure("the ledger is away")
        if self.due("ledger fails before", self.writes - self.opening):
            self.away = self.rng.randint(0, 2)
            raise self.failure("the ledger is away")

    def after_write(self, *_: object) -> None:
        if not self.before:
            self.end()
        if self.due("ledger fails after", self.writes - self.opening):
            self.away = self.rng.randint(0, 2)
            raise self.failure("the answer of the ledger was lost")

    def end(self) -> None:
        if self.due("kill", self.writes - self.opening):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.due("pause", self.writes - self.opening):
            # Not while a sender is between its last look at the intent and its send: a process that is paused there
            # sends when it wakes up, and only a gateway that de-duplicates could refuse it. The README says so.
            while self.under_way:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGSTOP)

    def request(self) -> None:
        self.requests += 1
        if self.due("kill in flight", self.requests):
            # Uniform over what a request takes, and a little more: before, during and after its answer.
            threading.Timer(self.rng.uniform(0, 0.012), os.kill, (os.getpid(), signal.SIGKILL)).start()


def fork(plan: Plan) -> int:
    """Start the try; returns its process id. What it says is in ``plan.folder``."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    try:
        log = os.open(plan.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, force=True)
        _run(plan)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _run(plan: Plan) -> None:
    happening = Happening(plan)
    os.environ["AIRFLOW_CONN_LINGYANG_DEFAULT"] = json.dumps(plan.connection)
    ledger_db = {"conn_type": "sqlite", "host": str(plan.folder / "ledger.db")}
    os.environ["AIRFLOW_CONN_LEDGER"] = json.dumps(ledger_db)
    for patch in plan.patches:
        patch()
    send = GatewayClient.submit_struct

    def submit_struct(self: GatewayClient, struct: str, **how: Any) -> Any:
        happening.request()
        return send(self, struct, **how)

    GatewayClient.submit_struct = submit_struct  # type: ignore[method-assign]
    submit = SenderPool.submit

    def counted(self: SenderPool, token: object, job: Any) -> None:
        def done(wire: Any) -> Any:
            try:
                return job(wire)
            finally:
                happening.under_way -= 1

        happening.under_way += 1
        submit(self, token, done)

    SenderPool.submit = counted  # type: ignore[method-assign]
    if "outcome not written" in plan.events:
        flush = LedgerWriter.flush

        def failing(self: LedgerWriter, **how: Any) -> None:
            if happening.due("outcome not written", 10**6):
                os.kill(os.getpid(), signal.SIGKILL)
            flush(self, **how)

        LedgerWriter.flush = failing  # type: ignore[method-assign]
    arguments: dict[str, Any] = dict(plan.arguments)
    context: dict[str, Any] = {"ti": TaskInstance(plan.folder, plan.try_number, plan.max_tries)}
    if plan.ledger == "task state":
        store = TaskStateStore(
            plan.folder / "state.db", plan.token, happening.before_write, happening.after_write
        )
        store.begin()
        context["task_state_store"] = store
    elif plan.ledger == "sql":
        arguments["ledger_conn_id"] = "ledger"
        write = SqlLedger.write

        def hooked(self: SqlLedger, outcomes: Any, intents: Any) -> None:
            happening.before_write()
            write(self, outcomes, intents)
            happening.after_write()

        SqlLedger.write = hooked  # type: ignore[method-assign]
    operator = LingyangSubmitBatchOperator(
        task_id="submit", plan_id=123, channel="call", audience=plan.rows, **arguments
    )
    said: dict[str, Any] = {"how": "success", "message": ""}
    try:
        (operator.resume if plan.resumed else operator.execute)(context)
    except TaskDeferred:
        said["how"] = "deferred"
    except AirflowSkipException as error:
        said = {"how": "skipped", "message": str(error)}
    except AirflowFailException as error:
        said = {"how": "final", "message": str(error)}
    except AirflowException as error:
        said = {"how": "failed", "message": str(error)}
    except BaseException as error:
        said = {"how": "crashed", "message": f"{type(error).__name__}: {error}"}
        traceback.print_exc()
    (plan.folder / f"said-{plan.token}.json").write_text(json.dumps(said))


def empty(plan: Plan) -> None:
    """Forget everything that the ledger holds."""
    for name, tables in (("state.db", ["state"]), ("ledger.db", None)):
        path = plan.folder / name
        if path.exists():
            with closing(sqlite3.connect(path, timeout=20)) as db:
                found = tables or [
                    t for (t,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
                ]
                for table in found:
                    db.execute(f"DELETE FROM {table}")
                db.commit()


def wait(pid: int, deadline: float) -> str:
    """Wait until a process has ended or stopped; say which."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found:
            if os.WIFSTOPPED(status):
                return "stopped"
            return "killed" if os.WIFSIGNALED(status) else "ended"
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "hung"
        time.sleep(0.003)
