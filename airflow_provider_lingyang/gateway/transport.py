"""What both clients need of HTTP: errors on the way, and checks of an answer's head, coding and size. No I/O.

The libraries of the two clients differ in all of this, so both pass heads and undecoded bodies.
"""

from __future__ import annotations

import os
import re
import ssl
import zlib
from collections.abc import Iterable
from typing import Final

from airflow_provider_lingyang.gateway.errors import (
    LOOK_UP,
    AnswerLostError,
    AnswerUnreadableError,
    NotSentError,
    Replay,
)

CONNECT_TIMEOUT = 10.0
"""Seconds at most for a connection to be made: a gateway that is there answers within a few."""
IDLE_LIMIT = 5.0
"""Seconds that a look-up's connection is kept without use: the gateway may close it unnoticed. Writes are sent on new
connections only."""
SECOND_ANSWER = 0.2
"""Seconds to wait after a refused write for a second, contradicting answer, unless the gateway closes the connection
before, as requested."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of the status line and the headers of one answer, with the interim answers (1xx) before it."""
MAX_HEADERS: Final = 100
MAX_INTERIM: Final = 20
"""Interim answers (RFC 9110, 15.2) before the final one."""

BASE_BYTES: Final = 4 * 1024 * 1024
"""Room of any answer: some results have long slots, some methods have lists of their own."""
ECHO_FACTOR: Final = 4
"""An answer may repeat the request. Its form is percent-encoded already, and the answer may be JSON with escapes, XML
with entities, or indented."""
BYTES_PER_ID: Final = 16 * 1024
"""Of a look-up, for each id that it asks for. Where recipients' results are longer, lower ``max_biz_ids``."""

_WINDOWS: Final = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


def not_connected(
    reason: str, *, proxied: bool = False, certificate: bool = False, within: float | None = None
) -> NotSentError:
    """Return the error for a connection that was not made.

    :param reason: see :func:`reason_of`.
    :param proxied: whether it was to lead through a proxy.
    :param certificate: the peer's certificate was refused.
    :param within: seconds that were waited for the connection; None: it failed sooner.
    """
    peer = "the gateway (through the proxy)" if proxied else "the gateway"
    if certificate:
        return NotSentError(
            f"the TLS certificate of {peer} was refused ({reason}); nothing was sent",
            replay=Replay.NEVER,
            hint="Check the connection's host, this machine's clock, and REQUESTS_CA_BUNDLE where a proxy reads TLS.",
        )
    waited = f" within {within:g} s" if within is not None else ""
    return NotSentError(
        f"{peer} was not reached{waited} ({reason}); nothing was sent",
        hint="Check the connection's host, the network, the firewall, and HTTPS_PROXY and NO_PROXY in the environment.",
    )


def ca_bundle() -> str | None:
    """Return the file or folder of certificates that the environment names."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")


def no_ca_bundle() -> NotSentError:
    """Return the error for a CA bundle that the environment names and that cannot be read."""
    return NotSentError(
        "the CA bundle that the environment names is not there; nothing was sent",
        replay=Replay.NEVER,
        hint="Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE.",
    )


def not_in_time(timeout: float) -> AnswerLostError:
    """Return the error for an answer that did not come."""
    return AnswerLostError(
        f"the gateway did not answer in time (connected, but no complete answer within {timeout:g} s)"
    )


def broken(error: BaseException) -> AnswerLostError:
    """Return the error for a connection that broke after the request may have been sent."""
    return AnswerLostError(f"the connection to the gateway broke ({reason_of(error)})")


def reason_of(error: BaseException) -> str:
    """Return the innermost reason in a few words, without the URLs and headers that outer ones repeat."""
    for item in reversed(chain(error)):
        if isinstance(item, ssl.SSLCertVerificationError) and item.verify_message:
            return item.verify_message
        if type(item).__name__ == "CertificateError":
            return "Hostname mismatch"
        if found := _TUNNEL.search(str(item)):
            return f"the proxy answered HTTP {found[1]}"
        if isinstance(item, OSError) and item.strerror:
            # asyncio's own text holds the address instead of the reason.
            own_words = item.errno and item.strerror.startswith("Connect call")
            return os.strerror(item.errno or 0) if own_words else item.strerror
    return type(chain(error)[-1]).__name__


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and all its causes, in any of the libraries' ways of chaining them."""
    found: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(found) < 20:
        item = pending.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            pending += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    return found


