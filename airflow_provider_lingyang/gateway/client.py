"""The gateway over HTTP, for tasks: requests."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from airflow_provider_lingyang.gateway import protocol, transport
from airflow_provider_lingyang.gateway.attempts import Attempts, Call, RetryPolicy, Send, Sleep
from airflow_provider_lingyang.gateway.errors import LingyangConfigError, LingyangError
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, SUBMIT_PARAM, InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.protocol import Answer
from airflow_provider_lingyang.gateway.proxies import proxy_of
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
        self._session = _Session()
        # Without TLS a proxy of the environment could read the session and the audience.
        self._session.trust_env = not settings.plain_http

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

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
                value: object = None
                try:
                    if isinstance(step, Sleep):
                        if step.seconds:
                            value = self._sleep(step.seconds)
                    else:
                        value = self._send(step)
                except LingyangError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    def _send(self, send: Send[T]) -> T:
        with self._exchange(send.form, send.limit) as (response, body, stream):
            patience = send.read(response.status_code, response.headers, body)
            return send.result(followed=patience is not None and stream.is_followed(patience))

    @contextmanager
    def _exchange(self, form: bytes, limit: int) -> Iterator[tuple[requests.Response, bytes, Response]]:
        """Send a form; yield its complete answer while the connection is still open."""
        timeout = self.settings.timeout
        with ExitStack() as stack:
            try:
                response = self._session.post_form(
                    self.settings.url, form, timeout=(min(transport.CONNECT_TIMEOUT, timeout), timeout)
                )
                stack.enter_context(response)
                # Not urllib3's own, which releases the connection at the end of the body, and decodes the body in a
                # way that depends on installed packages.
                stream = cast(Response, response.raw._original_response)
                stack.enter_context(closing(stream))
                body = transport.AnswerBody(stream.headers.get_all("Content-Encoding", ()), limit)
                while piece := stream.read_piece(_CHUNK):
                    body.feed(piece)
                decoded = body.finish()
            except _BROKEN as error:
                # from None: the original carries the whole request, and Airflow prints what it is chained to.
                raise _transport_error(error, timeout) from None
            yield response, decoded, stream


class _Session(requests.Session):
    """Follows no redirect, keeps no cookie, and sends no password of ``~/.netrc``."""

    def __init__(self) -> None:
        super().__init__()
        self.mount("https://", _Adapter())
        self.mount("http://", _Adapter())
        self._url = ""
        self._prepared = requests.PreparedRequest()
        self._settings: Mapping[str, Any] = {}

    def post_form(self, url: str, form: bytes, *, timeout: tuple[float, float]) -> requests.Response:
        """Post a form. The common part of all requests to a URL is prepared once.

        Not ``post``, which would take a tenth of a submission's time for it, and look into ``~/.netrc``; nor ``send``,
        which reads the whole body of a redirect even when it is not followed, and fails on an odd URL there.
        """
        if url != self._url:
            proxy = proxy_of(url) if self.trust_env else None
            self._settings = {
                **self.merge_environment_settings(url, {}, True, None, None),
                "proxies": {urlsplit(url).scheme: proxy} if proxy else {},
            }
            self._prepared = requests.Request("POST", url, headers=protocol.ONE_CALL_HEADERS).prepare()
            self._url = url
        request = self._prepared.copy()
        request.body = form
        request.prepare_content_length(form)
        return self.get_adapter(url).send(request, timeout=timeout, **self._settings)


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
    if isinstance(error, _UNUSABLE):
        return LingyangConfigError("the gateway's URL, or the proxy's in the environment, cannot be used")
    if "TLS CA certificate bundle" in str(error):
        return transport.no_ca_bundle()
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return transport.not_in_time(timeout)
    return transport.broken(error)


_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
_UNUSABLE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
)
"""Raised while a request is prepared, and never later: redirects, which could raise them, are not looked at."""
