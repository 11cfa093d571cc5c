"""A client of the sandbox that shares no code with the package: it signs for itself and uses http.client and sockets."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

SUBMIT = "alibaba.lingyang.utouch.submit.initiative.batch.task"
LOOKUP = "sandbox.lingyang.utouch.query.task.result"
TIMEOUT = 120
"""Seconds after which a wait gives up; long, for slow machines."""
FORM = "application/x-www-form-urlencoded;charset=utf-8"


def sign(params: dict[str, str], secret: str = "sandbox-secret") -> str:
    """Sign by the platform's page on signatures; tests/vectors has its examples."""
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
        """The code of a JSON or XML error, or of the result."""
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
    response_format: str | None = "json"

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def timestamp(self, skew: float = 0) -> str:
        return f"{datetime.fromtimestamp(self.now() + skew, UTC) + timedelta(hours=8):%Y-%m-%d %H:%M:%S}"

    def params(self, method: str = "taobao.time.get", /, **more: str | None) -> dict[str, str]:
        """Return unsigned parameters; None omits one."""
        system = {
            "method": method,
            "app_key": "sandbox",
            "sign_method": "hmac-sha256",
            "timestamp": self.timestamp(),
            "v": "2.0",
            "format": self.response_format,
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
        timeout: float = TIMEOUT,
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

    def task(self, number: int = 1, /, **more: Any) -> dict[str, Any]:
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
        """Send a request and keep its connection open, without waiting for the answer."""
        body = urlencode(params).encode()
        head = f"POST /router/rest HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(self.address, timeout=TIMEOUT) as connection:
            connection.sendall(head.encode() + body)
            yield connection

    def control(self, method: str, path: str, body: object = None) -> Any:
        reply = self.http(
            None if body is None else json.dumps(body).encode(), method=method, path=f"/sandbox/{path}"
        )
        assert reply.status == 200, reply.body
        return reply.json

    def add_fault(self, **rule: Any) -> Any:
        return self.control("POST", "faults", rule)

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = self.control("GET", "record")
        return found

    def faults(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control("GET", "faults")["faults"]
        return found

    def last_request(self) -> dict[str, Any]:
        found: dict[str, Any] = self.record()["requests"][-1]
        return found

    def until(self, condition: Callable[[], bool]) -> None:
        """Poll until a condition holds."""
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"not within {TIMEOUT} s"
            time.sleep(0.005)


@dataclass
class Gateway(Client):
    """A client of a sandbox in a thread of this process. The test moves the clock: ``moment``, epoch seconds."""

    url: str = ""
    moment: float = 1_800_000_000.0
