"""The gateway of the model: what it executed is the truth that everything is judged by."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Any
from urllib.parse import parse_qs

import requests
from requests.structures import CaseInsensitiveDict

from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, SUBMIT_PARAM
from airflow_provider_lingyang.gateway.transport import not_connected
from airflow_provider_lingyang.gateway.urllib3_connections import before_send_hook
from tests.model.simulated_time import EPOCH, Process

TIMEOUT = 8.0
CONNECT = 8.0
SETTLE = 8.0
"""Seconds: ``timeout`` of the connection, for connecting and for the answer, and its ``lookup_settle``."""
ANSWERS_IN = 0.1
RESULTS = "model.results.get"


@dataclass
class Execution:
    """A recipient was contacted."""

    biz_id: str
    code: str
    at: float
    visible_at: float


@dataclass
class Dispatcher:
    """A request that arrived."""

    code: str
    biz_ids: list[str]
    batch_num: str | None
    by: str
    left_at: float
    answered_at: float = float("inf")


@dataclass
class Reply:
    """What goes over the wire.

    :param after: seconds.
    :param body: None: no answer ever comes.
    :param connected: whether there was a connection at all.
    :param broken: whether the connection breaks, soon, instead of being silent.
    :param follows: whether another answer follows.
    """

    body: bytes | None
    status: int = 200
    after: float = ANSWERS_IN
    connected: bool = True
    broken: bool = False
    follows: bool = False

    @property
    def lasts(self) -> float:
        silent = self.body is None and self.connected and not self.broken
        return TIMEOUT if silent else self.after


@dataclass
class Gateway:
    """Executes requests, and remembers that it did.

    :param dedupes: a ``task_unique_code`` is executed once.
    :param away: whether nothing that is submitted is ever executed: a wrong host.
    """

    dedupes: bool = False
    executions: list[Execution] = field(default_factory=list)
    submissions: list[Dispatcher] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Of whom an answer said that they were refused."""

    def execute(self, submission: Dispatcher, biz_ids: Sequence[str], at: float, lag: float) -> Sequence[str]:
        """Execute a request, for some of its recipients; return for whom that was done, now or before."""
        known = [each.biz_id for each in self.executions if each.code == submission.code]
        if self.dedupes and known:
            self.refused |= set(submission.biz_ids) - set(known)
            return known
        for biz_id in biz_ids:
            self.executions.append(Execution(biz_id, submission.code, at, at + lag))
        return biz_ids

    def count(self, biz_id: str) -> int:
        return sum(each.biz_id == biz_id for each in self.executions)

    def executed(self) -> set[str]:
        return {each.biz_id for each in self.executions}

    def visible(self, biz_ids: Sequence[str], now: float) -> list[Execution]:
        return [each for each in self.executions if each.biz_id in biz_ids and each.visible_at <= now]


def in_china(moment: float) -> str:
    return (datetime.fromtimestamp(EPOCH + moment, UTC) + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")


def submit_answer(result: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"model_submit_response": {"result": result, "request_id": "r1", **beside}}


def echoes(biz_ids: Sequence[Any]) -> dict[str, Any]:
    return {
        "initiative_task_response": [
            {"task_id": 1000 + number, "task_request": {"biz_id": biz_id}}
            for number, biz_id in enumerate(biz_ids)
        ]
    }


def accepted(biz_ids: Sequence[Any]) -> bytes:
    return encoded(submit_answer({"success": True, "code": "200", "data": echoes(biz_ids)}))


def error(code: Any, sub_code: str | None = None, sub_msg: str | None = None) -> bytes:
    inner = {"code": code, "msg": "m", "sub_code": sub_code, "sub_msg": sub_msg, "request_id": "r1"}
    return encoded({"error_response": {name: value for name, value in inner.items() if value is not None}})


def item(execution: Execution, *, dated: bool, **other: Any) -> dict[str, Any]:
    created = {"created": in_china(execution.at)} if dated else {}
    return {"biz_id": execution.biz_id, "task_id": 1000, "out": {}, **created, **other}


def found(items: Sequence[Any], *, flags: bool, total: int | None = None, **other: Any) -> dict[str, Any]:
    """Return the answer of a look-up, complete and with everything that says so, or with nothing that does."""
    result: dict[str, Any] = {"data": {"items": list(items)}}
    if flags:
        result |= {"success": True, "total_count": len(items) if total is None else total}
    return {"model_results_response": {"result": {**result, **other}, "request_id": "r2"}}


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


class _Stream:
    """What is used of :class:`airflow_provider_lingyang.gateway.urllib3_connections.Response`."""

    def __init__(self, reply: Reply) -> None:
        self.headers = Message()
        self._body = io.BytesIO(reply.body or b"")
        self._follows = reply.follows

    def read_piece(self, size: int) -> bytes:
        return self._body.read(size)

    def is_followed(self, patience: float) -> bool:
        return self._follows

    def close(self) -> None:
        pass


class _Raw:
    def __init__(self, stream: _Stream) -> None:
        self._original_response = stream

    def close(self) -> None:
        pass


class Transport:
    """Stands for the network below ``requests``: what a process sends arrives at the model.

    :param arrive: answers (process, method, business parameters).
    """

    def __init__(self, arrive: Any, process_of: Any) -> None:
        self._arrive = arrive
        self._process_of = process_of

    def send(self, adapter: Any, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        process: Process = self._process_of()
        process.check()
        assert isinstance(request.body, bytes)
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        scheduler = process.scheduler
        if (check := before_send_hook.get()) is not None:
            check()
        reply: Reply = self._arrive(process, form)
        if reply.body is None:
            scheduler.wait(scheduler.now + reply.lasts)
            if not reply.connected:
                raise not_connected("Connection refused")
            if reply.broken:
                raise requests.ConnectionError(ConnectionResetError(104, "Connection reset by peer"))
            raise requests.ReadTimeout("Read timed out.")
        scheduler.wait(scheduler.now + reply.lasts)
        response = requests.Response()
        response.status_code = reply.status
        response.headers = CaseInsensitiveDict({"Content-Type": "application/json"})
        response.raw = _Raw(_Stream(reply))
        return response


def struct_of(form: dict[str, str]) -> dict[str, Any] | None:
    if form["method"] != SUBMIT_METHOD:
        return None
    struct: dict[str, Any] = json.loads(form[SUBMIT_PARAM])
    return struct


def asked_of(form: dict[str, str]) -> tuple[list[str], int | None]:
    """Return the ids of a look-up, and its page where it asks for one."""
    query: dict[str, Any] = json.loads(form["query"])
    return query["ids"], query.get("page")
