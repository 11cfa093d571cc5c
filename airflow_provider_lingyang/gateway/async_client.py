"""The gateway over HTTP, for event loops: aiohttp."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
import certifi

from airflow_provider_lingyang.gateway import protocol
from airflow_provider_lingyang.gateway import transport_errors as transport
from airflow_provider_lingyang.gateway.error_codes import LOOK_UP
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    LingyangConfigError,
    LingyangError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.protocol import Answer
from airflow_provider_lingyang.gateway.retry import RetryPolicy
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.lookup.query import ResultQuery, TaskResult

T = TypeVar("T")

log = logging.getLogger(__name__)

_TLS_GOODBYE = 0.25
_ROUND = 0.01
"""Seconds for which calls may keep the loop busy until it goes round: answers may come by the dozen."""
_UNUSABLE = "the gateway's URL, or the proxy's in the environment, cannot be used"


class AsyncGatewayClient:
    """Calls the gateway from an event loop: signs, sends, reads the answer, repeats what may be repeated.

    Many calls at a time share one session. One throttle answer holds all of them back. Use it as an async context
    manager, or ``close`` it.

    :param settings: where, as whom, and how patiently.
    :param max_requests_per_second: how fast calls may leave. Default None: as fast as they are answered.
    :param tls: see :func:`tls_context`; it takes a while to make, so make it off the loop. Default None: made here.
    :param clock: returns the present moment (aware); goes into the signed timestamp.
    :param monotonic: seconds that only grow.
    :param sleep: waits a number of seconds.
    :param rng: source of jitter.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        max_requests_per_second: float | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self._interval = 1 / max_requests_per_second if max_requests_per_second else 0.0
        self._tls = tls
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._retry = RetryPolicy(settings.max_attempts, rng or random.Random())
        self._next = 0.0
        self._round: float | None = None
        self._session: aiohttp.ClientSession | None = None
        # Without TLS a proxy of the environment would be handed the session and the audience in the open.
        self._proxy = None if settings.plain_http else proxy_of(settings.url)

    async def __aenter__(self) -> AsyncGatewayClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            if not self.settings.plain_http:
                # TLS ends with an exchange that aiohttp does not wait for (its documentation: "Graceful Shutdown").
                await asyncio.sleep(_TLS_GOODBYE)

    async def call(self, method: str, params: Mapping[str, str], *, idempotent: bool = False) -> Answer:
        """Call any method of the platform.

        :param method: the platform's method name.
        :param params: business parameters as text; structs are JSON already.
        :param idempotent: executing it twice does no harm, so it is repeated when its fate is unknown.
        :return: the answer below its root element.
        :raises LingyangError: the typed reason, after the last attempt.
        """
        return await self._attempts(method, params, lambda answer: answer, idempotent=idempotent)

    async def fetch_results(
        self,
        query: ResultQuery,
        biz_ids: Sequence[str],
        *,
        task_ids: Mapping[str, str | None] | None = None,
    ) -> dict[str, TaskResult]:
        """Look results up.

        :param biz_ids: whose; as many calls are made, one after the other, as ``max_biz_ids`` asks for.
        :param task_ids: ``biz_id`` → the task that is meant, where it is known; see :meth:`ResultQuery.read`.
        :return: what the platform told, by ``biz_id``; ids it does not know and ids nobody asked for are left out.
        """
        results: dict[str, TaskResult] = {}
        for chunk, params in query.calls(biz_ids):
            found = await self._attempts(
                query.method,
                params,
                lambda answer: query.read(
                    answer.payload, answer.scrub, answer.raw_request_id, task_ids=task_ids
                ),
                idempotent=True,
            )
            results |= {biz_id: found[biz_id] for biz_id in chunk if biz_id in found}
        return results

    async def _attempts(
        self,
        method: str,
        params: Mapping[str, str],
        read: Callable[[Answer], T],
        *,
        idempotent: bool,
    ) -> T:
        attempt = 0
        while True:
            attempt += 1
            await self._turn()
            try:
                return await self._attempt(method, params, read)
            except LingyangError as error:
                delay = self._retry.delay(error, attempt, idempotent=idempotent)
                if delay is None:
                    raise
                log.warning("%s: attempt %d: %s; again in %.1f s", method, attempt, error.facts, delay)
                if isinstance(error, ThrottledError):
                    # Everybody waits, so that the first one back does not meet the same answer as the last.
                    self._next = max(self._next, self._monotonic() + delay)
                    continue
            await self._sleep(delay)

    async def _turn(self) -> None:
        """Wait until the next call may leave."""
        await self._breathe()
        # Who waits with others looks again: one of them has gone first.
        while (wait := self._next - self._monotonic()) > 0:
            await self._sleep(wait)
            await self._breathe()
        self._next = self._monotonic() + self._interval

    async def _breathe(self) -> None:
        """Leave the loop to whoever else waits for it, once it has been kept busy for long."""
        loop = asyncio.get_running_loop()
        while self._round is not None and loop.time() - self._round > _ROUND:  # noqa: ASYNC110  # no event, a round
            await asyncio.sleep(0)
        if self._round is None:
            self._round = loop.time()
            loop.call_soon(self._end_round)

    def _end_round(self) -> None:
        self._round = None

    async def _attempt(self, method: str, params: Mapping[str, str], read: Callable[[Answer], T]) -> T:
        # Signed inside the attempt: the timestamp must be of this one.
        form = protocol.signed_form(self.settings, method, params, self._clock())
        scrub = Scrubber(params, {protocol.signature_of(form): "sign", **self.settings.credentials})
        session = self._session or self._open()
        try:
            async with session.post(
                self.settings.url,
                data=form,
                headers=protocol.HEADERS,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                body = await _read_body(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # from None: the original carries the whole request, and Airflow prints what it is chained to.
            raise _transport_error(error, self.settings.timeout) from None
        await self._breathe()
        answer = protocol.read_answer(
            status=response.status,
            content_type=response.headers.get("Content-Type", ""),
            body=body,
            scrub=scrub,
            date=response.headers.get("Date"),
            now=self._clock(),
        )
        return read(answer)

    def _open(self) -> aiohttp.ClientSession:
        timeout = self.settings.timeout
        connect = min(transport.CONNECT_TIMEOUT, timeout)
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=transport.IDLE_LIMIT,
            ssl=True if self.settings.plain_http else self._tls or tls_context(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            # A little more for all of it, so that a connection that is not made is told as what it is.
            timeout=aiohttp.ClientTimeout(total=timeout + 0.1, sock_connect=connect),
            cookie_jar=aiohttp.DummyCookieJar(),
            # It would send a password of ~/.netrc, too.
            trust_env=False,
        )
        return self._session


def tls_context() -> ssl.SSLContext:
    """Return what verifies the gateway's certificate: with the bundles that the client for tasks would use.

    :raises NotSentError: the environment names a CA bundle that cannot be read.
    """
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    folder = os.path.isdir(bundle)  # noqa: PTH112  # a variable's text, as it is
    try:
        return ssl.create_default_context(
            cafile=None if folder else bundle, capath=bundle if folder else None
        )
    except OSError:
        raise transport.no_ca_bundle() from None


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, or None."""
    proxies = getproxies_environment()
    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        usable = urlsplit(proxy).scheme in ("http", "https") and bool(urlsplit(proxy).hostname)
        _ = urlsplit(proxy).port
    except ValueError:
        usable = False
    if not usable:
        raise LingyangConfigError(_UNUSABLE)
    return proxy


async def _read_body(response: aiohttp.ClientResponse) -> bytes:
    # Not response.read(): it would take an answer of any size.
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > protocol.MAX_ANSWER_BYTES:
            raise AnswerUnreadableError(
                f"the answer is longer than {protocol.MAX_ANSWER_BYTES} bytes", hint=LOOK_UP
            )
    return b"".join(pieces)


def _transport_error(error: Exception, timeout: float) -> LingyangError:
    """Say what a failed exchange means; whatever is not provably before the request counts as after it."""
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)):
        return LingyangConfigError(_UNUSABLE)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return transport.not_connected(transport.reason_of(error.certificate_error), certificate=True)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return transport.not_connected("timed out", within=min(transport.CONNECT_TIMEOUT, timeout))
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return transport.not_connected(
            f"the proxy answered HTTP {error.status}", peer="the gateway (through the proxy)"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        proxied = isinstance(error, aiohttp.ClientProxyConnectionError)
        peer = "the gateway (through the proxy)" if proxied else "the gateway"
        return transport.not_connected(transport.reason_of(error), peer=peer)
    if isinstance(error, TimeoutError):
        return transport.not_in_time(timeout)
    return transport.broken(error)
