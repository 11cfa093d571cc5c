"""The server: a request's way from arrival to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web

from airflow_provider_lingyang.sandbox import ROUTER, control
from airflow_provider_lingyang.sandbox.answers import Answer, Refused, error_answer
from airflow_provider_lingyang.sandbox.checks import check_protocol
from airflow_provider_lingyang.sandbox.exchange import Call, ConnectionGone, Raw
from airflow_provider_lingyang.sandbox.record import Record
from airflow_provider_lingyang.sandbox.rules import Rules

MAX_BODY = 256 * 1024 * 1024
"""Bytes a request may have; the platform documents no limit, so this is only far away."""


class Sandbox:
    """A gateway with its record, its rules and its clock.

    :param store: an SQLite file that survives restarts; default in memory.
    :param dedupe: whether a ``task_unique_code`` that was executed is not executed again. Default no: the platform
        promises nothing.
    :param answer_after: seconds after which the last person has answered.
    :param seed: who answers what.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: str = ":memory:",
        *,
        dedupe: bool = False,
        answer_after: float = 3.0,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.record = Record(store)
        self.rules = Rules()
        self.dedupe = dedupe
        self.answer_after = answer_after
        self.seed = seed
        self.clock = clock

    def runner(self) -> web.AppRunner:
        """Return the server, ready for ``setup()`` and a site to listen on."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", ROUTER, self.handle)
        control.add_routes(app, self)
        # Cancellation tells a held request that its client has given up, or that the sandbox ends; no access log,
        # because nothing of a request belongs into one.
        return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)

    def gateway_now(self) -> float:
        """Return the gateway's clock, which the ``clock`` switch can put off."""
        switch = self.rules.switch("clock")
        return self.clock() + (switch["seconds"] if switch else 0.0)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request of the router."""
        call = Call(self, request, await request.read())
        self.record.arrive(call.entry)
        try:
            return await call.respond(await self.answer(call))
        except ConnectionGone:
            return web.Response()
        except asyncio.CancelledError:
            call.ended(answered=False)
            raise
        except Exception:
            call.entry.outcome = "crashed"
            call.ended(answered=True)
            raise

    async def answer(self, call: Call) -> Answer | Raw:
        """Check a request, let a fault happen to it or do its work."""
        try:
            if call.unreadable:
                raise call.unreadable
            session_required = self.rules.switch("session_required") is not None
            check_protocol(
                call.http.method, call.pairs, now=self.gateway_now(), session_required=session_required
            )
        except Refused as refused:
            call.entry.outcome = "refused"
            return error_answer(refused, call.request_id)
        fault = self.rules.pick(call.entry, self.clock())
        if fault is None:
            return call.work()
        call.entry.outcome = f"fault:{fault.kind.name}"
        return await fault.apply(call)
