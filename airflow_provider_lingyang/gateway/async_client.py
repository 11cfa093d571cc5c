"""The gateway over HTTP, for event loops: aiohttp, on connections where an answer is to the request before it."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from weakref import WeakSet

import aiohttp
import certifi
from urllib3.util.wait import wait_for_read

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway import protocol, transport
from airflow_provider_lingyang.gateway.attempts import Attempts, Call, RetryPolicy, Send, Sleep
from airflow_provider_lingyang.gateway.errors import LingyangConfigError, LingyangError
from airflow_provider_lingyang.gateway.protocol import Answer
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.settings import GatewaySettings

T = TypeVar("T")

TLS_CLOSE_GRACE = 0.25
"""Seconds for TLS connections to close."""
LOOP_TIME_SLICE = 0.01
"""Seconds for which calls may keep the event loop busy: many answers may come at once."""
_POLL_INTERVAL = 0.01
_USED: WeakSet[Any] = WeakSet()
"""Connections that a request was sent on."""


class Connector(aiohttp.TCPConnector):
    """Reuses a connection only where no bytes wait on it, and never for a request with ``Connection: close``."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109  # aiohttp's signature
        """Return a connection, kept or new.

        :raises NotSentError: the gateway sent bytes before the request.
        """
        while True:
            connection = await super().connect(req, traces, timeout)
            stream = connection.protocol
            assert stream is not None
            if stream not in _USED:
                if not stream.should_close:
                    return connection
                connection.close()
                raise transport.not_connected("it answered before it was asked")
            alone = req.headers.get("Connection") == "close"
            if not alone and not stream.should_close and not _is_readable(connection.transport):
                return connection
            connection.close()


def _is_readable(connection: asyncio.Transport | None) -> bool:
    # Bytes that the loop has not read yet count, too. So does any TLS record: the tickets came with the first answer.
    sock: Any = connection and connection.get_extra_info("socket")
    return sock is None or bool(wait_for_read(sock, 0))


class Response(aiohttp.ClientResponse):
    """Holds its connection until the client closes or releases it, not only until the body is complete."""

    reused = False

    async def start(self, connection: Any) -> Any:
        """Read the head.

        :raises AnswerUnreadableError: it breaks the limits of ``transport.py``.
        """
        stream, heads = connection.protocol, transport.HeadCheck()
        self.reused = stream in _USED
        _USED.add(stream)
        read = stream.read

        async def checked() -> Any:
            message, payload = await read()
            heads.is_final(message.code, message.reason, message.raw_headers)
            return message, payload

        stream.read = checked
        try:
            return await super().start(connection)
        finally:
            del stream.read

    def _response_eof(self) -> None:
        """Keep the connection until ``close`` or ``release``."""

    async def is_followed(self, wait: float) -> bool:
        """Return whether another answer comes after this one.

        :param wait: seconds to wait for that, unless the gateway closes the connection before; 0: look only.
        """
        stream = self.connection and self.connection.protocol
        if stream is None:
            return False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        # No event announces bytes between answers.
        while not len(stream) and stream.is_connected() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_INTERVAL)
        return len(stream) > 0


