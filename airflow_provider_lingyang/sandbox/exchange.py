"""One HTTP request and its response: answer, hold or abort it. ``api.py`` does its work."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, NoReturn

from aiohttp import web

from airflow_provider_lingyang.sandbox import SUBMIT
from airflow_provider_lingyang.sandbox.answers import (
    Answer,
    RawAnswer,
    Refused,
    ResponseFormat,
    error_answer,
    new_request_id,
    render,
)
from airflow_provider_lingyang.sandbox.checks import BUSINESS_PARAMETERS, read_form
from airflow_provider_lingyang.sandbox.record import Entry
from airflow_provider_lingyang.sandbox.schema import is_number, parse_object
from airflow_provider_lingyang.sandbox.state import SandboxState


class ConnectionGone(Exception):
    """The connection is closed; no answer can be sent."""


class Exchange:
    """One request that has arrived completely, and its response.

    :param state: of the sandbox.
    :param request: the HTTP request.
    :param body: its raw body.
    """

    def __init__(self, state: SandboxState, request: web.Request, body: bytes) -> None:
        self.state = state
        self.request = request
        self.request_id = new_request_id()
        self.pairs: list[tuple[str, str]] = []
        self.form_error: Refused | None = None
        try:
            self.pairs = read_form(
                request.headers.get("Content-Type", ""), request.rel_url.raw_query_string, body
            )
        except Refused as refused:
            self.form_error = refused
        self.params = dict(self.pairs)
        self.method = self.params.get("method", "")
        self.response_format: ResponseFormat = "json" if self.params.get("format") == "json" else "xml"
        self.simplify = self.params.get("simplify") == "true"
        names = BUSINESS_PARAMETERS.get(self.method, frozenset())
        self.struct = next((parse_object(self.params[name]) for name in names if name in self.params), None)
        self.entry = self._entry()

    def error(
        self, code: int | str, msg: str = "", sub_code: str | None = None, sub_msg: str | None = None
    ) -> Answer:
        """Return an ``error_response`` with this request's id."""
        return error_answer(Refused(code, msg, sub_code, sub_msg), self.request_id)

    def render(self, answer: Answer, response_format: ResponseFormat | None = None) -> RawAnswer:
        """Return an answer as bytes.

        :param response_format: default: the one that the request asks for.
        """
        body, content_type = render(answer, response_format or self.response_format, self.simplify)
        return RawAnswer(body, content_type)

    async def hold(self) -> NoReturn:
        """Hold the connection without an answer until the client or the sandbox closes it."""
        self.state.record.update(self.entry)
        await asyncio.Event().wait()
        self.abort()

    def abort(self) -> NoReturn:
        """Reset the connection."""
        self.record_end(answered=False)
        transport = self.request.transport
        if transport is not None:
            # With a linger time of 0 the kernel sends RST instead of FIN.
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        raise ConnectionGone

    def record_end(self, *, answered: bool) -> None:
        """Record the end of the exchange, once.

        :param answered: False: the connection was lost before the answer.
        """
        if self.entry.ended_at is None:
            self.entry.ended_at = self.state.clock()
            self.entry.answered_at = self.entry.ended_at if answered else None
            self.state.record.update(self.entry)

    async def respond(self, answer: Answer | RawAnswer) -> web.StreamResponse:
        """Return the HTTP response of an answer, gzip included, and record the end."""
        if isinstance(answer, Answer):
            self.entry.code, self.entry.sub_code = answer.code, answer.sub_code
            answer = self.render(answer)
        if answer.cut:
            await self._send_half(answer)
        # The same clock checks timestamps and dates the answer.
        date = formatdate(self.state.gateway_now(), usegmt=True)
        headers = {"Content-Type": answer.content_type, "Date": date}
        body = answer.body
        if _accepts_gzip(self.request.headers.get("Accept-Encoding", "")):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
        self.record_end(answered=True)
        return web.Response(body=body, status=answer.status, headers=headers)

    async def _send_half(self, answer: RawAnswer) -> NoReturn:
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(self.request)
        await response.write(answer.body[: len(answer.body) // 2])
        # A reset discards what the client has not read yet: leave time to read this half.
        await asyncio.sleep(0.05)
        self.abort()

    def _entry(self) -> Entry:
        found = self.struct or {}
        items: Any = found.get("task_list") if self.method == SUBMIT else found.get("biz_ids")
        if self.method == SUBMIT and isinstance(items, list):
            items = [task.get("biz_id") for task in items if isinstance(task, dict)]
        return Entry(
            method=self.method,
            received_at=self.state.clock(),
            request_id=self.request_id,
            task_unique_code=_text(found.get("task_unique_code")),
            batch_num=_text(found.get("batch_num")),
            plan_id=found["plan_id"] if is_number(found.get("plan_id")) else None,
            biz_ids=[item for item in items if isinstance(item, str)] if isinstance(items, list) else [],
            is_client_gone=_is_gone(self.request),
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_gone(request: web.Request) -> Callable[[], bool]:
    return lambda: request.transport is None or request.transport.is_closing()


def _accepts_gzip(header: str) -> bool:
    for part in header.lower().split(","):
        coding, _, quality = part.replace(" ", "").partition(";q=")
        if coding == "gzip":
            return quality not in ("0", "0.0", "0.00", "0.000")
    return False
