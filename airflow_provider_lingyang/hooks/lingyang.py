"""The Airflow connection to a Lingyang gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from string import Formatter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlsplit

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.config.connection_form import CONN_TYPE, EXTRA_FIELDS, field_behaviour, widgets
from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.gateway.dates import parse_date
from airflow_provider_lingyang.gateway.error_codes import LOOK_UP
from airflow_provider_lingyang.gateway.errors import LingyangConfigError, LingyangError, RequestInvalidError
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest, explain
from airflow_provider_lingyang.gateway.protocol import SubmitReceipt
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.lookup.query import ResultQuery, TaskResult

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient

_TEST_TIMEOUT = 10.0
_CLOCK_GRAIN = timedelta(seconds=2)


def client_settings(conn: Connection) -> GatewaySettings:
    """Return what both clients need, out of a connection. Pure.

    :raises LingyangConfigError: naming the connection and the field that cannot be right.
    """
    extra = _extra(conn)
    options: dict[str, Any] = {}
    try:
        for name, kind in (("timeout", float), ("max_attempts", int)):
            if extra.get(name) not in (None, ""):
                options[name] = kind(str(extra[name]))
    except ValueError:
        raise LingyangConfigError(f"connection {conn.conn_id!r}: {name} must be a number") from None
    if extra.get("sign_method"):
        options["sign_method"] = str(extra["sign_method"])
    if conn.port or conn.schema:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: host takes the full gateway URL; leave port and schema empty "
            "(in a URI, write its / as %2F and its : as %3A)"
        )
    try:
        return GatewaySettings(
            url=(conn.host or "").strip().rstrip("/"),
            app_key=(conn.login or "").strip(),
            app_secret=(conn.password or "").strip(),
            session_token=str(extra.get("session_token") or "").strip() or None,
            **options,
        )
    except LingyangConfigError as error:
        raise LingyangConfigError(f"connection {conn.conn_id!r}: {error}") from None


def max_requests_per_second(conn: Connection) -> float | None:
    """Return how fast a connection allows requests to leave, or None. Pure.

    :raises LingyangConfigError: it is no number, or less than one request an hour.
    """
    value = _extra(conn).get("max_requests_per_second")
    if value in (None, ""):
        return None
    try:
        rate = float(str(value))
    except ValueError:
        rate = 0.0
    if not 1 / 3600 <= rate < float("inf"):
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: max_requests_per_second must be at least 1/3600, one request an hour"
        )
    return rate


def lookup_settle(conn: Connection) -> float:
    """Return after how many seconds a look-up knows of every executed request: by default 30, or twice the timeout.

    :raises LingyangConfigError: it is no number, or less than the timeout.
    """
    timeout = client_settings(conn).timeout
    value = _extra(conn).get("lookup_settle")
    if value in (None, ""):
        return max(30.0, 2 * timeout)
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: lookup_settle must be a number of seconds up to 86400"
        )
    if seconds < timeout:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: lookup_settle ({seconds:g}) must be at least timeout ({timeout:g}): a "
            "request may be under way for that long, and who is not found before it arrives would be contacted twice"
        )
    return seconds


def dedupes_by_code(conn: Connection) -> bool:
    """Return whether the user states that the gateway executes a ``task_unique_code`` only once.

    :raises LingyangConfigError: it is neither true nor false.
    """
    value = _extra(conn).get("dedupes_by_code")
    told = {"": False, "none": False, "false": False, "true": True}.get(str(value).strip().lower())
    if told is None:
        raise LingyangConfigError(f"connection {conn.conn_id!r}: dedupes_by_code must be true or false")
    return told


def result_query(conn: Connection) -> ResultQuery | None:
    """Return the look-up that a connection describes, or None. Pure.

    :raises LingyangConfigError: it describes one that cannot be right.
    """
    value = _extra(conn).get("result_query")
    # The form of Airflow 3 shows an empty object as a list.
    if value in (None, "", {}, []):
        return None
    return ResultQuery.parse(value, where=f"connection {conn.conn_id!r}")


def console_url(conn: Connection) -> str | None:
    """Return the address of a plan in the console, with ``{plan_id}`` in its number's place, or None. Pure.

    :raises LingyangConfigError: it is no address that a browser can be sent to, or names another place.
    """
    value = _extra(conn).get("console_url")
    if value in (None, ""):
        return None
    template = str(value).strip()
    try:
        address = urlsplit(template)
        parts = list(Formatter().parse(template))
    except ValueError:
        address, parts = urlsplit(""), []
    places = [name + (f":{form}" if form else "") for _, name, form, _ in parts if name is not None]
    plain = template.isprintable() and " " not in template and all(part[3] is None for part in parts)
    web = address.scheme in ("http", "https") and address.hostname and "@" not in address.netloc
    if not (web and plain) or set(places) - {"plan_id"}:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: console_url must be an address such as "
            "'https://console.example/plans/{plan_id}': http or https, without a user, and with no other place in "
            "braces than {plan_id}"
        )
    return template


def _extra(conn: Connection) -> Mapping[str, Any]:
    # Not extra_dejson: it turns broken JSON into an empty dict, and a missing session into a riddle.
    try:
        extra = json.loads(conn.extra or "{}")
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise LingyangConfigError(f"connection {conn.conn_id!r}: extra must be a JSON object")
    if unknown := sorted(extra.keys() - set(EXTRA_FIELDS)):
        names = ", ".join(name[:40] for name in unknown)
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: extra holds unknown {names}; it takes {', '.join(EXTRA_FIELDS)}"
        )
    return extra


class LingyangHook(BaseHook):
    """Calls the gateway of Lingyang customer-service cloud with an Airflow connection's credentials.

    Nothing happens before the first call; the connection to the gateway is kept between calls.

    :param lingyang_conn_id: the Airflow connection: host = full gateway URL, login = App key, password =
        App secret, extra as the README lists. Default ``lingyang_default``.
    :param sleep: waits a number of seconds before a request is repeated.
    """

    conn_name_attr = "lingyang_conn_id"
    default_conn_name = "lingyang_default"
    conn_type = CONN_TYPE
    hook_name = "Lingyang customer service cloud"

    def __init__(
        self,
        lingyang_conn_id: str = default_conn_name,
        *,
        sleep: Callable[[float], None] = time.sleep,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lingyang_conn_id = lingyang_conn_id
        self._sleep = sleep
        self._connection: Connection | None = None
        self._client: GatewayClient | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields of the connection form that Airflow does not have itself. Asked before Airflow 3.2."""
        return widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return what becomes of the fields that Airflow has itself. Asked before Airflow 3.2."""
        return field_behaviour()

    @property
    def settings(self) -> GatewaySettings:
        """What the connection says about the gateway. Its credentials are masked in logs from here on."""
        return client_settings(self._get_connection())

    @property
    def result_query(self) -> ResultQuery | None:
        """The look-up that the connection describes, if it describes one."""
        return result_query(self._get_connection())

    @property
    def max_requests_per_second(self) -> float | None:
        """How fast the connection allows requests to leave; None: as fast as they are answered."""
        return max_requests_per_second(self._get_connection())

    @property
    def lookup_settle(self) -> float:
        """After how many seconds a look-up knows of every executed request."""
        return lookup_settle(self._get_connection())

    @property
    def dedupes_by_code(self) -> bool:
        """Whether the gateway executes a ``task_unique_code`` only once, as the connection states."""
        return dedupes_by_code(self._get_connection())

    def plan_url(self, plan_id: int) -> str | None:
        """Return the address of a plan in the console, or None where the connection has no ``console_url``.

        :raises LingyangConfigError: its ``console_url`` cannot be right.
        """
        template = console_url(self._get_connection())
        return None if template is None else template.format(plan_id=plan_id)

    def new_client(self, *, max_attempts: int | None = None) -> GatewayClient:
        """Return one more client, for a thread of its own.

        :param max_attempts: how often it sends one request at most. Default None: as the connection says.
        """
        settings = self.settings
        if max_attempts is not None:
            settings = replace(settings, max_attempts=max_attempts)
        return GatewayClient(settings, sleep=self._sleep)

    def get_conn(self) -> GatewayClient:
        """Return the client, which keeps its connection to the gateway.

        :raises LingyangConfigError: the Airflow connection is missing or cannot be right.
        """
        if self._client is None:
            self._client = GatewayClient(self.settings, sleep=self._sleep)
        return self._client

    async def aget_conn(self) -> AsyncGatewayClient:
        """Return a client for the running event loop, from the same settings; close it yourself.

        :raises LingyangConfigError: the Airflow connection is missing or cannot be right.
        """
        # Only here: a task that submits would import aiohttp for nothing.
        from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient

        if self._connection is None:
            with self._missing_told():
                conn = await get_async_connection(self.lingyang_conn_id, self)
            self._use(conn)
        return AsyncGatewayClient(
            self.settings, max_requests_per_second=max_requests_per_second(self._get_connection())
        )

    def close(self) -> None:
        """Give the connection to the gateway back."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def submit_batch(self, request: InitiativeBatchTaskRequest | Mapping[str, Any]) -> SubmitReceipt:
        """Submit one request: tasks of one plan and one ``batch_num``.

        It is sent again only when it provably was not executed.

        :param request: the model, or a dict with the API page's names.
        :return: which tasks were accepted; ``receipt.task_ids`` has the task id of each ``biz_id``.
        :raises RequestInvalidError: it breaks the API page's rules; nothing was sent.
        :raises LingyangError: the typed reason; its ``replay`` says whether it may have been executed.
        """
        if not isinstance(request, InitiativeBatchTaskRequest):
            if not isinstance(request, Mapping):
                raise RequestInvalidError(f"the request must be a dict; it is a {type(request).__name__}")
            try:
                request = InitiativeBatchTaskRequest.model_validate(dict(request))
            except ValidationError as error:
                problems = "; ".join(f"{field} {reason}" for field, reason in explain(error)[:20])
                raise RequestInvalidError(f"the request is not valid, nothing was sent: {problems}") from None
        return self.get_conn().submit_batch(request)

    def fetch_results(
        self, biz_ids: Sequence[str], *, result_query: ResultQuery | Mapping[str, Any] | None = None
    ) -> dict[str, TaskResult]:
        """Look up what became of recipients.

        :param biz_ids: whose; ids the gateway does not know are missing from what is returned.
        :param result_query: how to look up; default: the connection's.
        :raises LingyangConfigError: no look-up is described.
        :raises LingyangError: the typed reason.
        """
        if isinstance(biz_ids, (str, bytes)):
            raise RequestInvalidError("biz_ids must be a list, also for one")
        if result_query is not None:
            query: ResultQuery | None = ResultQuery.parse(result_query, where="result_query")
        else:
            query = self.result_query
        if query is None:
            raise LingyangConfigError(
                f"connection {self.lingyang_conn_id!r} describes no result_query: the platform has no public "
                "look-up for these tasks, so describe the one your account has"
            )
        return self.get_conn().fetch_results(query, biz_ids)

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call any method of the platform.

        :param method: the platform's method name, such as ``taobao.time.get``.
        :param params: business parameters: text as it is, numbers and booleans as text, dicts and lists
            as compact JSON; None is left out. Repeated only when it provably was not executed.
        :return: the answer below its root element.
        :raises RequestInvalidError: it is no call; nothing was sent.
        :raises LingyangError: the typed reason.
        """
        params = params or {}
        named = isinstance(params, Mapping) and all(isinstance(name, str) for name in params)
        if not (isinstance(method, str) and named):
            raise RequestInvalidError(
                "call takes the platform's name of a method, and a dict with names of parameters as its keys"
            )
        try:
            texts = {name: _parameter(value) for name, value in params.items() if value is not None}
        except PydanticCustomError:
            raise RequestInvalidError(
                f"a parameter of {method} holds a value that JSON cannot hold"
            ) from None
        return dict(self.get_conn().call(method, texts).payload)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the gateway for its time, which reaches nobody, and say in one sentence what works or does not.

        Every field is read first. Tells apart: host, TLS, app key, signature, clock (in seconds), session, permission,
        IP allow-list.
        Runs in Airflow's API server: one attempt, ten seconds at most for the connection, and for the answer.

        :return: whether it works, and the sentence.
        """
        try:
            settings = replace(
                self.settings, timeout=min(_TEST_TIMEOUT, self.settings.timeout), max_attempts=1
            )
            # What only submitting or waiting needs is told now rather than then.
            _ = self.max_requests_per_second, self.lookup_settle, self.dedupes_by_code, self.plan_url(0)
            described = self.result_query is not None
            with GatewayClient(settings) as client:
                asked = datetime.now(UTC)
                answer = client.call("taobao.time.get", {})
                skew = _skew_seconds(answer.payload.get("time"), asked, datetime.now(UTC))
        except LingyangError as error:
            # `airflow connections test` takes [code …] for markup, and shows nothing of it.
            # Airflow's form tests what it holds under a name that nobody has given.
            text = str(error).removeprefix(f"connection {self.lingyang_conn_id!r}: ")
            # That a request may have been executed is not for one that reaches nobody.
            return False, text.replace(LOOK_UP, "").strip().translate(str.maketrans("[]", "()"))
        clock = (
            f"this machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}" if skew else ""
        )
        missing = "" if described else "no result_query is described, which a result sensor needs"
        return True, "; ".join(
            filter(None, ("The gateway accepts the App key and the signature", clock, missing))
        )

    def _get_connection(self) -> Connection:
        if self._connection is None:
            with self._missing_told():
                conn = self.get_connection(self.lingyang_conn_id)
            self._use(conn)
        assert self._connection is not None
        return self._connection

    @contextmanager
    def _missing_told(self) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException:
            raise LingyangConfigError(
                f"the Airflow connection {self.lingyang_conn_id!r} is not defined, or cannot be read: "
                "create it with type lingyang, host = gateway URL, login = App key, password = App secret. "
                "(Outside a task, Airflow 3 sees only AIRFLOW_CONN_… variables and secrets backends.)"
            ) from None

    def _use(self, conn: Connection) -> None:
        if conn.conn_type and conn.conn_type != self.conn_type:
            raise LingyangConfigError(
                f"connection {self.lingyang_conn_id!r} is of type {conn.conn_type!r}, not {self.conn_type!r}"
            )
        settings = client_settings(conn)
        for secret in settings.credentials:
            mask_secret(secret)
            mask_secret(quote_plus(secret))
        self._connection = conn


def _skew_seconds(told: Any, asked: datetime, answered: datetime) -> float:
    """Return by how much this machine's clock is ahead; 0 when the difference is no more than the call explains."""
    try:
        gateway = parse_date(str(told))
    except ValueError:
        return 0.0
    # The gateway tells whole seconds.
    if asked - _CLOCK_GRAIN <= gateway <= answered + _CLOCK_GRAIN:
        return 0.0
    return (answered - gateway).total_seconds()


def _parameter(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return dump_json(value)
    return str(value)
