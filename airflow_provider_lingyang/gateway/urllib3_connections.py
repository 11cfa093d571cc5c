"""Connections of urllib3 that tell whether a request can have left, and until when an answer must be complete."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_match_hostname import CertificateError

from airflow_provider_lingyang.gateway.transport_errors import chain, reason_of

_CERTIFICATE = (ssl.SSLCertVerificationError, CertificateError)


class NotConnectedError(Exception):
    """The connection was not made (name, network, proxy, TLS), so nothing of the request has left.

    :param cause: the original error.
    :param proxied: a proxy stands between.
    """

    def __init__(self, cause: BaseException, *, proxied: bool) -> None:
        self.reason = reason_of(cause)
        super().__init__(self.reason)
        self.peer = "the gateway (through the proxy)" if proxied else "the gateway"
        causes = chain(cause)
        self.certificate = any(isinstance(item, _CERTIFICATE) for item in causes)
        self.timed_out = any(isinstance(item, TimeoutError) for item in causes)


@contextmanager
def _dialing(connection: HTTPConnection) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, CertificateError) as error:
        # Into an error that urllib3 does not know, so that it arrives as it is. Nothing else is caught: Airflow
        # raises from a signal handler, anywhere.
        raise NotConnectedError(error, proxied=connection.proxy is not None) from None


class _UntilReader(io.RawIOBase):
    """Reads a socket until a moment: the socket's own time-out starts anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, seconds: float) -> None:
        self._raw = raw
        self._sock = sock
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        try:
            return self._raw.readinto(buffer)
        finally:
            self._sock.settimeout(self._seconds)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer that must be complete, headers and all, within the socket's time-out."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if seconds := sock.gettimeout():
            self.fp = io.BufferedReader(_UntilReader(self.fp.detach(), sock, seconds))


class _HTTPConnection(HTTPConnection):
    response_class = _Response
    _held: list[bytes] | None = None

    def connect(self) -> None:
        with _dialing(self):
            super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, head and body in one write: after each, a thread waits for its turn to run."""
        held = self._held = []
        try:
            super().request(*args, **kwargs)
        finally:
            self._held = None
        self.send(b"".join(held))

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


POOLS = {"http": _HTTPPool, "https": _HTTPSPool}
"""URL scheme → pool of such connections: what urllib3's ``pool_classes_by_scheme`` takes."""
