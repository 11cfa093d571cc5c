"""A client of the sandbox that shares no code with ours: it signs for itself and speaks http.client and sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from aiohttp import web

from airflow_provider_lingyang.sandbox.app import Sandbox

SUBMIT = "alibaba.lingyang.utouch.submit.initiative.batch.task"
LOOKUP = "sandbox.lingyang.utouch.query.task.result"
FORM = "application/x-www-form-urlencoded;charset=utf-8"


def sign(params: dict[str, str], secret: str = "sandbox-secret") -> str:
    """Sign as the platform's page on signatures says; see tests/vectors for its examples."""
    text = "".join(name + params[name] for name in sorted(params) if params[name]).encode()
    key = secret.encode()
    match params.get("sign_method"):
        case "md5":
            return hashlib.md5(key + text + key).hexdigest().upper()
        case "hmac":
            return hmac.new(key, text, "md5").hexdigest().upper()
        case _:
            return hmac.new(key, text, "sha256").hexdigest().upper()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a JSON or XML error, or of the result; of nothing else."""
        text = self.body.decode()
        if text.startswith("<?xml"):
            return text.partition("<code>")[2].partition("</code>")[0]
        (payload,) = self.json.values() if len(self.json) == 1 else [self.json]
        return str(payload["code"] if "code" in payload else payload["result"]["code"])

    @property
    def result(self) -> dict[str, Any]:
        (payload,) = self.json.values()
        result: dict[str, Any] = payload["result"]
        return result

    @property
    def echoes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.result["data"].get("initiative_task_response", [])
        return found


@dataclass
class Client:
    url: str
    now: Callable[[], float] = time.time
    form: str | None = "json"

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def timestamp(self, skew: float = 0) -> str:
        return f"{datetime.fromtimestamp(self.now() + skew, UTC) + timedelta(hours=8):%Y-%m-%d %H:%M:%S}"

    def params(self, method: str = "taobao.time.get", /, **more: str | None) -> dict[str, str]:
        """Return unsigned parameters; None leaves one out."""
        system = {
            "method": method,
            "app_key": "sandbox",
            "sign_method": "hmac-sha256",
            "timestamp": self.timestamp(),
            "v": "2.0",
            "format": self.form,
        }
        return {name: value for name, value in {**system, **more}.items() if value is not None}

    def signed(self, params: dict[str, str]) -> dict[str, str]:
        return {**params, "sign": sign(params)}

    def http(
        self,
        body: bytes | None,
        *,
        method: str = "POST",
        path: str = "/router/rest",
        timeout: float = 5,
        **headers: str,
    ) -> Reply:
        connection = http.client.HTTPConnection(*self.address, timeout=timeout)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Content-Type": FORM, **names})
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def send(self, params: dict[str, str], **options: Any) -> Reply:
        return self.http(urlencode(params).encode(), **options)

    def call(self, method: str = "taobao.time.get", /, **more: str | None) -> Reply:
        return self.send(self.signed(self.params(method, **more)))

    def task(self, number: int = 1, **more: Any) -> dict[str, Any]:
        task = {
            "biz_id": f"order-{number}",
            "phone_number": str(10_000_000_000 + number),
            "input_params": '{"name":"张三"}',
            "output_params": '{"意向":"","时间":""}',
            **more,
        }
        return {name: value for name, value in task.items() if value is not None}

    def batch(self, **more: Any) -> dict[str, Any]:
        batch = {"task_unique_code": "code-1", "plan_id": 7, "task_list": [self.task()], **more}
        return {name: value for name, value in batch.items() if value is not None}

    def submit_params(
        self, struct: Any = None, system: dict[str, str] | None = None, **more: Any
    ) -> dict[str, str]:
        text = (
            struct
            if isinstance(struct, str)
            else json.dumps(struct or self.batch(**more), ensure_ascii=False)
        )
        return self.signed(self.params(SUBMIT, initiative_batch_task_request=text, **(system or {})))

    def submit(self, struct: Any = None, system: dict[str, str] | None = None, **more: Any) -> Reply:
        return self.send(self.submit_params(struct, system, **more))

    def lookup(self, *biz_ids: str) -> dict[str, dict[str, Any]]:
        reply = self.call(LOOKUP, task_result_query=json.dumps({"biz_ids": biz_ids}))
        found = reply.result["data"].get("task_result", [])
        return {item["biz_id"]: item for item in found}

    @contextmanager
    def opened(self, params: dict[str, str]) -> Iterator[socket.socket]:
        """Send a request and leave its connection open, without waiting for the answer."""
        body = urlencode(params).encode()
        head = f"POST /router/rest HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(self.address, timeout=5) as connection:
            connection.sendall(head.encode() + body)
            yield connection

    def control(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.http(
            None if body is None else json.dumps(body).encode(), method=method, path=f"/sandbox/{path}"
        )
        assert reply.status == 200, reply.body
        return reply.json

    def fault(self, **rule: Any) -> Any:
        return self.control("POST", "faults", rule)

    def record(self) -> Any:
        return self.control("GET", "record")

    def last(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record()["requests"][-1]
        return found

    def until(self, what: Callable[[], bool], timeout: float = 10) -> None:
        """Poll until something is so."""
        deadline = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.005)


@dataclass
class Gateway(Client):
    """A sandbox in a thread of this process, whose clock the test moves."""

    url: str = ""
    moment: float = 1_800_000_000.0
    sandbox: Sandbox | None = None


def _serve(gateway: Gateway, stack: ExitStack, options: dict[str, Any]) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    async def start() -> web.AppRunner:
        gateway.now = lambda: gateway.moment
        gateway.sandbox = Sandbox(clock=lambda: gateway.moment, **options)
        runner = gateway.sandbox.runner()
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        gateway.url = "http://{}:{}/router/rest".format(*runner.addresses[0][:2])
        return runner

    def stop(runner: web.AppRunner) -> None:
        run(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        assert gateway.sandbox is not None
        gateway.sandbox.record.close()

    stack.callback(stop, run(start()))


@pytest.fixture
def start_gateway() -> Iterator[Callable[..., Gateway]]:
    """Start a sandbox in this process: arguments of ``Sandbox``."""
    with ExitStack() as stack:

        def start(**options: Any) -> Gateway:
            gateway = Gateway()
            _serve(gateway, stack, options)
            return gateway

        yield start


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A sandbox in this process with its defaults."""
    return start_gateway()


@pytest.fixture
def client_of() -> type[Client]:
    """A client of a sandbox that runs elsewhere: ``client_of(url)``."""
    return Client
