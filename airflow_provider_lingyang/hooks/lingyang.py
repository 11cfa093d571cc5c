"""The Airflow connection to a Lingyang gateway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret
from pydantic import ValidationError

from airflow_provider_lingyang.config.connection import (
    CONN_TYPE,
    EXTRA_FIELDS,
    LingyangConnection,
    field_behaviour,
    widgets,
)
from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.gateway.dates import parse_date
from airflow_provider_lingyang.gateway.errors import (
    LOOK_UP,
    LingyangConfigError,
    LingyangError,
    RequestInvalidError,
)
from airflow_provider_lingyang.gateway.fast_path import request_json
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest, explain
from airflow_provider_lingyang.gateway.parameters import parameter_texts
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.lookup.calls import LookUp, run_blocking
from airflow_provider_lingyang.lookup.query import ResultQuery, TaskResult
from airflow_provider_lingyang.lookup.result import LookupAnswer

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient

_CLOCK_GRAIN = timedelta(seconds=2)
_ACCEPTED_SKEW = timedelta(minutes=11)
"""Beyond 10 minutes the gateway refuses a call."""


class LingyangHook(BaseHook):
    """Calls the gateway of Lingyang customer-service cloud with an Airflow connection's credentials.

    Nothing happens before the first call. Each request has a connection of its own.

    :param lingyang_conn_id: the Airflow connection: host = full gateway URL, login = App key, password =
        App secret, extra as the README lists. Default ``lingyang_default``.
    :param sleep: waits a number of seconds before a request is sent or repeated; returns False where the wait was cut
        short.
    """

    conn_name_attr = "lingyang_conn_id"
    default_conn_name = "lingyang_default"
    conn_type = CONN_TYPE
    hook_name = "Lingyang customer service cloud"
    # Asked before Airflow 3.2.
    get_connection_form_widgets = staticmethod(widgets)
    get_ui_field_behaviour = staticmethod(field_behaviour)

    def __init__(
        self,
        lingyang_conn_id: str = default_conn_name,
        *,
        sleep: Callable[[float], object] = time.sleep,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lingyang_conn_id = lingyang_conn_id
        self._sleep = sleep
        self._connection: Connection | None = None
        self._client: GatewayClient | None = None

    @property
    def settings(self) -> GatewaySettings:
        """The settings of the connection. Its credentials are masked in logs from the first use on."""
        return _client_settings(self._get_connection())

    @property
    def result_query(self) -> ResultQuery | None:
        """The look-up that the connection describes, if it describes one."""
        described = self.read("result_query").result_query
        # The form of Airflow 3 shows an empty object as a list.
        if described in (None, {}, []):
            return None
        return ResultQuery.parse(described, where=f"connection {self.lingyang_conn_id!r}")

    @property
    def max_requests_per_second(self) -> float | None:
        """The connection's rate limit; None: as fast as requests are answered."""
        return self.read("max_requests_per_second").max_requests_per_second

    @cached_property
    def limiter(self) -> RateLimiter:
        """The rate limit that all calls of this process with the same host and App key share.

        Assign another one, before the first call, that other processes share, too.
        """
        settings = self.settings
        return RateLimiter.of_process(settings.url, settings.app_key, self.max_requests_per_second)

    @property
    def lookup_settle(self) -> float:
        """Seconds after which a look-up knows of every executed request: by default 30, or twice the timeout.

        :raises LingyangConfigError: it is no number, or less than the timeout.
        """
        timeout, seconds = self.settings.timeout, self.read("lookup_settle").lookup_settle
        if seconds is None:
            return max(30.0, 2 * timeout)
        if seconds < timeout:
            raise LingyangConfigError(
                f"connection {self.lingyang_conn_id!r}: lookup_settle ({seconds:g}) must be at least timeout "
                f"({timeout:g}): a request may be under way for that long, and a recipient that is not found before it "
                "arrives would be contacted twice"
            )
        return seconds

    def read(self, *fields: str) -> LingyangConnection:
        """Return the connection with these fields checked: one that is not used holds up no call.

        :raises LingyangConfigError: one of them cannot be right.
        """
        return LingyangConnection.read(self._get_connection(), *fields)

    def plan_url(self, plan_id: int) -> str | None:
        """Return the address of a plan in the console, or None where the connection has no ``console_url``.

        :raises LingyangConfigError: its ``console_url`` cannot be right.
        """
        template = self.read("console_url").console_url
        return None if template is None else template.format(plan_id=plan_id)

    def new_client(self) -> GatewayClient:
        """Return one more client, for a thread of its own, that sends each request once, without the limiter."""
        return GatewayClient(replace(self.settings, max_attempts=1), sleep=self._sleep)

    def get_conn(self) -> GatewayClient:
        """Return the client, which is the same at each call.

        :raises LingyangConfigError: the Airflow connection is missing or cannot be right.
        """
        if self._client is None:
            self._client = GatewayClient(self.settings, limiter=self.limiter, sleep=self._sleep)
        return self._client

    async def aget_conn(self) -> AsyncGatewayClient:
        """Return a client for the running event loop, from the same settings; close it yourself.

        :raises LingyangConfigError: the Airflow connection is missing or cannot be right.
        """
        # Only here: a task that submits would import aiohttp for nothing.
        from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient

        if self._connection is None:
            with self._explain_missing():
                self._connection = self._masked(await get_async_connection(self.lingyang_conn_id, self))
        return AsyncGatewayClient(self.settings, limiter=self.limiter)

    def close(self) -> None:
        """Close the client."""
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
        if isinstance(request, InitiativeBatchTaskRequest):
            return self.get_conn().submit_batch(request)
        if not isinstance(request, Mapping):
            raise RequestInvalidError(f"the request must be a dict; it is a {type(request).__name__}")
        try:
            numbers = self.read("international_numbers").international_numbers
            struct = request_json(request, allow_international=numbers == "allow")
        except ValidationError as error:
            problems = "; ".join(f"{field} {reason}" for field, reason in explain(error)[:20])
            raise RequestInvalidError(f"the request is not valid, nothing was sent: {problems}") from None
        return self.get_conn().submit_struct(struct)

    def fetch_results(
        self, biz_ids: Sequence[str], *, result_query: ResultQuery | Mapping[str, Any] | None = None
    ) -> dict[str, TaskResult]:
        """Look up the results of recipients.

        :param biz_ids: the recipients' ids; those that the gateway does not know are missing in the returned dict.
        :param result_query: how to look up; default: the connection's.
        :raises LingyangConfigError: no look-up is described.
        :raises LingyangError: the typed reason.
        """
        query, client = self._described_query(biz_ids, result_query), self.get_conn()
        return run_blocking(LookUp(client.perform, query, client.clock).fetch(biz_ids))

    def look_up(self, biz_ids: Sequence[str]) -> LookupAnswer:
        """Look recipients up as evidence of what was executed: every result, and the absences that are proven.

        Uses the connection's ``result_query``; raises as :meth:`fetch_results` does.
        """
        query, client = self._described_query(biz_ids, None), self.get_conn()
        return run_blocking(LookUp(client.perform, query, client.clock).prove(biz_ids))

    def _described_query(
        self, biz_ids: Sequence[str], result_query: ResultQuery | Mapping[str, Any] | None
    ) -> ResultQuery:
        if isinstance(biz_ids, (str, bytes)):
            raise RequestInvalidError("biz_ids must be a list, also for one")
        if result_query is not None:
            return ResultQuery.parse(result_query, where="result_query")
        if (query := self.result_query) is None:
            raise LingyangConfigError(
                f"connection {self.lingyang_conn_id!r} describes no result_query: the platform has no public "
                "look-up for these tasks, so describe the one your account has"
            )
        return query

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call any method of the platform. It is sent again only when it provably was not executed.

        :param method: the platform's method name, such as ``taobao.time.get``.
        :param params: business parameters by name: text as it is; numbers and Booleans as JSON writes them; a
            ``datetime`` as ``yyyy-MM-dd HH:mm:ss`` in China's time (a naive one already is), other dates as ISO text;
            dicts, lists and tuples as compact JSON. None and NaT are left out. Bytes, sets, NaN and infinite numbers
            are refused, also inside.
        :return: the answer below its root element.
        :raises RequestInvalidError: it is no call, or names the parameter that is refused; nothing was sent.
        :raises LingyangError: the typed reason.
        """
        params = params or {}
        named = isinstance(params, Mapping) and all(isinstance(name, str) for name in params)
        if not (isinstance(method, str) and named):
            raise RequestInvalidError(
                "call takes the platform's name of a method, and a dict with names of parameters as its keys"
            )
        return dict(self.get_conn().call(method, parameter_texts(method, params)).payload)

    def test_connection(self) -> tuple[bool, str]:
        """Ask the gateway for its time, which contacts no recipient, and say in one sentence what works or does not.

        Every field is read first. Tells apart: host, TLS, app key, signature, clock (in seconds), session, permission,
        IP allow-list. In Airflow's API server: one attempt, ten seconds at most to connect, and for the answer.

        :return: whether it works, and the sentence.
        """
        try:
            settings = replace(self.settings, timeout=min(10.0, self.settings.timeout), max_attempts=1)
            # Fields that only submitting or waiting needs are checked now rather than then.
            self.read(*EXTRA_FIELDS)
            _ = self.lookup_settle
            query = self.result_query
            with GatewayClient(settings) as client:
                asked = datetime.now(UTC)
                answer = client.call("taobao.time.get", {})
                skew = _skew_seconds(answer.payload.get("time"), asked, datetime.now(UTC))
        except LingyangError as error:
            # Airflow's form tests its fields as a connection with a name of its own.
            return False, _sentence_of(error).removeprefix(f"connection {self.lingyang_conn_id!r}: ")
        if skew is None:
            return False, (
                "What answered is not the gateway: its answer holds no time. Check that the connection's host is the "
                "full gateway URL, such as https://eco.taobao.com/router/rest"
            )
        said = ["The gateway accepts the App key and the signature"]
        if skew:
            said.append(f"this machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}")
        missing = "no result_query is described, which a result sensor needs"
        return True, "; ".join([*said, missing if query is None else query.proves])

    def _get_connection(self) -> Connection:
        if self._connection is None:
            with self._explain_missing():
                self._connection = self._masked(self.get_connection(self.lingyang_conn_id))
        return self._connection

    @contextmanager
    def _explain_missing(self) -> Iterator[None]:
        try:
            yield
        except AirflowNotFoundException:
            raise LingyangConfigError(
                f"the Airflow connection {self.lingyang_conn_id!r} is not defined, or cannot be read: "
                "create it with type lingyang, host = gateway URL, login = App key, password = App secret. "
                "(Outside a task, Airflow 3 sees only AIRFLOW_CONN_… variables and secrets backends.)"
            ) from None

    def _masked(self, conn: Connection) -> Connection:
        if conn.conn_type and conn.conn_type != self.conn_type:
            raise LingyangConfigError(
                f"connection {self.lingyang_conn_id!r} is of type {conn.conn_type!r}, not {self.conn_type!r}"
            )
        for secret in _client_settings(conn).credentials:
            mask_secret(secret)
            mask_secret(quote_plus(secret))
        return conn


def _client_settings(conn: Connection) -> GatewaySettings:
    fields = LingyangConnection.read(
        conn, "host", "login", "password", "session_token", "sign_method", "timeout", "max_attempts"
    )
    if conn.port or conn.schema:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: host takes the full gateway URL; leave port and schema empty "
            "(in a URI, write its / as %2F and its : as %3A)"
        )
    try:
        return GatewaySettings(
            url=fields.host.rstrip("/"),
            app_key=fields.login,
            app_secret=fields.password,
            session_token=fields.session_token or None,
            sign_method=fields.sign_method,
            timeout=fields.timeout,
            max_attempts=fields.max_attempts,
        )
    except LingyangConfigError as error:
        raise LingyangConfigError(f"connection {conn.conn_id!r}: {error}") from None


def _skew_seconds(reported: Any, asked: datetime, answered: datetime) -> float | None:
    """Return by how much this machine's clock is ahead; 0 when the difference is no more than the call explains.

    :return: None: no gateway that accepted the call's timestamp reports such a time.
    """
    try:
        gateway = parse_date(str(reported))
    except ValueError:
        return None
    if not asked - _ACCEPTED_SKEW <= gateway <= answered + _ACCEPTED_SKEW:
        return None
    # The gateway reports whole seconds.
    if asked - _CLOCK_GRAIN <= gateway <= answered + _CLOCK_GRAIN:
        return 0.0
    return (answered - gateway).total_seconds()


def _sentence_of(error: LingyangError) -> str:
    """Strip an error of the texts of the answer, which may hold anything, and return what is left."""
    error.msg = error.sub_msg = None
    # "It may have been executed" is no hint for a call that contacts no recipient.
    error.hint = (error.hint or "").replace(LOOK_UP, "").strip()
    # `airflow connections test` takes square brackets for markup, and hides their content.
    return str(error).translate(str.maketrans("[]", "()"))
