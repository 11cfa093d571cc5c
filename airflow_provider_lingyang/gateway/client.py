"""The gateway over HTTP, for tasks: requests."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import requests
import urllib3.exceptions

from airflow_provider_lingyang.gateway import protocol
from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    LingyangConfigError,
    LingyangError,
    NotSentError,
    Replay,
)
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, SUBMIT_PARAM, InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.protocol import Answer, GatewaySettings, SubmitReceipt
from airflow_provider_lingyang.gateway.result_query import ResultQuery, TaskResult
from airflow_provider_lingyang.gateway.retry import RetryPolicy
from airflow_provider_lingyang.gateway.scrub import Scrubber

T = TypeVar("T")

log = logging.getLogger(__name__)

CONNECT_TIMEOUT = 10.0
"""Seconds at most for a connection to be made: a gateway that is there answers within a few."""
IDLE_LIMIT = 5.0
"""Seconds. A connection idle for longer may have been closed by the gateway without our knowing: a write
on it would be lost with nobody able to say whether it was executed."""
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
        self._session = requests.Session()
        self._session.headers.clear()
        # Without TLS a proxy of the environment would be handed the session and the audience in the open.
        self._session.trust_env = not settings.plain_http
        self._session.auth = _no_auth

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
        return self._attempts(method, params, idempotent=idempotent, read=lambda answer, _: answer)

    def submit_batch(self, request: InitiativeBatchTaskRequest) -> SubmitReceipt:
        """Submit one request; see :meth:`submit_struct`."""
        return self.submit_struct(request.to_json())

    def submit_struct(self, struct: str) -> SubmitReceipt:
        """Submit one request that is serialised already.

        :param struct: the JSON of an ``InitiativeBatchTaskRequest``.
        :return: which tasks were accepted.
        :raises RequestRefusedError: the platform refused it.
        :raises LingyangError: the typed reason; its ``replay`` says whether it may have been executed.
        """
        return self._attempts(SUBMIT_METHOD, {SUBMIT_PARAM: struct}, idempotent=False, read=protocol.read_receipt)

    def fetch_results(self, query: ResultQuery, biz_ids: Sequence[str]) -> dict[str, TaskResult]:
        """Look results up.

        :param biz_ids: whose; as many calls are made as ``max_biz_ids`` asks for.
        :return: what the platform told, by ``biz_id``; ids it does not know, and answers nobody asked for, are left out.
        """
        results: dict[str, TaskResult] = {}
        for chunk, params in query.calls(biz_ids):
            answer = self.call(query.method, params, idempotent=True)
            found = query.read(answer.payload)
            results.update((biz_id, found[biz_id]) for biz_id in chunk if biz_id in found)
        return results

    def _attempts(
        self,
        method: str,
        params: Mapping[str, str],
        *,
        idempotent: bool,
        read: Callable[[Answer, Scrubber], T],
    ) -> T:
        scrub = Scrubber(params, self.settings.credentials)
        attempt = 0
        while True:
            attempt += 1
            try:
                return read(self._attempt(method, params, scrub), scrub)
            except LingyangError as error:
                delay = self._retry.delay(error, attempt, idempotent=idempotent)
                if delay is None:
                    raise
                log.warning("%s: attempt %d: %s; again in %.1f s", method, attempt, error, delay)
            self._sleep(delay)

    def _attempt(self, method: str, params: Mapping[str, str], scrub: Scrubber) -> Answer:
        # Signed inside the attempt: the timestamp must be of this one.
        body = protocol.signed_form(self.settings, method, params, self._clock())
        if self._monotonic() - self._last_used > IDLE_LIMIT:
            self._session.close()
        timeout = self.settings.timeout
        try:
            with self._session.post(
                self.settings.url,
                data=body,
                headers=protocol.HEADERS,
                timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                content = self._read_body(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # from None: the original carries the whole request, and Airflow prints what it is chained to.
            raise _transport_error(error) from None
        finally:
            self._last_used = self._monotonic()
        return protocol.read_answer(
            status=response.status_code,
            content_type=response.headers.get("Content-Type", ""),
            body=content,
            scrub=scrub,
        )

    def _read_body(self, response: requests.Response) -> bytes:
        """Read the answer piece by piece: the socket's own time-out starts anew with every byte."""
        deadline = self._monotonic() + self.settings.timeout
        # urllib3 1.x has no read1.
        read = getattr(response.raw, "read1", response.raw.read)
        pieces: list[bytes] = []
        size = 0
        while piece := read(_CHUNK, decode_content=True):
            pieces.append(piece)
            size += len(piece)
            if size > protocol.MAX_ANSWER_BYTES:
                raise AnswerUnreadableError(f"the answer is longer than {protocol.MAX_ANSWER_BYTES} bytes")
            if self._monotonic() > deadline:
                raise AnswerLostError(
                    f"the answer was not complete within {self.settings.timeout:g} s", hint=_LOST_HINT
                )
        return b"".join(pieces)


_LOST_HINT = "It may have been executed: look the biz_ids up before sending them again."


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Keep requests from adding a password out of ~/.netrc: the signature is all there is."""
    return request


def _transport_error(error: Exception) -> LingyangError:
    """Say what a failed exchange means; whatever is not provably before the request counts as after it."""
    cause = _cause(error)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidProxyURL)):
        return LingyangConfigError("the gateway's URL, or the proxy's in the environment, cannot be used")
    if isinstance(error, requests.exceptions.SSLError) and _is_certificate(error):
        return NotSentError(
            "the gateway's TLS certificate was refused; nothing was sent",
            replay=Replay.NEVER,
            hint="Check the connection's host, and REQUESTS_CA_BUNDLE where a proxy inspects TLS.",
        )
    if "TLS CA certificate bundle" in str(error):
        return NotSentError(
            "the CA bundle that the environment names is not there; nothing was sent",
            replay=Replay.NEVER,
            hint="Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE.",
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return NotSentError(f"the proxy did not connect to the gateway ({cause}); nothing was sent")
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, urllib3.exceptions.ConnectTimeoutError):
        return NotSentError(
            f"the gateway was not reached ({cause}); nothing was sent",
            hint="Check the connection's host, the network and the proxy.",
        )
    if isinstance(error, (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError)):
        return AnswerLostError("the gateway did not answer in time", hint=_LOST_HINT)
    return AnswerLostError(f"the connection to the gateway broke ({cause})", hint=_LOST_HINT)


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(chain) < 20:
        item = pending.pop(0)
        if isinstance(item, BaseException) and item not in chain:
            chain.append(item)
            pending += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    return chain


def _is_certificate(error: BaseException) -> bool:
    return any(isinstance(item, ssl.SSLCertVerificationError) for item in _chain(error))


def _cause(error: BaseException) -> str:
    """The innermost reason in a few words, without the URLs and headers that outer ones repeat."""
    for item in reversed(_chain(error)):
        if isinstance(item, OSError) and item.strerror and not isinstance(item, requests.RequestException):
            return item.strerror
    return type(_chain(error)[-1]).__name__
