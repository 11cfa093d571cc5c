"""The gateway over HTTP, for tasks: requests."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter

from airflow_provider_lingyang.gateway import protocol
from airflow_provider_lingyang.gateway import transport_errors as transport
from airflow_provider_lingyang.gateway.error_codes import LOOK_UP
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    LingyangConfigError,
    LingyangError,
)
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, SUBMIT_PARAM, InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.protocol import Answer, SubmitReceipt
from airflow_provider_lingyang.gateway.retry import RetryPolicy
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.transport_errors import CONNECT_TIMEOUT, IDLE_LIMIT, chain, reason_of
from airflow_provider_lingyang.gateway.urllib3_connections import POOLS, NotConnectedError
from airflow_provider_lingyang.lookup.query import ResultQuery, TaskResult

T = TypeVar("T")
Departure = Callable[[], AbstractContextManager[object]]

log = logging.getLogger(__name__)

_CHUNK = 64 * 1024


class GatewayClient:
    """Calls the gateway: signs, sends, reads the answer, repeats what may be repeated.

    Keeps its connection between calls. For one thread; use it as a context manager or ``close`` it.

    :param settings: where, as whom, and how patiently.
    :param clock: returns the present moment (aware); goes into the signed timestamp.
    :param monotonic: seconds that only grow.
    :param sleep: waits a number of seconds.
    :param rng: source of jitter.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._retry = RetryPolicy(settings.max_attempts, rng or random.Random())
        self._last_used = monotonic()
        self._session = _Session()
        # Without TLS a proxy of the environment would be handed the session and the audience in the open.
        self._session.trust_env = not settings.plain_http

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._session.close()

    def call(self, method: str, params: Mapping[str, str], *, idempotent: bool = False) -> Answer:
        """Call any method of the platform.

        :param method: the platform's method name.
        :param params: business parameters as text; structs are JSON already.
        :param idempotent: executing it twice does no harm, so it is repeated when its fate is unknown.
        :return: the answer below its root element.
        :raises LingyangError: the typed reason, after the last attempt.
        """
        return self._attempts(method, params, lambda answer: answer, idempotent=idempotent)

    def submit_batch(self, request: InitiativeBatchTaskRequest) -> SubmitReceipt:
        """Submit one request; see :meth:`submit_struct`."""
        return self.submit_struct(request.to_json())

    def submit_struct(self, struct: str, *, departure: Departure = nullcontext) -> SubmitReceipt:
        """Submit one request that is serialised already.

        :param struct: the JSON of an ``InitiativeBatchTaskRequest``.
        :param departure: makes what is entered as the last thing before an attempt leaves, signed and encoded, and left
            once its answer is read; what it raises comes out, and nothing was sent.
        :return: which tasks were accepted.
        :raises RequestRefusedError: the platform refused it.
        :raises LingyangError: the typed reason; its ``replay`` says whether it may have been executed.
        """
        return self._attempts(
            SUBMIT_METHOD,
            {SUBMIT_PARAM: struct},
            protocol.read_receipt,
            idempotent=False,
            departure=departure,
        )

    def fetch_results(
        self,
        query: ResultQuery,
        biz_ids: Sequence[str],
        *,
        task_ids: Mapping[str, str | None] | None = None,
    ) -> dict[str, TaskResult]:
        """Look results up.

        :param biz_ids: whose; as many calls are made as ``max_biz_ids`` asks for.
        :param task_ids: ``biz_id`` → the task that is meant, where it is known; see :meth:`ResultQuery.read`.
        :return: what the platform told, by ``biz_id``; ids it does not know and ids nobody asked for are left out.
        """
        results: dict[str, TaskResult] = {}
        for chunk, params in query.calls(biz_ids):
            found = self._attempts(
                query.method,
                params,
                lambda answer: query.read(
                    answer.payload, answer.scrub, answer.raw_request_id, task_ids=task_ids
                ),
                idempotent=True,
            )
            results |= {biz_id: found[biz_id] for biz_id in chunk if biz_id in found}
        return results

    def _attempts(
        self,
        method: str,
        params: Mapping[str, str],
        read: Callable[[Answer], T],
        *,
        idempotent: bool,
        departure: Departure = nullcontext,
    ) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._attempt(method, params, read, departure)
            except LingyangError as error:
                delay = self._retry.delay(error, attempt, idempotent=idempotent)
                if delay is None:
                    raise
                log.warning("%s: attempt %d: %s; again in %.1f s", method, attempt, error.facts, delay)
            self._sleep(delay)

    def _attempt(
        self,
        method: str,
        params: Mapping[str, str],
        read: Callable[[Answer], T],
        departure: Departure,
    ) -> T:
        # Signed inside the attempt: the timestamp must be of this one.
        form = protocol.signed_form(self.settings, method, params, self._clock())
        scrub = Scrubber(params, {protocol.signature_of(form): "sign", **self.settings.credentials})
        with departure():
            return read(self._exchange(form, scrub))

    def _exchange(self, form: bytes, scrub: Scrubber) -> Answer:
        if self._monotonic() - self._last_used > IDLE_LIMIT:
            self._session.close()
        timeout = self.settings.timeout
        try:
            with self._session.post_form(
                self.settings.url, form, timeout=(min(CONNECT_TIMEOUT, timeout), timeout)
            ) as response:
                body = _read_body(response)
        except NotConnectedError as error:
            raise _not_connected(error, min(CONNECT_TIMEOUT, timeout)) from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # from None: the original carries the whole request, and Airflow prints what it is chained to.
            raise _transport_error(error, timeout) from None
        finally:
            self._last_used = self._monotonic()
        return protocol.read_answer(
            status=response.status_code,
            content_type=response.headers.get("Content-Type", ""),
            body=body,
            scrub=scrub,
            date=response.headers.get("Date"),
            now=self._clock(),
        )


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
        """Post a form. What is the same in every request to a URL is made once.

        Not ``post``, which would take a tenth of a submission's time for it, and look into ``~/.netrc``; nor ``send``,
        which reads the whole body of a redirect even when told not to follow it, and fails on an odd URL there.
        """
        if url != self._url:
            self._settings = self.merge_environment_settings(url, {}, True, None, None)
            self._prepared = requests.Request("POST", url, headers=protocol.HEADERS).prepare()
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
        # A SOCKS proxy has connections of its own; what fails there counts as sent, once they are made.
        if type(manager) is urllib3.ProxyManager:
            manager.pool_classes_by_scheme = POOLS
        return manager


