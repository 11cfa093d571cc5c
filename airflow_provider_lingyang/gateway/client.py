"""The gateway over HTTP, for tasks: requests."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway import protocol, transport
from airflow_provider_lingyang.gateway.attempts import Attempts, Call, RetryPolicy, Send, Sleep
from airflow_provider_lingyang.gateway.errors import LingyangConfigError, LingyangError
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, SUBMIT_PARAM, InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.protocol import Answer
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt, read_receipt
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.urllib3_connections import POOLS, Response, before_send_hook

T = TypeVar("T")

_CHUNK = 64 * 1024


class GatewayClient:
    """Calls the gateway from a task: signs, sends, reads the answer, retries where that is safe.

    Each attempt has a connection of its own, so that no answer can be another request's: a gateway, or a proxy before
    it, may answer late, or twice. For one thread; use it as a context manager or ``close`` it.

    :param settings: URL, credentials, timeout and number of attempts.
    :param clock: returns the present moment (aware); goes into the signed timestamp.
    :param monotonic: seconds that only grow.
    :param limiter: shared with other callers. Default None: no rate limit, and each call waits for itself only.
    :param sleep: waits a number of seconds; returns False where the wait was cut short.
    :param rng: source of jitter.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        limiter: RateLimiter | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._sleep = sleep
        retry = RetryPolicy(settings.max_attempts, rng or random.Random())
        self._attempts = Attempts(settings, retry, clock, monotonic, limiter)
        # Not a session, which follows redirects, keeps cookies and sends passwords of ~/.netrc, and takes a tenth of a
        # submission's time for it.
        self._adapter = _Adapter()

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()

    def submit_batch(self, request: InitiativeBatchTaskRequest) -> SubmitReceipt:
        """Submit one request; see :meth:`submit_struct`."""
        return self.submit_struct(request.to_json())

    def submit_struct(self, struct: str, *, before_send: Callable[[], None] | None = None) -> SubmitReceipt:
        """Submit one request that is serialised already.

        :param struct: the JSON of an ``InitiativeBatchTaskRequest``.
        :param before_send: called for each attempt when there is a connection; its error comes out, and nothing was
            sent.
        :return: which tasks were accepted.
        :raises RequestRefusedError: the platform refused it.
        :raises LingyangError: the typed reason; its ``replay`` says whether it may have been executed.
        """
        token = before_send_hook.set(before_send)
        try:
            return self.perform(Call(SUBMIT_METHOD, {SUBMIT_PARAM: struct}, read_receipt))
        finally:
            before_send_hook.reset(token)

    def call(self, method: str, params: Mapping[str, str], *, idempotent: bool = False) -> Answer:
        """Call any method of the platform.

        :param method: the platform's method name.
        :param params: business parameters as text; structs are JSON already.
        :param idempotent: executing it twice does no harm, so it is retried also where it may have been executed.
        :return: the answer below its root element.
        :raises LingyangError: the typed reason, after the last attempt.
        """
        return self.perform(Call(method, params, lambda answer: answer, idempotent))

    def perform(self, call: Call[T]) -> T:
        """Make one call; see :meth:`Attempts.of`."""
        steps = self._attempts.of(call)
        try:
            step = next(steps)
            while True:
                try:
                    value: object = None
                    if isinstance(step, Send):
                        value = self._send(step)
                    elif not isinstance(step, Sleep):
                        step.run()
                    elif step.seconds:
                        value = self._sleep(step.seconds)
                except (LingyangError, LedgerError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(self, send: Send[T]) -> T:
        with ExitStack() as stack:
            try:
                request = self._prepared.copy()
                request.body = send.form
                request.prepare_content_length(send.form)
                response = self._adapter.send(request, stream=True, **self._how)
                stack.enter_context(response)
                # Not urllib3's own, which releases the connection at the end of the body, and decodes the body in a
                # way that depends on installed packages.
                stream = cast(Response, response.raw._original_response)
                stack.enter_context(closing(stream))
                body = transport.AnswerBody(stream.headers.get_all("Content-Encoding", ()), send.limit)
                while piece := stream.read_piece(_CHUNK):
                    body.feed(piece)
                decoded = body.finish()
            except _BROKEN as error:
                # from None: the original carries the whole request, and Airflow prints what it is chained to.
                raise _transport_error(error, self.settings.timeout) from None
            patience = send.read(response.status_code, response.headers, decoded)
            return send.result(followed=patience is not None and stream.is_followed(patience))

    @cached_property
    def _prepared(self) -> requests.PreparedRequest:
        """The common part of all requests."""
        return requests.Request("POST", self.settings.url, headers=protocol.ONE_CALL_HEADERS).prepare()

    @cached_property
    def _how(self) -> dict[str, Any]:
        """How all requests are sent: settings, and what the environment says."""
        proxy = self.settings.proxy
        return {
            "timeout": (self.settings.connect_timeout, self.settings.timeout),
            "verify": transport.ca_bundle() or True,
            "proxies": {urlsplit(self.settings.url).scheme: proxy} if proxy else {},
        }


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager


def _transport_error(error: Exception, timeout: float) -> LingyangError:
    """Return the typed error of a failed exchange: unless it is provably before the request, it counts as after it."""
    # Raised while a request is prepared, and never later: redirects, which could raise them, are not looked at.
    if isinstance(error, (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError)):
        return LingyangConfigError("the gateway's URL, or the proxy's in the environment, cannot be used")
    if "TLS CA certificate bundle" in str(error):
        return transport.no_ca_bundle()
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return transport.not_in_time(timeout)
    return transport.broken(error)


_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
