"""The control protocol of tests and demos: ``/sandbox/*``, JSON, on the same port.

=================================  =====================================================================
``GET /sandbox/record``            the report of ``report.py``; ``?requests=0``, ``?executions=0`` shorten it,
                                   ``?people=1`` adds the contacted recipients
``POST /sandbox/reset``            delete requests, tasks and faults (not the ``clock`` switch, nor the options)
``POST /sandbox/faults``           add a rule of ``rules.py``; returns it with its id
``GET /sandbox/faults``            the rules in force, with their counts
``DELETE /sandbox/faults``         delete the rules and end a ban
``GET /sandbox/kinds``             every kind of fault with its arguments
=================================  =====================================================================

Pages in a browser must not reach it: a ``Host`` that is no loopback address (a foreign name that resolves to this
machine) and a foreign ``Origin`` are refused with 403.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from airflow_provider_lingyang.sandbox.fault_registry import RuleError, catalogue
from airflow_provider_lingyang.sandbox.report import report
from airflow_provider_lingyang.sandbox.state import SandboxState

_Handler = Callable[[web.Request], Awaitable[web.Response]]


def add_routes(app: web.Application, state: SandboxState) -> None:
    """Add the control routes to an application."""

    async def get_record(request: web.Request) -> web.Response:
        parts = {
            name: request.query.get(name, default) != "0"
            for name, default in (("requests", "1"), ("executions", "1"), ("people", "0"))
        }
        return _json(report(state.record.db, **parts))

    async def reset(request: web.Request) -> web.Response:
        state.record.clear()
        state.rules.clear(keep_clock=True)
        return _json({})

    async def add_fault(request: web.Request) -> web.Response:
        try:
            source = json.loads(await request.read())
            # A lone surrogate or an infinite number would fail in every answer.
            json.dumps(source, ensure_ascii=False).encode()
            rule = state.rules.add(source)
        except RuleError as error:
            return _json({"error": str(error)}, status=400)
        except (ValueError, RecursionError, OverflowError):
            return _json({"error": "the body is not JSON that can be used"}, status=400)
        return _json(rule.as_json())

    async def list_faults(request: web.Request) -> web.Response:
        return _json({"faults": [rule.as_json() for rule in state.rules.rules]})

    async def clear_faults(request: web.Request) -> web.Response:
        state.rules.clear()
        return _json({})

    async def kinds(request: web.Request) -> web.Response:
        return web.Response(text=catalogue(), content_type="application/json")

    for method, path, handler in (
        ("GET", "/sandbox/record", get_record),
        ("POST", "/sandbox/reset", reset),
        ("POST", "/sandbox/faults", add_fault),
        ("GET", "/sandbox/faults", list_faults),
        ("DELETE", "/sandbox/faults", clear_faults),
        ("GET", "/sandbox/kinds", kinds),
    ):
        app.router.add_route(method, path, _loopback_only(handler))


def _loopback_only(handler: _Handler) -> _Handler:
    async def guarded(request: web.Request) -> web.Response:
        origin = request.headers.get("Origin")
        own = _is_loopback(request.host) and origin in (None, f"{request.scheme}://{request.host}")
        if not own:
            return _json({"error": "a foreign Host or Origin: call this from the machine itself"}, status=403)
        return await handler(request)

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _json(value: object, status: int = 200) -> web.Response:
    text = json.dumps(value, ensure_ascii=False)
    return web.Response(text=text, status=status, content_type="application/json")