def answer_limit(form: bytes, ids: int = 0) -> int:
    """Return how many bytes the answer to a request may have, decoded as well as not.

    :param form: the request's body.
    :param ids: how many recipients it asks for.
    """
    return BASE_BYTES + ECHO_FACTOR * len(form) + BYTES_PER_ID * ids


def unreadable(what: str) -> AnswerUnreadableError:
    """Return the error for an answer of which HTTP itself cannot be read."""
    return AnswerUnreadableError(f"the answer cannot be read ({what})")


class HeadCheck:
    """Checks the heads of one answer: those of its interim answers, then its own."""

    def __init__(self) -> None:
        self._interim = 0
        self._bytes = 0

    def is_final(self, status: int, reason: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Take the next head.

        :return: whether it is the answer's own.
        :raises AnswerUnreadableError: there are too many, they are too long, or it is not clear where the body ends.
        """
        headers = list(headers)
        self._bytes += len(reason) + sum(len(name) + len(value) + 4 for name, value in headers)
        if len(headers) > MAX_HEADERS:
            raise unreadable(f"more than {MAX_HEADERS} headers")
        if self._bytes > MAX_HEAD_BYTES:
            raise unreadable(f"its head is longer than {MAX_HEAD_BYTES} bytes")
        if status == 101:
            raise unreadable("HTTP 101: the gateway changes to another protocol")
        if 100 <= status < 200:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise unreadable(f"more than {MAX_INTERIM} interim answers")
            return False
        _check_framing(headers)
        return True


def _check_framing(headers: list[tuple[bytes, bytes]]) -> None:
    """Check that the body has one definite end (RFC 9112, 6.3): else two readers find two ends."""
    lengths = [value.strip() for name, value in headers if name.lower() == b"content-length"]
    transfer = [value.strip().lower() for name, value in headers if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(transfer) > 1:
        raise unreadable("it has more than one length")
    if not all(length.isdigit() and len(length) < 19 for length in lengths):
        raise unreadable("its length is not a number")
    if transfer not in ([], [b"chunked"]):
        raise unreadable("its transfer coding is unknown")


class AnswerBody:
    """Collects and decodes the body of one answer; refuses a body that is too long before it is in memory.

    :param codings: the values of its ``Content-Encoding`` headers.
    :param limit: bytes at most, see :func:`answer_limit`.
    :raises AnswerUnreadableError: it has a coding that was not asked for and is not known.
    """

    def __init__(self, codings: Iterable[str], limit: int) -> None:
        named = [name.strip().lower() for value in codings for name in value.split(",")]
        coding, *more = [name for name in named if name not in ("", "identity")] or [""]
        if more or (coding and coding not in _WINDOWS):
            raise unreadable("its content coding is unknown")
        self._window = _WINDOWS.get(coding, 0)
        self._decoder = zlib.decompressobj(self._window) if coding else None
        self._limit = limit
        self._came = self._size = 0
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        """Take the next bytes, as they came.

        :raises AnswerUnreadableError: it is too long, or the compression is damaged.
        """
        self._came += len(piece)
        if self._came > self._limit:
            raise self._too_long()
        if self._decoder is None:
            self._pieces.append(piece)
            return
        try:
            while piece:
                if self._decoder.eof:
                    if self._window == zlib.MAX_WBITS:
                        raise unreadable("more follows after its compression ends")
                    # gzip may have several members (RFC 1952, 2.2).
                    self._decoder = zlib.decompressobj(self._window)
                decoded = self._decoder.decompress(piece, self._limit - self._size + 1)
                self._size += len(decoded)
                if self._size > self._limit:
                    raise self._too_long()
                self._pieces.append(decoded)
                piece = self._decoder.unconsumed_tail or self._decoder.unused_data
        except zlib.error:
            # from None: its own text repeats nothing, and says nothing.
            raise unreadable("its compression is damaged") from None

    def finish(self) -> bytes:
        """Return the decoded body.

        :raises AnswerUnreadableError: the compression ends too soon.
        """
        if self._decoder is not None and not self._decoder.eof:
            raise unreadable("its compression ends too soon")
        return b"".join(self._pieces)

    def _too_long(self) -> AnswerUnreadableError:
        return AnswerUnreadableError(
            f"the answer is longer than {self._limit} bytes, which is more than the request can need",
            hint=f"Lower max_biz_ids or batch_size. {LOOK_UP}",
        )
