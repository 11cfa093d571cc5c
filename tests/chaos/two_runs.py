"""Two live runs of one campaign_key: one takes over what the other may still send. The gateway's record is the judge.

``python tests/chaos/two_runs.py LEDGER.json FIRST-LAST [--without-wait]`` runs schedules in a ledger on a database and
prints a line of JSON for each. A gateway between the runs and the sandbox holds a request back, as a slow one does.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowException

# Each run is forked from here: what a task imports only when it runs is imported once.
import airflow_provider_lingyang.delivery.campaign
import airflow_provider_lingyang.storage.query  # noqa: F401
from airflow_provider_lingyang.delivery.recovery import Recovery
from airflow_provider_lingyang.delivery.sender_pool import SenderPool
from airflow_provider_lingyang.hooks.lingyang import LingyangHook  # noqa: F401  # likewise
from airflow_provider_lingyang.ledger.sql import SqlLedger
from airflow_provider_lingyang.lookup.query import ResultQuery
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess

_TIMEOUT = 0.4
# Made once, too: each run would make the model anew before its first look-up.
ResultQuery.parse(RESULT_QUERY, where="the sandbox's result_query")
_PATIENCE = 60.0


@dataclass(frozen=True)
class Schedule:
    """What is drawn.

    :param settle: the connection's ``lookup_settle``.
    :param waits: seconds from the first run's intent until its request leaves; less than the intent lives.
    :param held: seconds for which the gateway holds the request before it executes it; less than the time-out.
    :param lag: seconds until a look-up shows it; at most ``settle``.
    :param killed: whether the first run is killed then, so that its ledger never learns of the answer.
    """

    seed: int
    settle: float
    waits: float
    held: float
    lag: float
    killed: bool

    @classmethod
    def of(cls, seed: int) -> Schedule:
        rng = random.Random(f"two runs {seed}")
        if seed % 4 == 3:
            # No lag at all, and a look-up that is as good as the time-out allows.
            waits, held = rng.uniform(0.5, 0.8) * _TIMEOUT / 2, rng.uniform(0.75, 0.9) * _TIMEOUT
            return cls(seed, _TIMEOUT, waits, held, 0.0, rng.random() < 0.7)
        settle = rng.uniform(1.0, 2.0) * _TIMEOUT
        waits, held = rng.uniform(0, 0.8) * settle / 2, rng.uniform(0, 0.9) * _TIMEOUT
        return cls(seed, settle, waits, held, rng.uniform(0, settle), rng.random() < 0.7)


class _SlowGateway(BaseHTTPRequestHandler):
    """Hands requests on; holds the first submission of each recipient back."""

    sandbox = ""
    held: dict[str, float]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"submit.initiative" in body:
            for mark in [mark for mark in self.held if mark.encode() in body]:
                time.sleep(self.held.pop(mark, 0.0))
        parts = urlsplit(self.sandbox)
        upstream = http.client.HTTPConnection(str(parts.hostname), parts.port)
        try:
            upstream.request("POST", parts.path, body, {"Content-Type": self.headers["Content-Type"]})
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # The client has given up.

    def log_message(self, *_: Any) -> None:
        pass


class TaskInstance:
    dag_id, task_id, map_index = "dag", "submit", -1

    def __init__(self, run_id: str, try_number: int) -> None:
        self.run_id, self.try_number, self.max_tries = run_id, try_number, 5

    def xcom_push(self, key: str, value: Any) -> None:
        pass


def _fork(log: Path, work: Callable[[], None]) -> int:
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        work()
    except AirflowException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _patient(done: Callable[[], Any]) -> Any:
    until = time.monotonic() + _PATIENCE
    while not (found := done()):
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.005)
    return found


def _ended(pid: int) -> bool:
    found, _ = os.waitpid(pid, os.WNOHANG)
    return bool(found)


def without_wait() -> None:
    """A look-up counts from the start of the try, whoever may still send."""
    settle = Recovery._settle

    def early(self: Recovery, doubtful: Any, words: Any, taken_over_at: float) -> Any:
        longest = max(request.open_for for _, _, request in doubtful)
        return settle(self, doubtful, words, taken_over_at - longest)

    Recovery._settle = early  # type: ignore[method-assign]


class World:
    """A sandbox, a slow gateway before it, and a folder."""

    def __init__(self, folder: Path, ledger: str) -> None:
        self.folder = folder
        os.environ["AIRFLOW_CONN_LEDGER"] = ledger
        self.sandbox = SandboxProcess("--answer-after", "0").start()
        _SlowGateway.sandbox = self.sandbox.url
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _SlowGateway)
        self.gateway = 0

    def hold(self, held: dict[str, float]) -> None:
        """Start the gateway anew, in a process of its own: this one forks, and must have no threads."""
        self.stop_gateway()

        def serve() -> None:
            _SlowGateway.held = held
            self.server.serve_forever()

        self.gateway = _fork(self.folder / "gateway", serve)

    def stop_gateway(self) -> None:
        if self.gateway:
            os.kill(self.gateway, signal.SIGKILL)
            os.waitpid(self.gateway, 0)
            self.gateway = 0

    def close(self) -> None:
        self.stop_gateway()
        self.server.server_close()
        self.sandbox.stop()

    def executions(self) -> dict[str, int]:
        found: dict[str, int] = self.sandbox.record(requests=False)["executions"]["by_biz_id"]
        return found

    def run(self, schedule: Schedule, patches: tuple[Callable[[], None], ...]) -> dict[str, Any]:
        ids = [f"S{schedule.seed}-{n}-" for n in range(2)]
        self.sandbox.clear_faults()
        self.sandbox.reset()
        self.sandbox.add_fault(kind="late_index", seconds=schedule.lag, method="submit", times=1)
        self.hold({ids[0]: schedule.held})
        written = self.folder / f"written-{schedule.seed}"

        def task(run_id: str, try_number: int = 1) -> None:
            options: dict[str, Any] = {
                "timeout": _TIMEOUT,
                "lookup_settle": schedule.settle,
                "max_attempts": 1,
            }
            if run_id == "first":
                # It sends, and what it does about its doubts is not what is asked here.
                options["result_query"] = None
                _report_and_wait(written, schedule.waits)
            elif try_number == 1:
                _go_on_after(written)
            for patch in patches:
                patch()
            connection = self.sandbox.connection(**options)
            connection["host"] = f"http://127.0.0.1:{self.server.server_port}/router/rest"
            os.environ["AIRFLOW_CONN_LINGYANG_DEFAULT"] = json.dumps(connection)
            rows = [
                {"biz_id": biz_id, "phone_number": f"100000000{n}", "input_params": {}, "output_params": {}}
                for n, biz_id in enumerate(ids)
            ]
            LingyangSubmitBatchOperator(
                task_id="submit",
                plan_id=1,
                audience=rows,
                ledger_conn_id="ledger",
                campaign_key=f"{self.folder.name} {schedule.seed}",
            ).execute({"ti": TaskInstance(run_id, try_number)})  # type: ignore[arg-type]

        second = _fork(self.folder / "log", lambda: task("second"))
        first = _fork(self.folder / "log", lambda: task("first"))
        _patient(written.exists)
        if schedule.killed:
            _patient(lambda: self.executions() or _ended(first))
            if not _gone(first):
                os.kill(first, signal.SIGKILL)
        for pid in (first, second):
            _patient(lambda pid=pid: _gone(pid) or _ended(pid))
        last = _fork(self.folder / "log", lambda: task("second", 2))
        _patient(lambda: _ended(last))
        return {"seed": schedule.seed, "executions": self.executions()}


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _report_and_wait(written: Path, seconds: float) -> None:
    """Tell when the first intent is written, and let its request leave later."""
    write, submit = SqlLedger.write, SenderPool.submit

    def reported(self: SqlLedger, outcomes: Any, intents: Any) -> None:
        write(self, outcomes, intents)
        if intents:
            written.touch()

    def late(self: SenderPool, token: object, job: Any) -> None:
        def later(wire: Any) -> Any:
            time.sleep(seconds)
            return job(wire)

        submit(self, token, later)

    SqlLedger.write, SenderPool.submit = reported, late  # type: ignore[method-assign]


def _go_on_after(written: Path) -> None:
    """Read what other runs did at the moment at which the first one has written its intent."""
    go_on = Recovery.run

    def later(self: Recovery, *args: Any, **kwargs: Any) -> Any:
        _patient(written.exists)
        return go_on(self, *args, **kwargs)

    Recovery.run = later  # type: ignore[method-assign]


def main() -> int:
    ledger, seeds, *options = sys.argv[1:]
    first, _, last = seeds.partition("-")
    patches = (without_wait,) if "--without-wait" in options else ()
    with tempfile.TemporaryDirectory(prefix="lingyang-two-runs-") as folder:
        world = World(Path(folder), ledger)
        try:
            for seed in range(int(first), int(last or first) + 1):
                print(json.dumps(world.run(Schedule.of(seed), patches)), flush=True)
        finally:
            world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
