"""The sandbox as a child process, for tests, demos and benchmarks.

with SandboxProcess("--answer-after", "0.2") as sandbox:
    sandbox.add_fault(kind="throttle", seconds=1)
    ...
    assert sandbox.record()["totals"]["duplicate_biz_ids"] == 0
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from airflow_provider_lingyang.sandbox import APP_KEY, APP_SECRET, LOOKUP, ROUTER

RESULT_QUERY: dict[str, Any] = {
    "method": LOOKUP,
    "request_param": "task_result_query",
    "biz_ids_field": "biz_ids",
    "max_biz_ids": 50,
    "items_path": "result.data",
    "biz_id_field": "biz_id",
    "output_params_field": "output_params",
    "task_id_field": "task_id",
    "created_at_field": "created_at",
    "status_field": "status",
    "done_values": ["ANSWERED"],
    "failed_values": ["NOT_REACHED"],
}
"""The sandbox's look-up as the ``result_query`` of a connection."""

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class Contact(NamedTuple):
    """One contact of a recipient: a task that the sandbox executed."""

    biz_id: str | None
    phone_number: str
    email: str
    plan_id: int
    batch_num: str | None
    task_unique_code: str


class SandboxProcess:
    """The sandbox as a child process: a context manager, or :meth:`start` and :meth:`stop`.

    It ends with this process, even a killed one: it watches a pipe that closes then.

    :param args: more arguments of its command line, e.g. ``"--dedupe", "--store", str(path)``.
    :param port: 0 takes a free one; a number keeps the address over a restart.
    :param start_timeout: seconds to wait until it accepts requests.
    """

    def __init__(self, *args: str, port: int = 0, start_timeout: float = 20.0) -> None:
        self._args = args
        self._port = port
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._url: str | None = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The gateway URL, ``http://127.0.0.1:PORT/router/rest``; remains after :meth:`stop`."""
        if self._url is None:
            raise RuntimeError("the sandbox was not started")
        return self._url

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT``, the base of ``/sandbox/*``."""
        return self.url.removesuffix(ROUTER)

    @property
    def pid(self) -> int:
        """The process id.

        :raises RuntimeError: when it does not run.
        """
        if self._process is None:
            raise RuntimeError("the sandbox is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and wait until it accepts requests.

        :raises RuntimeError: when it does not within ``start_timeout``; the message quotes its stderr.
        """
        if self._process is not None:
            raise RuntimeError("the sandbox is running already")
        command = [
            sys.executable,
            "-m",
            __package__ or "",
            "--port",
            str(self._port),
            "--exit-on-stdin-close",
        ]
        # The child imports the same package, installed or not.
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in kill
        try:
            self._process = subprocess.Popen(
                [*command, *self._args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, "PYTHONPATH": path},
            )
            self._url = self._read_url(self._process)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop it with SIGTERM, after five seconds with SIGKILL."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        """Kill it with SIGKILL, like a crash; :meth:`start` may follow."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def record(self, requests: bool = True, executions: bool = True) -> dict[str, Any]:
        """Return the record; ``airflow_provider_lingyang.sandbox.report`` explains its keys.

        :param requests: include the list of requests.
        :param executions: include the counts per recipient.
        """
        return self._control("GET", f"record?requests={int(requests)}&executions={int(executions)}")

    def contacted(self) -> list[Contact]:
        """Return all contacts in order; a recipient who was contacted twice appears twice."""
        return [
            Contact(**contact)
            for contact in self._control("GET", "record?requests=0&executions=0&people=1")["people"]
        ]

    def contacted_twice(self) -> dict[str, int]:
        """Return each ``biz_id``, phone number and email address with more than one contact → number of contacts."""
        executions = self.record(requests=False)["executions"]
        # Not merged by name: a phone number of one recipient may be a biz_id of another.
        counts = [*executions["by_contact"].items(), *executions["by_biz_id"].items()]
        return {contact: times for contact, times in sorted(counts, key=itemgetter(1)) if times > 1}

    def add_fault(self, **rule: Any) -> dict[str, Any]:
        """Add a rule (``airflow_provider_lingyang.sandbox.rules``), e.g. ``kind="http", status=503, times=2``.

        :raises ValueError: the message names the error of the rule.
        """
        return self._control("POST", "faults", rule)

    def faults(self) -> list[dict[str, Any]]:
        """Return the rules in force: ``id``, ``fired``, ``affected`` and ``rule`` each."""
        found: list[dict[str, Any]] = self._control("GET", "faults")["faults"]
        return found

    def clear_faults(self) -> None:
        """Delete all rules and end a ban."""
        self._control("DELETE", "faults")

    def reset(self) -> None:
        """Delete requests, tasks and faults, but not the ``clock`` switch."""
        self._control("POST", "reset", {})

    def connection(self, **extra: Any) -> dict[str, Any]:
        """Return an Airflow connection to it; ``AIRFLOW_CONN_LINGYANG_DEFAULT`` takes it as JSON.

        :param extra: more fields of the connection's ``extra``, e.g. ``timeout=2`` or ``dedupes_by_code=True``.
        """
        return {
            "conn_type": "lingyang",
            "host": self.url,
            "login": APP_KEY,
            "password": APP_SECRET,
            "extra": {"result_query": dict(RESULT_QUERY), **extra},
        }

    def _control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base_url}/sandbox/{path}", data, method=method)
        try:
            with self._opener.open(request, timeout=60) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise ValueError(f"the sandbox refused {method} {path}: {text}") from None

    def _read_url(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        deadline = time.monotonic() + self._start_timeout
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            # From the descriptor: a buffered reader hides bytes from select.
            chunk = os.read(process.stdout.fileno(), 4096) if ready else b""
            if not chunk:
                why = "ended at once" if ready else f"was not ready within {self._start_timeout} s"
                raise RuntimeError(f"the sandbox {why}: {self._errors()}")
            line += chunk
        return line.decode().split()[-1]

    def _errors(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace").strip()[-2000:] or "it wrote nothing to stderr"
