"""A gateway to try and test against: real HTTP, real signatures, faults on demand, a record of all requests.

Start it with ``python -m airflow_provider_lingyang.sandbox`` or, from Python, with
:class:`airflow_provider_lingyang.sandbox.process.SandboxProcess`. It calls, texts and mails no recipient.

It checks independently: ``schema.py`` is a second definition of the wire format, and the signature algorithm is all
that it shares with the package.

========================  ======================================================================
``app.py``                the server: from a request's arrival to its answer
``state.py``              shared state: record, rules, settings, clock
``exchange.py``           one HTTP request and its response: answer, hold or abort
``checks.py``             the platform's checks before any work
``schema.py``             field → type on the wire
``api.py``                the three methods: submit, look up, time
``simulated_people.py``   the recipients' results, and when they come
``answers.py``            JSON, simplified JSON and XML
``record.py``             requests and executed tasks, kept in SQLite
``report.py``             the record as JSON, for tests and demos
``faults.py``             one small function per kind of fault
``lookup_styles.py``      the same for other forms of a look-up's answer
``fault_registry.py``     the kinds of faults by name, with their arguments
``rules.py``              conditions on which a fault fires
``control.py``            ``/sandbox/*``
``process.py``            the sandbox as a child process, for tests
========================  ======================================================================
"""

APP_KEY = "sandbox"
APP_SECRET = "sandbox-secret"
SESSION = "sandbox-session"
ROUTER = "/router/rest"

SUBMIT = "alibaba.lingyang.utouch.submit.initiative.batch.task"
LOOKUP = "sandbox.lingyang.utouch.query.task.result"
TIME = "taobao.time.get"
