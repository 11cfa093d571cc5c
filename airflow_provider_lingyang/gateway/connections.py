"""Connections of urllib3 that tell whether a request can have left, and until when an answer must be complete."""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_match_hostname import CertificateError

_CERTIFICATE = (ssl.SSLCertVerificationError, CertificateError)
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


class NotConnectedError(Exception):
    """The connection was not made (name, network, proxy, TLS), so nothing of the request has left.

    :param cause: the original error.
    :param proxied: a proxy stands between.
    """

    def __init__(self, cause: BaseException, *, proxied: bool) -> None:
        self.reason = reason_of(cause)
        super().__init__(self.reason)
        self.peer = "the gateway (through the proxy)" if proxied else "the gateway"
        chain = _chain(cause)
        self.certificate = any(isinstance(item, _CERTIFICATE) for item in chain)
        self.timed_out = any(isinstance(item, TimeoutError) for item in chain)


def reason_of(error: BaseException) -> str:
    """Return the innermost reason in a few words, without the URLs and headers that outer ones repeat."""
    for item in reversed(_chain(error)):
        if isinstance(item, ssl.SSLCertVerificationError) and item.verify_message:
            return item.verify_message
        if isinstance(item, CertificateError):
            return "Hostname mismatch"
        if found := _TUNNEL.search(str(item)):
            return f"the proxy answered HTTP {found[1]}"
        if isinstance(item, OSError) and item.strerror:
            return item.strerror
    return type(_chain(error)[-1]).__name__


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(chain) < 20:
        item = pending.pop(0)
        if isinstance(item, BaseException) and item not in chain:
            chain.append(item)
            pending += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    return chain


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

    def connect(self) -> None:
        with _dialing(self):
            super().connect()


class _HTTPSConnection(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        with _dialing(self):
            super().connect()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


POOLS = {"http": _HTTPPool, "https": _HTTPSPool}
"""URL scheme → pool of such connections: what urllib3's ``pool_classes_by_scheme`` takes."""