def _read_body(response: requests.Response) -> bytes:
    # Not response.content: it would take an answer of any size. urllib3 1.x has no read1.
    read = getattr(response.raw, "read1", response.raw.read)
    pieces: list[bytes] = []
    size = 0
    while piece := read(_CHUNK, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > protocol.MAX_ANSWER_BYTES:
            raise AnswerUnreadableError(
                f"the answer is longer than {protocol.MAX_ANSWER_BYTES} bytes", hint=LOOK_UP
            )
    return b"".join(pieces)


def _not_connected(error: NotConnectedError, timeout: float) -> LingyangError:
    return transport.not_connected(
        error.reason,
        peer=error.peer,
        certificate=error.certificate,
        within=timeout if error.timed_out else None,
    )


def _transport_error(error: Exception, timeout: float) -> LingyangError:
    """Say what a failed exchange means; whatever is not provably before the request counts as after it."""
    if isinstance(error, _UNUSABLE):
        return LingyangConfigError("the gateway's URL, or the proxy's in the environment, cannot be used")
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in chain(error)):
        # A SOCKS proxy has connections of its own, which say so.
        return transport.not_connected(reason_of(error), peer="the gateway (through the proxy)")
    if "TLS CA certificate bundle" in str(error):
        return transport.no_ca_bundle()
    if isinstance(error, urllib3.exceptions.DecodeError):
        return AnswerUnreadableError("the compression of the answer is damaged", hint=LOOK_UP)
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return transport.not_in_time(timeout)
    return transport.broken(error)


_UNUSABLE = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
)
"""Raised while a request is prepared, and never later: redirects, which could raise them, are not looked at."""
