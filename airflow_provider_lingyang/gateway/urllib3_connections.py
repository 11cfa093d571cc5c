"""Connections of urllib3: whether a request may have been sent, and whether an answer is complete and alone.

One request per connection. On a kept one, a second answer to request A that comes after request B is sent is read as
B's, and no check before the send can see it: B, executed, would be booked throttled and sent again. A's own second
answer cannot be waited for: a documented refusal that is alone in its answer counts.
Price (``benchmarks/connections.py``): two round trips for each request over TLS; ``max_in_flight`` hides them.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context
from urllib3.util.ssl_match_hostname import CertificateError

from airflow_provider_lingyang.gateway.transport import (
    MAX_HEAD_BYTES,
    HeadCheck,
    chain,
    not_connected,
    reason_of,
    unreadable,
)

before_send_hook: ContextVar[Callable[[], None] | None] = ContextVar("before_send_hook", default=None)
"""Called last before a request is sent on a new connection; its error comes out, and nothing was sent."""
_CERTIFICATE = (ssl.SSLCertVerificationError, CertificateError)
_NO_BYTES_YET = (BlockingIOError, ssl.SSLWantReadError)
_MAX_TIMEOUT = 3600.0
_MIN_TIMEOUT = 0.001


@contextmanager
def _raising_not_connected(connection: HTTPConnection) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, CertificateError) as error:
        causes = chain(error)
        timed_out = any(isinstance(item, TimeoutError) for item in causes)
        # An error that urllib3 does not know, so that it arrives as it is. Nothing else is caught: Airflow raises from
        # a signal handler, anywhere.
        raise not_connected(
            reason_of(error),
            proxied=connection.proxy is not None,
            certificate=any(isinstance(item, _CERTIFICATE) for item in causes),
            within=cast("float", connection.timeout) if timed_out else None,
        ) from None


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a deadline: the socket's own timeout starts anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.bytes_left = math.inf
        """Bytes that may be read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        if self.bytes_left <= 0:
            raise unreadable(f"its head is longer than {MAX_HEAD_BYTES} bytes")
        self._sock.settimeout(left)
        try:
            count = self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(self._seconds)
        self.bytes_left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """The answer to one request, complete within the socket's timeout, with its interim answers.

    Its stream stays open after its end, for :meth:`is_followed`; ``close`` it.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._source = _DeadlineReader(self.fp.detach(), sock, sock.gettimeout() or _MAX_TIMEOUT)
        self._stream: io.BufferedReader[Any] = io.BufferedReader(self._source)
        self.fp = self._stream
        self._heads: HeadCheck | None = None

    def begin(self) -> None:
        """Read the head.

        :raises AnswerUnreadableError: it is not one of HTTP, or breaks the limits of ``transport.py``.
        """
        self._heads = HeadCheck()
        self._source.bytes_left = MAX_HEAD_BYTES
        try:
            super().begin()
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            # Its text may repeat the answer.
            raise unreadable(f"not HTTP, or beyond its limits: {type(error).__name__}") from None
        self._source.bytes_left = math.inf
        self._heads.is_final(self.status, self.reason, _lines(self.headers))

    def _read_status(self) -> tuple[str, int, str]:
        # The library skips 100, but takes 102, 103 and the like for the final answer.
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # the stubs lack it
            if self._heads is None or not 100 <= status < 200:
                return version, status, reason
            self._heads.is_final(status, reason, _lines(http.client.parse_headers(self.fp)))

    def read_piece(self, size: int) -> bytes:
        """Return up to so many bytes of the body as they came; empty at its end.

        :raises http.client.HTTPException: it ends too soon.
        """
        piece = self.read1(size)
        if not piece and self.length:
            raise http.client.IncompleteRead(b"", self.length)
        return piece

    def is_followed(self, wait: float) -> bool:
        """Return whether more than this answer comes on its connection.

        :param wait: seconds to wait for that, unless the gateway closes the connection before; 0: look only.
        """
        self._source.deadline = time.monotonic() + max(wait, _MIN_TIMEOUT)
        try:
            return bool(self._stream.read1(1))
        except (OSError, ValueError):
            # Nothing came, or nothing can come.
            return False

    def _close_conn(self) -> None:
        self.fp = None  # type: ignore[assignment]  # the body has ended

    def close(self) -> None:
        """Close the stream, and with it the connection once the pool has let it go."""
        try:
            super().close()
        finally:
            self._stream.close()


def _lines(headers: http.client.HTTPMessage) -> list[tuple[bytes, bytes]]:
    if isinstance(text := headers.get_payload(), str) and text:
        # From a line on that is no header, the library takes all others for a text.
        raise unreadable("a header that is none")
    return [
        (name.encode("latin-1", "replace"), str(value).encode("latin-1", "replace"))
        for name, value in headers.items()
    ]


class _HTTPConnection(HTTPConnection):
    response_class = Response
    _buffered: list[bytes] | None = None

    def connect(self) -> None:
        with _raising_not_connected(self):
            super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, head and body in one write: after each, a thread waits for its turn to run.

        :raises NotSentError: the gateway sent bytes, or closed, before the request; nothing was sent.
        """
        pieces = self._buffered = []
        try:
            super().request(*args, **kwargs)
        finally:
            self._buffered = None
        if self.sock is None:
            self.connect()
        if _has_unsolicited_bytes(self.sock):
            self.close()
            raise not_connected("it answered before it was asked", proxied=self.proxy is not None)
        # Not in send, which a proxy's CONNECT passes, too.
        if (check := before_send_hook.get()) is not None:
            check()
        self.send(b"".join(pieces))

    def send(self, data: Any) -> None:
        if self._buffered is None:
            super().send(data)
        else:
            self._buffered.append(data)


def _has_unsolicited_bytes(sock: Any) -> bool:
    """Return whether bytes, or the end, wait on a connection before a request was sent on it.

    Read rather than polled: records of TLS itself (tickets of TLS 1.3) are no answer, and are skipped.
    """
    before = sock.gettimeout()
    sock.settimeout(0)
    try:
        sock.recv(1)
    except _NO_BYTES_YET:
        return False
    except OSError:
        return True
    finally:
        sock.settimeout(before)
    return True


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    def connect(self) -> None:
        # A proxy that is spoken to in TLS takes its bundle from here.
        if self.ssl_context is None and (self.proxy is None or self.proxy.scheme == "http"):
            with _raising_not_connected(self):
                self.ssl_context = _tls_context(self.ca_certs, self.ca_cert_dir, _modified_at(self.ca_certs))
            self.ca_certs = self.ca_cert_dir = None
        super().connect()


def _modified_at(path: str | None) -> int:
    return os.stat(path).st_mtime_ns if path else 0  # noqa: PTH116  # a variable's text, as it is


@lru_cache(4)
def _tls_context(bundle: str | None, folder: str | None, _modified_at: int) -> ssl.SSLContext:
    """Return the TLS context of a bundle. Cached: to read a bundle takes as long as several handshakes."""
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    if bundle or folder:
        context.load_verify_locations(bundle, folder)
    else:
        context.load_default_certs()
    return context


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


POOLS = {"http": _HTTPPool, "https": _HTTPSPool}
"""URL scheme → pool of such connections, for urllib3's ``pool_classes_by_scheme``."""
