"""Checks of an HTTP answer, for both clients: head, coding, size. Pure.

The libraries of the two clients differ in all of this, so both pass heads and undecoded bodies.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

from airflow_provider_lingyang.gateway.errors import LOOK_UP, AnswerUnreadableError

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


def _check_framing(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check that the body has one definite end (RFC 9112, 6.3): else two readers find two ends."""
    lengths, transfer = [], []
    for name, value in headers:
        if name.lower() == b"content-length":
            lengths.append(value.strip())
        elif name.lower() == b"transfer-encoding":
            transfer.append(value.strip().lower())
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
