"""Gateways to speak to: the sandbox as a process, and servers of one socket that misbehave to order."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest

from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient
from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.lookup.calls import LookUp, run_blocking
from airflow_provider_lingyang.lookup.query import ResultQuery, TaskResult
from airflow_provider_lingyang.sandbox.process import SandboxProcess

NOON = datetime(2024, 3, 12, 6, 0, 0, tzinfo=UTC)
"""14:00:00 in China."""


def fetch_results(client: GatewayClient, query: ResultQuery, biz_ids: list[str]) -> dict[str, TaskResult]:
    return run_blocking(LookUp(client.perform, query, client.clock).fetch(biz_ids))


async def fetch_results_async(
    client: AsyncGatewayClient, query: ResultQuery, biz_ids: list[str]
) -> dict[str, TaskResult]:
    return await LookUp(client.perform, query, client.clock).fetch(biz_ids)


Step = Callable[[socket.socket], bool]
"""Answers one request; whether the connection is kept."""


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def gateway_sandbox(lingyang_sandbox: SandboxProcess) -> SandboxProcess:
    """The sandbox without a past."""
    return lingyang_sandbox


@dataclass
class Time:
    """A clock that only moves when it is told to, or slept on."""

    now: datetime = NOON
    seconds: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.seconds += seconds


@pytest.fixture
def time_machine() -> Time:
    return Time()


class OnALoop:
    """An ``AsyncGatewayClient`` that is called like a ``GatewayClient``, so that one test serves both."""

    def __init__(self, settings: GatewaySettings, time_machine: Time, **options: Any) -> None:
        async def sleep(seconds: float) -> None:
            self._sleep(seconds)

        self._sleep = time_machine.sleep
        self._runner = asyncio.Runner()
        self._closed = False
        self.client = AsyncGatewayClient(settings, sleep=sleep, **options)
        self.settings = settings

    def __enter__(self) -> OnALoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._runner.run(self.client.close())
            self._runner.close()
        self._closed = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self._runner.run(self.client.call(*args, **kwargs))

    def fetch_results(self, *args: Any, **kwargs: Any) -> Any:
        return self._runner.run(fetch_results_async(self.client, *args, **kwargs))


Connect = Callable[..., GatewayClient]
"""Makes a client; where a module runs on both, the other one behaves like it."""
ConnectOnLoop = Callable[..., OnALoop]
MakeBatch = Callable[..., InitiativeBatchTaskRequest]

BOTH_CLIENTS = ("test_transport", "test_tls_and_proxies", "test_http_answer", "test_proxies")
"""Modules whose tests hold for the client for tasks and for the one for event loops."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.module.__name__.rpartition(".")[2]
    only = metafunc.definition.get_closest_marker("requests_only")
    if "connect" in metafunc.fixturenames and name in BOTH_CLIENTS and not only:
        metafunc.parametrize("connect", ["requests", "aiohttp"], indirect=True)


@pytest.fixture
def connect(request: pytest.FixtureRequest, time_machine: Time) -> Iterator[Connect]:
    """Make clients: ``connect(url, timeout=2, clock=...)``. They sleep on the time machine."""
    kind = getattr(request, "param", "requests")
    with ExitStack() as stack:

        def make(url: str, clock: Callable[[], datetime] | None = None, **settings: Any) -> Any:
            chosen = {"app_key": "sandbox", "app_secret": "sandbox-secret", "timeout": 60.0, **settings}
            options: dict[str, Any] = {
                "clock": clock or (lambda: datetime.now(UTC)),
                "monotonic": lambda: time_machine.seconds,
                "rng": random.Random(1),
            }
            if kind == "aiohttp":
                made: Any = OnALoop(GatewaySettings(url=url, **chosen), time_machine, **options)
            else:
                made = GatewayClient(GatewaySettings(url=url, **chosen), sleep=time_machine.sleep, **options)
            return stack.enter_context(made)

        yield make


def batch(*numbers: int, **task: Any) -> InitiativeBatchTaskRequest:
    """A valid request with these recipients."""
    return InitiativeBatchTaskRequest.model_validate(
        {
            "task_unique_code": "code-1",
            "batch_num": "1",
            "plan_id": 7,
            "task_list": [
                {
                    "biz_id": f"order-{number}",
                    "phone_number": 10_000_000_000 + number,
                    "input_params": {"name": "张三"},
                    "output_params": {"意向": ""},
                    **task,
                }
                for number in numbers or (1,)
            ],
        }
    )


@pytest.fixture
def make_batch() -> MakeBatch:
    return batch


@dataclass
class RawServer:
    """Answers the n-th request with the n-th step, and all further ones with the last.

    ``requests`` are the (connection, form fields) that came, in order.
    """

    steps: list[Step]
    wrap: Callable[[socket.socket], socket.socket] = lambda connection: connection
    host: str = "127.0.0.1"
    requests: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = socket.create_server((self.host, 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/router/rest"

    def stop(self) -> None:
        self.stopping.set()
        # Not only close: that would not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(600)
            assert not thread.is_alive()

    def wait_for_end_of_connection(self, number: int) -> None:
        """Wait until the n-th connection (from 1) is closed on this side."""
        self._threads[number].join(600)
        assert not self._threads[number].is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        with plain:
            try:
                with self.wrap(plain) as connection, connection.makefile("rb") as stream:
                    while self._answer(connection, stream, number):
                        pass
            except OSError:
                return

    def _answer(self, connection: socket.socket, stream: Any, number: int) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return False
            head += line
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        body = stream.read(length).decode()
        self.heads.append(head.decode())
        self.requests.append((number, dict(parse_qsl(body, strict_parsing=True) if body else [])))
        step = self.steps[min(len(self.requests), len(self.steps)) - 1]
        return step(connection)


Serve = Callable[..., RawServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers: ``serve(says(reply()), resets, ...)``."""
    with ExitStack() as stack:

        def start(*steps: Step, **options: Any) -> RawServer:
            server = RawServer(list(steps), **options)
            stack.callback(server.stop)
            return server

        yield start