class AsyncGatewayClient:
    """Calls the gateway from an event loop: signs, sends, reads the answer, retries where that is safe.

    Concurrent calls share one session and one rate limit; a throttle pauses all of them. Look-ups keep connections,
    because they are many. On a kept connection an answer may be a late one of an earlier call: it counts only where
    it can only be of this call; else the call is sent again on a new connection. All other calls have a connection of
    their own. Use it as an async context manager, or ``close`` it.

    :param settings: URL, credentials, timeout and number of attempts.
    :param limiter: shared with other callers. Default None: no rate limit, and the calls of this client wait for a
        throttle together.
    :param offload: runs a blocking function off the event loop.
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
        limiter: RateLimiter | None = None,
        offload: Callable[..., Awaitable[object]] = asyncio.to_thread,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self._tls = tls
        self.clock = clock
        self._sleep = sleep
        retry = RetryPolicy(settings.max_attempts, rng or random.Random())
        self._offload = offload
        limiter = limiter or RateLimiter(monotonic=monotonic)
        self._attempts = Attempts(settings, retry, clock, monotonic, limiter)
        self._slice_start: float | None = None
        self._session: aiohttp.ClientSession | None = None
        self._proxy = settings.proxy

    async def __aenter__(self) -> AsyncGatewayClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            if not self.settings.plain_http:
                # TLS ends with an exchange that aiohttp does not wait for (its documentation: "Graceful Shutdown").
                await asyncio.sleep(TLS_CLOSE_GRACE)

    async def call(self, method: str, params: Mapping[str, str], *, idempotent: bool = False) -> Answer:
        """Call any method of the platform; see ``GatewayClient.call``."""
        return await self.perform(Call(method, params, lambda answer: answer, idempotent))

    async def perform(self, call: Call[T]) -> T:
        """Make one call; see :meth:`Attempts.of`."""
        steps = self._attempts.of(call)
        try:
            step = next(steps)
            while True:
                value: T | None = None
                try:
                    if isinstance(step, Sleep):
                        if step.seconds:
                            await self._sleep(step.seconds)
                        await self._yield_if_busy()
                    elif isinstance(step, Send):
                        value = await self._send(step)
                    else:
                        await self._offload(step.run)
                except (LingyangError, LedgerError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, send: Send[T]) -> T:
        session = self._session or self._open()
        try:
            async with session.post(
                self.settings.url,
                data=send.form,
                headers=protocol.HEADERS if send.may_reuse else protocol.ONE_CALL_HEADERS,
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                assert isinstance(response, Response)
                send.reused = response.reused
                try:
                    value = await self._read(response, send)
                finally:
                    if not send.ours or response.version != aiohttp.HttpVersion11:
                        response.close()
        except LingyangError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # from None: the original carries the whole request, and Airflow prints what it is chained to.
            raise _transport_error(error, self.settings) from None
        return value

    async def _read(self, response: Response, send: Send[T]) -> T:
        body = transport.AnswerBody(response.headers.getall("Content-Encoding", ()), send.limit)
        # Not response.read(): it would take an answer of any size.
        async for piece in response.content.iter_any():
            body.feed(piece)
        decoded = body.finish()
        await self._yield_if_busy()
        patience = send.read(response.status, response.headers, decoded)
        return send.result(followed=patience is not None and await response.is_followed(patience))

    async def _yield_if_busy(self) -> None:
        """Let other tasks run once calls have kept the loop busy for ``LOOP_TIME_SLICE``."""
        loop = asyncio.get_running_loop()
        # No event says that the loop has gone round.
        while self._slice_start is not None and loop.time() - self._slice_start > LOOP_TIME_SLICE:  # noqa: ASYNC110
            await asyncio.sleep(0)
        if self._slice_start is None:
            self._slice_start = loop.time()
            loop.call_soon(self._end_slice)

    def _end_slice(self) -> None:
        self._slice_start = None

    def _open(self) -> aiohttp.ClientSession:
        connector = Connector(
            limit=0,
            keepalive_timeout=transport.IDLE_LIMIT,
            ssl=True if self.settings.plain_http else self._tls or tls_context(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            # A little more in total, so that a connection timeout is reported as such.
            timeout=aiohttp.ClientTimeout(
                total=self.settings.timeout + 0.1, sock_connect=self.settings.connect_timeout
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=Response,
            auto_decompress=False,
            max_line_size=transport.MAX_HEAD_BYTES,
            max_field_size=transport.MAX_HEAD_BYTES,
            # It would send a password of ~/.netrc, too.
            trust_env=False,
        )
        return self._session


def tls_context() -> ssl.SSLContext:
    """Return the TLS context that verifies the gateway's certificate, with the bundles of the client for tasks.

    :raises NotSentError: the environment names a CA bundle that cannot be read.
    """
    bundle = transport.ca_bundle() or certifi.where()
    folder = os.path.isdir(bundle)  # noqa: PTH112  # a variable's text, as it is
    try:
        return ssl.create_default_context(
            cafile=None if folder else bundle, capath=bundle if folder else None
        )
    except OSError:
        raise transport.no_ca_bundle() from None


def _transport_error(error: Exception, settings: GatewaySettings) -> LingyangError:
    """Return the typed error of a failed exchange: unless it is provably before the request, it counts as after it."""
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)):
        return LingyangConfigError("the gateway's URL, or the proxy's in the environment, cannot be used")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return transport.not_connected(transport.reason_of(error.certificate_error), certificate=True)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return transport.not_connected("timed out", within=settings.connect_timeout)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return transport.not_connected(f"the proxy answered HTTP {error.status}", proxied=True)
    if isinstance(error, aiohttp.ClientResponseError):
        return transport.unreadable("not HTTP, or beyond its limits")
    if isinstance(error, aiohttp.ClientConnectorError):
        proxied = isinstance(error, aiohttp.ClientProxyConnectionError)
        return transport.not_connected(transport.reason_of(error), proxied=proxied)
    if isinstance(error, TimeoutError):
        return transport.not_in_time(settings.timeout)
    return transport.broken(error)
