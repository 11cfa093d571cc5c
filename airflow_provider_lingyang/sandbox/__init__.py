"""A gateway to try and test against: real HTTP, real signatures, faults on demand, and a judge's record.

Start it with ``python -m airflow_provider_lingyang.sandbox`` or, from Python, with
:class:`airflow_provider_lingyang.sandbox.process.SandboxProcess`. Nobody is called, texted or mailed.

It judges independently: what the wire must look like is written down once more in ``schema.py``, and of this
package it uses the signature algorithm only.

=======================  ==============================================================================
``app.py``               the server: a request's way from arrival to answer
``exchange.py``          what can be done with a request: work, answer, hold, abort
``checks.py``            what the platform checks before any work is done
``schema.py``            field → type on the wire
``api.py``               the three methods that can be called
``simulated_people.py``  who answers what, and when
``answers.py``           JSON, simplified JSON and XML
``record.py``            what happened, kept in SQLite
``report.py``            the report of it that tests and demos are judged by
``faults.py``            one small function per way to go wrong; ``fault_registry.py`` registers them
``rules.py``             when a fault fires
``control.py``           ``/sandbox/*``
``process.py``           the sandbox as a process of its own, for tests
=======================  ==============================================================================
"""

APP_KEY = "sandbox"
APP_SECRET = "sandbox-secret"
SESSION = "sandbox-session"
ROUTER = "/router/rest"

SUBMIT = "alibaba.lingyang.utouch.submit.initiative.batch.task"
LOOKUP = "sandbox.lingyang.utouch.query.task.result"
TIME = "taobao.time.get"
