"""Both clients take, and refuse, the same answers: one table of heads, codings and lengths."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

import pytest

from airflow_provider_lingyang.gateway import transport
from airflow_provider_lingyang.gateway.errors import AnswerLostError, AnswerUnreadableError, Replay
from airflow_provider_lingyang.gateway.transport import (
    MAX_HEADERS,
    MAX_INTERIM,
    AnswerBody,
    HeadCheck,
    answer_limit,
)
from tests.gateway.conftest import Connect, Serve
from tests.gateway.test_transport import OK, chunked, reply, says

PACKED = gzip.compress(OK)
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
WHOLE, BROKEN = None, (AnswerUnreadableError, AnswerLostError)
UNREADABLE = AnswerUnreadableError


def headed(*lines: bytes, status: bytes = b"200 OK", body: bytes = OK, version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([version + b" " + status, *lines, b"", body])


LENGTH = b"Content-Length: %d" % len(OK)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(OK), OK)

CASES: dict[str, tuple[bytes, Any]] = {
    # Heads.
    "99 headers": (headed(*[b"X-%d: y" % n for n in range(98)], LENGTH), WHOLE),
    "101 headers": (headed(*[b"X-%d: y" % n for n in range(MAX_HEADERS)], LENGTH), UNREADABLE),
    "120 headers": (headed(*[b"X-%d: y" % n for n in range(120)], LENGTH), UNREADABLE),
    "5,000 headers": (headed(*[b"X-%d: y" % n for n in range(5000)], LENGTH), UNREADABLE),
    "a header of 9 KB": (headed(b"X: " + b"x" * 9_000, LENGTH), WHOLE),
    "a header of 40 KB": (headed(b"X: " + b"x" * 40_000, LENGTH), WHOLE),
    "a header of 70 KB": (headed(b"X: " + b"x" * 70_000, LENGTH), UNREADABLE),
    "a header of 3 MB": (headed(b"X: " + b"x" * 3_000_000, LENGTH), UNREADABLE),
    "headers of 2 x 40 KB": (headed(b"X: " + b"x" * 40_000, b"Y: " + b"y" * 40_000, LENGTH), UNREADABLE),
    "headers of 90 x 1 KB": (headed(*[b"X: " + b"x" * 1_000] * 90, LENGTH), UNREADABLE),
    "a reason of 70 KB": (headed(LENGTH, status=b"200 " + b"x" * 70_000), UNREADABLE),
    "a line that is no header": (headed(b"oops", LENGTH), UNREADABLE),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", UNREADABLE),
    "HTTP 1.0": (headed(LENGTH, version=b"HTTP/1.0"), WHOLE),
    # Interim answers.
    **{
        f"{status} before it": (b"HTTP/1.1 %d X\r\n\r\n" % status + reply(), WHOLE)
        for status in (100, 102, 103, 104, 150, 199)
    },
    "102 with headers before it": (b"HTTP/1.1 102 X\r\nContent-Length: 9\r\nA: b\r\n\r\n" + reply(), WHOLE),
    "as many as may be before it": (PROCESSING * MAX_INTERIM + reply(), WHOLE),
    "one more before it": (PROCESSING * (MAX_INTERIM + 1) + reply(), UNREADABLE),
    "1,000 before it": (PROCESSING * 1_000 + reply(), UNREADABLE),
    "long ones before it": (
        (b"HTTP/1.1 103 X\r\nX: " + b"x" * 20_000 + b"\r\n\r\n") * 5 + reply(),
        UNREADABLE,
    ),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", UNREADABLE),
    "101 before it": (b"HTTP/1.1 101 X\r\n\r\n" + reply(), UNREADABLE),
    "102 and no more": (PROCESSING, BROKEN),
    # Lengths.
    "chunked": (headed(CHUNKED, body=CHUNKS), WHOLE),
    "until the end": (headed(), WHOLE),
    "the same length twice": (headed(LENGTH, LENGTH), UNREADABLE),
    "two lengths": (headed(LENGTH, b"Content-Length: 7"), UNREADABLE),
    "two lengths in one": (headed(LENGTH + b", 7"), UNREADABLE),
    "a length and chunks": (headed(LENGTH, CHUNKED, body=CHUNKS), UNREADABLE),
    "chunks and a length": (headed(CHUNKED, LENGTH, body=CHUNKS), UNREADABLE),
    "a length below zero": (headed(b"Content-Length: -1"), UNREADABLE),
    "a length with a sign": (headed(LENGTH.replace(b": ", b": +")), UNREADABLE),
    "a length that is none": (headed(b"Content-Length: many"), UNREADABLE),
    "a length in hexadecimal": (headed(b"Content-Length: 0x40"), UNREADABLE),
    "another transfer coding": (headed(b"Transfer-Encoding: gzip"), UNREADABLE),
    "gzip as a transfer coding": (headed(b"Transfer-Encoding: gzip, chunked", body=CHUNKS), UNREADABLE),
    "shorter than its length": (headed(b"Content-Length: %d" % (len(OK) + 5)), BROKEN),
    "a chunk that ends too soon": (headed(CHUNKED, body=b"%x\r\n%s" % (len(OK) + 5, OK)), BROKEN),
    "no last chunk": (headed(CHUNKED, body=b"%x\r\n%s\r\n" % (len(OK), OK)), BROKEN),
    "a chunk of no size": (headed(CHUNKED, body=b"zz\r\n%s\r\n0\r\n\r\n" % OK), BROKEN),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", UNREADABLE),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"\r\n\r\n" + OK, UNREADABLE),
    "304 with a body": (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\n\r\n" + OK, UNREADABLE),
    "206": (reply(status="206 Partial Content"), UNREADABLE),
    # Codings.
    "gzip": (reply(PACKED, Content_Encoding="gzip"), WHOLE),
    "GZIP": (reply(PACKED, Content_Encoding="GZIP"), WHOLE),
    "x-gzip": (reply(PACKED, Content_Encoding="x-gzip"), WHOLE),
    "X-GZip in chunks": (chunked(PACKED[:9], PACKED[9:], Content_Encoding="X-GZip"), WHOLE),
    "identity": (reply(Content_Encoding="identity"), WHOLE),
    "identity, gzip": (reply(PACKED, Content_Encoding="identity, gzip"), WHOLE),
    "an empty coding": (reply(Content_Encoding=""), WHOLE),
    "deflate": (reply(zlib.compress(OK), Content_Encoding="deflate"), WHOLE),
    "two members": (reply(gzip.compress(OK[:9]) + gzip.compress(OK[9:]), Content_Encoding="gzip"), WHOLE),
    "an empty member": (reply(gzip.compress(b"") + PACKED, Content_Encoding="gzip"), WHOLE),
    "one byte at a time": (
        chunked(*[PACKED[at : at + 1] for at in range(len(PACKED))], Content_Encoding="gzip"),
        WHOLE,
    ),
    "a second member cut": (reply(PACKED + PACKED[:-5], Content_Encoding="gzip"), UNREADABLE),
    "bytes after the member": (reply(PACKED + b"junk", Content_Encoding="gzip"), UNREADABLE),
    "bytes after deflate": (reply(zlib.compress(OK) + b"junk", Content_Encoding="deflate"), UNREADABLE),
    "gzip cut": (reply(PACKED[:-9], Content_Encoding="gzip"), UNREADABLE),
    "gzip of nothing": (reply(b"", Content_Encoding="gzip"), UNREADABLE),
    "a wrong checksum": (reply(PACKED[:-8] + b"\0" * 8, Content_Encoding="gzip"), UNREADABLE),
    "no gzip": (reply(OK, Content_Encoding="gzip"), UNREADABLE),
    "gzip that nothing names": (reply(PACKED), UNREADABLE),
    "gzip twice": (reply(gzip.compress(PACKED), Content_Encoding="gzip, gzip"), UNREADABLE),
    **{
        f"{coding} coding": (reply(OK, Content_Encoding=coding), UNREADABLE)
        for coding in ("br", "zstd", "compress", "aes128gcm", "utf-8", "none", "gzip;q=1")
    },
}


@pytest.mark.parametrize(("answer", "error"), list(CASES.values()), ids=list(CASES))
def test_http_answer_is_parsed(serve: Serve, connect: Connect, answer: bytes, error: Any) -> None:
    server = serve(says(answer, keep=False))
    client = connect(server.url)
    if error is None:
        assert client.call("a.method", {}).request_id == "r1"
    else:
        with pytest.raises(error) as caught:
            client.call("a.method", {"x": "canary"})
        assert caught.value.replay is Replay.AMBIGUOUS
        assert "look the biz_ids up" in str(caught.value)
        assert "canary" not in str(caught.value)
    assert len(server.requests) == 1
    server.wait_for_end_of_connection(1)


def test_limits_the_reason_however_it_arrives() -> None:
    """Aiohttp 3.11 limits each piece that it reads, not the whole reason."""
    with pytest.raises(AnswerUnreadableError, match="its head is longer"):
        HeadCheck().is_final(200, "x" * 70_000, [])


@pytest.mark.parametrize("coding", ["identity", "gzip", "gzip of many members", "chunked"])
def test_answer_beyond_the_size_limit_is_refused(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    monkeypatch.setattr(transport, "BASE_BYTES", 100_000)
    body = OK[:-2] + b" " * 200_000 + OK[-2:]
    answers = {
        "identity": reply(body),
        "gzip": reply(gzip.compress(body), Content_Encoding="gzip"),
        "gzip of many members": reply(
            b"".join(gzip.compress(body[at : at + 1000]) for at in range(0, len(body), 1000)),
            Content_Encoding="gzip",
        ),
        "chunked": chunked(*[body[at : at + 5000] for at in range(0, len(body), 5000)]),
    }
    server = serve(says(answers[coding], keep=False))
    with pytest.raises(AnswerUnreadableError, match=r"longer than 10\d{4} bytes") as caught:
        connect(server.url).call("a.method", {})
    assert caught.value.replay is Replay.AMBIGUOUS
    # The answer may repeat the request: a long one may have a long answer.
    server = serve(says(answers[coding]))
    assert connect(server.url).call("a.method", {"x": "y" * 40_000}).request_id == "r1"


@pytest.mark.parametrize(
    ("form", "ids", "megabytes"),
    [(200, 0, 4.1), (60_000, 0, 4.5), (3_000_000, 0, 17), (300, 1, 4.1), (3_000, 100, 6), (20_000, 1000, 22)],
)
def test_the_limit_follows_from_the_request(form: int, ids: int, megabytes: float) -> None:
    assert 4 * form < answer_limit(b"x" * form, ids) <= megabytes * 1e6 * 1.05


def test_a_bomb_of_gzip_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 200_000_000, 9)
    body = AnswerBody(["gzip"], 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(AnswerUnreadableError, match="longer than 1000000 bytes"):
            body.feed(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
