"""``/sandbox/*``: what the tests and demos ask of the sandbox itself. JSON, on the same port.

=================================  =====================================================================
``GET /sandbox/record``            the report of ``report.py``; ``?requests=0``, ``?executions=0`` keep it short,
                                   ``?people=1`` adds everybody
``POST /sandbox/reset``            forget requests, tasks and faults (not the ``clock`` switch, nor the arguments)
``POST /sandbox/faults``           add a rule of ``rules.py``; answers it with its id
``GET /sandbox/faults``            the rules in force, how often each fired and how many requests felt it
``DELETE /sandbox/faults``         forget the rules; a ban is over
``GET /sandbox/kinds``             every kind of fault with its arguments
=================================  =====================================================================
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_lingyang.sandbox.fault_registry import RuleError, catalogue
from airflow_provider_lingyang.sandbox.report import report

if TYPE_CHECKING:
    from airflow_provider_lingyang.sandbox.app import Sandbox


def add_routes(app: web.Application, sandbox: Sandbox) -> None:
    """Add the control routes to an application."""

    async def get_record(request: web.Request) -> web.Response:
        wanted = {
            name: request.query.get(name, default) != "0"
            for name, default in (("requests", "1"), ("executions", "1"), ("people", "0"))
        }
        return _json(report(sandbox.record.db, **wanted))

    async def reset(request: web.Request) -> web.Response:
        sandbox.record.clear()
        sandbox.rules.clear(keep_clock=True)
        return _json({})

    async def add_fault(request: web.Request) -> web.Response:
        try:
            wanted = json.loads(await request.read())
            # Half a character, or a number beyond all measure, would fail in every answer.
            json.dumps(wanted, ensure_ascii=False).encode()
            rule = sandbox.rules.add(wanted)
        except RuleError as error:
            return _json({"error": str(error)}, status=400)
        except (ValueError, RecursionError, OverflowError):
            return _json({"error": "the body is not JSON that can be used"}, status=400)
        return _json(rule.shown())

    async def list_faults(request: web.Request) -> web.Response:
        return _json({"faults": [rule.shown() for rule in sandbox.rules.rules]})

    async def clear_faults(request: web.Request) -> web.Response:
        sandbox.rules.clear()
        return _json({})

    async def kinds(request: web.Request) -> web.Response:
        return web.Response(text=catalogue(), content_type="application/json")

    app.router.add_get("/sandbox/record", get_record)
    app.router.add_post("/sandbox/reset", reset)
    app.router.add_post("/sandbox/faults", add_fault)
    app.router.add_get("/sandbox/faults", list_faults)
    app.router.add_delete("/sandbox/faults", clear_faults)
    app.router.add_get("/sandbox/kinds", kinds)


def _json(value: object, status: int = 200) -> web.Response:
    text = json.dumps(value, ensure_ascii=False)
    return web.Response(text=text, status=status, content_type="application/json")
