"""The server: from a request's arrival to its answer."""

from __future__ import annotations

import asyncio

from aiohttp import web

import airflow_provider_lingyang.sandbox.faults
import airflow_provider_lingyang.sandbox.lookup_styles  # noqa: F401 - both register kinds of faults
from airflow_provider_lingyang.sandbox import ROUTER, api, control
from airflow_provider_lingyang.sandbox.answers import Answer, RawAnswer, Refused, error_answer
from airflow_provider_lingyang.sandbox.checks import check_protocol
from airflow_provider_lingyang.sandbox.exchange import ConnectionGone, Exchange
from airflow_provider_lingyang.sandbox.state import SandboxState

MAX_BODY = 256 * 1024 * 1024
"""Largest request in bytes. The platform documents no limit; this one is far away."""


def create_runner(state: SandboxState) -> web.AppRunner:
    """Return the server, ready for ``setup()`` and a site to listen on."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await _handle(Exchange(state, request, await request.read()))

    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_route("*", ROUTER, handle)
    control.add_routes(app, state)
    # aiohttp cancels a held request when its client gives up or the sandbox ends. No access log: it would hold
    # the requests' data.
    return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.2)


async def _handle(exchange: Exchange) -> web.StreamResponse:
    exchange.state.record.arrive(exchange.entry)
    try:
        return await exchange.respond(await _answer(exchange))
    except ConnectionGone:
        return web.Response()
    except asyncio.CancelledError:
        exchange.record_end(answered=False)
        raise
    except Exception:
        exchange.entry.outcome = "crashed"
        exchange.record_end(answered=True)
        raise


async def _answer(exchange: Exchange) -> Answer | RawAnswer:
    """Check a request, then apply the fault of a matching rule or do its work."""
    state = exchange.state
    try:
        if exchange.form_error:
            raise exchange.form_error
        session_required = state.rules.active_switch("session_required") is not None
        check_protocol(
            exchange.request.method,
            exchange.pairs,
            now=state.gateway_now(),
            session_required=session_required,
        )
    except Refused as refused:
        exchange.entry.outcome = "refused"
        return error_answer(refused, exchange.request_id)
    fault = state.rules.fault_for(exchange.entry, state.clock())
    if fault is None:
        return api.work(exchange)
    exchange.entry.outcome = f"fault:{fault.kind.name}"
    return await fault.kind.function(exchange, **fault.arguments)
