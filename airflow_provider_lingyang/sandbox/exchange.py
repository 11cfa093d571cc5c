"""One request on its way through the sandbox, and what can be done with it.

Fault kinds (``faults.py``) are written in these terms: work, an answer, an error, hold, abort.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from airflow_provider_lingyang.sandbox import LOOKUP, SUBMIT
from airflow_provider_lingyang.sandbox import api as methods
from airflow_provider_lingyang.sandbox.answers import Answer, Refused, error_answer, new_request_id, render
from airflow_provider_lingyang.sandbox.checks import BUSINESS_PARAMETERS, check_arguments, read_form
from airflow_provider_lingyang.sandbox.record import Entry
from airflow_provider_lingyang.sandbox.schema import is_number, parse_object

if TYPE_CHECKING:
    from airflow_provider_lingyang.sandbox.app import Sandbox


class ConnectionGone(Exception):
    """There is nobody left to answer."""


@dataclass(frozen=True)
class Raw:
    """An answer as bytes, for everything the platform's own envelope cannot say."""

    body: bytes
    content_type: str = "text/html;charset=UTF-8"
    status: int = 200
    cut: bool = False
    """Announce all of it, send half of it and reset the connection."""


class Call:
    """One request that has arrived as a whole.

    :param sandbox: where it arrived.
    :param request: the HTTP request.
    :param body: its raw body.
    """

    def __init__(self, sandbox: Sandbox, request: web.Request, body: bytes) -> None:
        self.sandbox = sandbox
        self.http = request
        self.request_id = new_request_id()
        self.pairs: list[tuple[str, str]] = []
        self.unreadable: Refused | None = None
        try:
            self.pairs = read_form(
                request.headers.get("Content-Type", ""), request.rel_url.raw_query_string, body
            )
        except Refused as refused:
            self.unreadable = refused
        self.params = dict(self.pairs)
        self.method = self.params.get("method", "")
        self.form = "json" if self.params.get("format") == "json" else "xml"
        self.simplify = self.params.get("simplify") == "true"
        names = BUSINESS_PARAMETERS.get(self.method, frozenset())
        self.struct = next((parse_object(self.params[name]) for name in names if name in self.params), None)
        self.entry = self._entry()

    def work(self, *, keep: methods.Keep = lambda position: True, visible_after: float = 0.0) -> Answer:
        """Do the work and return the answer it earns; the record knows of it before this returns.

        :param keep: which tasks of a submit the platform takes, by position.
        :param visible_after: seconds until look-ups find them.
        """
        try:
            check_arguments(self.params)
            return methods.perform(self, keep, visible_after)
        except Refused as refused:
            self.entry.outcome = "refused"
            return error_answer(refused, self.request_id)

    def error(
        self, code: int | str, msg: str = "", sub_code: str | None = None, sub_msg: str | None = None
    ) -> Answer:
        """Return an ``error_response`` with this request's id."""
        return error_answer(Refused(code, msg, sub_code, sub_msg), self.request_id)

    def raw(self, answer: Answer, form: str | None = None) -> Raw:
        """Return an answer as the bytes this request would get (or would get in another ``form``)."""
        body, content_type = render(answer, form or self.form, self.simplify)
        return Raw(body, content_type)

    async def hold(self) -> NoReturn:
        """Never answer: keep the connection until the client or the sandbox gives up."""
        self.sandbox.record.update(self.entry)
        await asyncio.Event().wait()
        self.abort()

    def abort(self) -> NoReturn:
        """Reset the connection."""
        self.ended(answered=False)
        transport = self.http.transport
        if transport is not None:
            # Without lingering the kernel says RST, not FIN: a reset, not merely an early end.
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        raise ConnectionGone

    def ended(self, *, answered: bool) -> None:
        """Write down that the answer leaves now, or that the connection is lost."""
        if self.entry.ended_at is None:
            self.entry.ended_at = self.sandbox.clock()
            self.entry.answered_at = self.entry.ended_at if answered else None
            self.sandbox.record.update(self.entry)

    async def respond(self, answer: Answer | Raw) -> web.StreamResponse:
        """Turn an answer into the HTTP response, gzip included, and write down that it leaves."""
        if isinstance(answer, Answer):
            self.entry.code, self.entry.sub_code = answer.code, answer.sub_code
            answer = self.raw(answer)
        if answer.cut:
            await self._send_half(answer)
        # The clock that judges timestamps is the one that the answer shows.
        date = formatdate(self.sandbox.gateway_now(), usegmt=True)
        headers = {"Content-Type": answer.content_type, "Date": date}
        body = answer.body
        if _accepts_gzip(self.http.headers.get("Accept-Encoding", "")):
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, 1)
        self.ended(answered=True)
        return web.Response(body=body, status=answer.status, headers=headers)

    async def _send_half(self, answer: Raw) -> NoReturn:
        headers = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body))}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(self.http)
        await response.write(answer.body[: len(answer.body) // 2])
        # A reset throws away what the client has not read yet; let it read the half it was promised.
        await asyncio.sleep(0.05)
        self.abort()

    def _entry(self) -> Entry:
        found = self.struct or {}
        items: Any = found.get("task_list") if self.method == SUBMIT else found.get("biz_ids")
        if self.method == SUBMIT and isinstance(items, list):
            items = [task.get("biz_id") for task in items if isinstance(task, dict)]
        return Entry(
            method=self.method,
            received_at=self.sandbox.clock(),
            request_id=self.request_id,
            task_unique_code=_text(found.get("task_unique_code")),
            batch_num=_text(found.get("batch_num")),
            plan_id=found["plan_id"] if is_number(found.get("plan_id")) else None,
            biz_ids=[item for item in items if isinstance(item, str)] if isinstance(items, list) else [],
            gone=_is_gone(self.http),
        )


def method_named(name: str) -> str:
    """Return a method's full name; ``submit`` and ``lookup`` are short for the two that matter."""
    return {"submit": SUBMIT, "lookup": LOOKUP}.get(name, name)


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
