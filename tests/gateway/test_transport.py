"""The wire under the client: connections kept and not kept, and what a broken one means for the request."""

from __future__ import annotations

import gzip
import socket
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_lingyang.gateway import transport
from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    LingyangConfigError,
    LingyangError,
    NotSentError,
    Replay,
)
from tests.gateway.conftest import Connect, RawServer, Serve, Step, Time

OK = b'{"a_response":{"time":"2024-03-12 14:00:00","request_id":"r1"}}'


def reply(body: bytes = OK, status: str = "200 OK", **headers: str) -> bytes:
    named = {"Content-Type": "text/javascript;charset=UTF-8", "Content-Length": str(len(body))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def chunked(*pieces: bytes, **headers: str) -> bytes:
    head = reply(b"", Transfer_Encoding="chunked", **headers).replace(b"Content-Length: 0\r\n", b"")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def says(answer: bytes, *, keep: bool = True) -> Callable[[socket.socket], bool]:
    def step(connection: socket.socket) -> bool:
        connection.sendall(answer)
        return keep

    return step


def resets(connection: socket.socket) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return False


def half_then(end: Callable[[socket.socket], bool]) -> Callable[[socket.socket], bool]:
    def step(connection: socket.socket) -> bool:
        connection.sendall(reply()[:-10])
        return end(connection)

    return step


def closes(_: socket.socket) -> bool:
    return False


# --- connections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        reply(),
        reply(gzip.compress(OK), Content_Encoding="gzip"),
        chunked(OK[:10], OK[10:]),
        chunked(gzip.compress(OK)[:7], gzip.compress(OK)[7:], Content_Encoding="gzip"),
        reply(b'{"error_response":{"code":25}}'),
        reply(b"<html></html>", "502 Bad Gateway"),
        reply(b"", "302 Found", Location="https://elsewhere.test/"),
        reply(b"x" * 300_000),
    ],
    ids=["plain", "gzip", "chunked", "chunked gzip", "refusal", "502", "302", "long"],
)
def test_each_call_has_a_connection_of_its_own_which_is_closed_at_once(
    serve: Serve, connect: Connect, answer: bytes
) -> None:
    server = serve(says(answer))
    client = connect(server.url)
    for number in range(1, 4):
        try:
            client.call("a.method", {})
        except LingyangError:
            pass
        server.wait_for_end_of_connection(number)
    assert [number for number, _ in server.requests] == [1, 2, 3]
    assert all("Connection: close\r\n" in head for head in server.heads)


def test_repetitions_have_connections_of_their_own(serve: Serve, connect: Connect) -> None:
    throttled = reply(b'{"error_response":{"code":7}}')
    server = serve(says(throttled), says(throttled), says(reply()))
    connect(server.url).call("a.method", {})
    assert [number for number, _ in server.requests] == [1, 2, 3]


@pytest.mark.parametrize("end", [closes, resets])
def test_a_connection_that_broke_is_not_used_again(serve: Serve, connect: Connect, end: Any) -> None:
    server = serve(half_then(end), says(reply()))
    client = connect(server.url)
    with pytest.raises(
        (AnswerLostError, AnswerUnreadableError)
    ):  # urllib3 1.26 takes a short body for all of it
        client.call("a.method", {})
    client.call("a.method", {})
    assert server.connections == 2


def test_closing_the_client_gives_the_connection_back(serve: Serve, connect: Connect) -> None:
    server = serve(says(reply()))
    with connect(server.url) as client:
        client.call("a.method", {})
    server.wait_for_end_of_connection(1)


# --- what is sent ---------------------------------------------------------------------------------------------


def test_parameters_are_sent_in_the_post_body(serve: Serve, connect: Connect) -> None:
    server = serve(says(reply(Set_Cookie="sticky=1")))
    client = connect(server.url, session_token="the-session")
    client.call("a.method", {"名": "张三 & Söhne+%"})
    ((_, fields),) = server.requests
    head = server.heads[0]
    assert head.startswith("POST /router/rest HTTP/1.1\r\n")
    assert "Content-Type: application/x-www-form-urlencoded;charset=utf-8\r\n" in head
    assert "Accept-Encoding: gzip\r\n" in head
    assert "the-session" not in head
    assert fields["名"] == "张三 & Söhne+%"
    assert fields["session"] == "the-session"


def test_each_attempt_is_signed_afresh_at_its_own_time(
    serve: Serve, connect: Connect, time_machine: Time
) -> None:
    server = serve(
        says(reply(b'{"error_response":{"code":7}}')),
        says(reply(b'{"error_response":{"code":7}}')),
        says(reply()),
    )
    start = datetime(2024, 3, 12, 6, 0, 0, tzinfo=UTC)
    client = connect(server.url, clock=lambda: start + timedelta(seconds=time_machine.seconds))
    client.call("a.method", {"x": "1"})
    fields = [each for _, each in server.requests]
    assert [each["timestamp"] for each in fields] == [
        "2024-03-12 14:00:00",
        "2024-03-12 14:00:02",
        "2024-03-12 14:00:04",
    ]
    assert len({each["sign"] for each in fields}) == 3
    assert {each["x"] for each in fields} == {"1"}


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/", "https://[bad", "//", "ftp://x", "http://\x7f/", "..", "%zz"]
)
@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_redirects_are_not_followed_and_not_looked_at(
    serve: Serve, connect: Connect, status: str, target: str
) -> None:
    """A redirect with an odd target must not pass for a wrong setting, of which nothing was sent."""
    server = serve(says(reply(b"", status, Location=target)))
    with pytest.raises(AnswerUnreadableError, match="Redirects are not followed") as caught:
        connect(server.url).call("a.method", {})
    assert caught.value.replay is Replay.AMBIGUOUS
    assert len(server.requests) == 1


# --- not sent -------------------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_a_refused_connection_is_safe_and_tried_again(connect: Connect, time_machine: Time) -> None:
    with pytest.raises(NotSentError, match=r"Connection refused.*nothing was sent") as caught:
        connect(f"http://127.0.0.1:{closed_port()}/", max_attempts=4).call("a.method", {})
    assert caught.value.replay is Replay.SAFE
    assert len(time_machine.sleeps) == 3


def test_refused_connection_is_retried_and_the_request_sent_once(
    connect: Connect, serve: Serve, time_machine: Time
) -> None:
    server = serve(says(reply()))
    client = connect(f"http://127.0.0.1:{closed_port()}/")
    sleep = time_machine.sleep

    def returns(seconds: float) -> None:
        sleep(seconds)
        object.__setattr__(client.settings, "url", server.url)
        vars(client).pop("_prepared", None)  # with the first address

    client._sleep = returns
    client.call("a.method", {})
    assert len(server.requests) == 1


def test_a_connect_time_out_is_safe_and_not_called_a_read_time_out(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full: list[socket.socket] = []
        try:
            for _ in range(4):  # the queue of a listener that never accepts
                waiting = socket.socket()
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
                full.append(waiting)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            with pytest.raises(NotSentError, match=r"was not reached within 0\.2 s") as caught:
                connect(url, timeout=0.2, max_attempts=1).call("a.method", {})
        finally:
            for waiting in full:
                waiting.close()
    assert caught.value.replay is Replay.SAFE


def test_a_name_that_does_not_exist_is_safe(connect: Connect) -> None:
    with pytest.raises(NotSentError, match="nothing was sent") as caught:
        connect("https://gateway.invalid/router/rest", max_attempts=1).call("a.method", {})
    assert caught.value.replay is Replay.SAFE


@pytest.mark.parametrize("url", ["https://a b/", "https://.../", f"https://{'a' * 70}.test/"])
def test_a_host_that_cannot_be_one_is_never_sent_to(connect: Connect, url: str) -> None:
    with pytest.raises((LingyangConfigError, NotSentError)):
        connect(url, max_attempts=1).call("a.method", {})


@pytest.mark.requests_only
def test_a_signal_while_connecting_is_not_taken_for_a_failed_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow raises its own exceptions out of signal handlers, wherever the task is."""

    class Terminated(Exception):
        pass

    def terminated(*_: Any, **__: Any) -> None:
        raise Terminated

    monkeypatch.setattr(socket, "create_connection", terminated)
    monkeypatch.setattr("urllib3.util.connection.create_connection", terminated)
    with pytest.raises(Terminated):
        connect("http://127.0.0.1:9/").call("a.method", {})


# --- lost -----------------------------------------------------------------------------------------------------

LOST: list[tuple[str, Any]] = [
    ("reset before any work", resets),
    ("closed without a word", closes),
    ("reset in the middle", half_then(resets)),
    ("closed in the middle", half_then(closes)),
    ("closed after the status", says(b"HTTP/1.1 200 OK\r\n", keep=False)),
    ("closed in the headers", says(b"HTTP/1.1 200 OK\r\nContent-Le", keep=False)),
    ("closed in a chunk", says(chunked(OK)[:-20], keep=False)),
    ("closed between chunks", says(chunked(OK)[:-5], keep=False)),
    ("no HTTP", says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", keep=False)),
    ("HTTP of another kind", says(b"HTTP/9.9 abc\r\n\r\n", keep=False)),
    (
        "bad chunk size",
        says(reply(b"zz\r\n{}", Transfer_Encoding="chunked").replace(b"Content-Length", b"X"), keep=False),
    ),
    (
        "two lengths",
        says(reply(Content_length="7").replace(b"Content-length", b"Content-Length"), keep=False),
    ),
    ("endless header", says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", keep=False)),
    ("too many headers", says(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", keep=False)),
    ("damaged gzip", says(reply(b"\x1f\x8b\x08" + b"\xff" * 50, Content_Encoding="gzip"))),
    ("half of gzip", says(reply(gzip.compress(OK)[:-12], Content_Encoding="gzip"))),
    ("no gzip at all", says(reply(OK, Content_Encoding="gzip"))),
    ("zlib under a wrong name", says(reply(zlib.compress(OK), Content_Encoding="gzip"))),
    ("unknown coding", says(reply(b"\x00\x01", Content_Encoding="aes128gcm"))),
    ("gbk", says(reply('{"a_response":{"msg":"张三"}}'.encode("gbk")))),
    ("latin-1", says(reply('{"a_response":{"msg":"é"}}'.encode("latin-1")))),
    ("HTML", says(reply(b"<html>login</html>", Content_Type="text/html"))),
    ("no content", says(b"HTTP/1.1 204 No Content\r\n\r\n")),
]


@pytest.mark.parametrize("step", [row[1] for row in LOST], ids=[row[0] for row in LOST])
def test_lost_answer_is_ambiguous_and_the_request_is_sent_once(
    serve: Serve, connect: Connect, step: Step
) -> None:
    server = serve(step)
    with pytest.raises((AnswerLostError, AnswerUnreadableError)) as caught:
        connect(server.url).call("a.method", {"x": "canary"})
    assert caught.value.replay is Replay.AMBIGUOUS
    assert "look the biz_ids up" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("step", [resets, closes, half_then(resets), says(b"garbage", keep=False)])
def test_lost_answer_of_a_look_up_is_retried(serve: Serve, connect: Connect, step: Step) -> None:
    server = serve(step, step, says(reply()))
    assert connect(server.url).call("a.method", {}, idempotent=True).request_id == "r1"
    assert len(server.requests) == 3


def trickles(pieces: bytes, every: float, server: Callable[[], Any]) -> Callable[[socket.socket], bool]:
    def step(connection: socket.socket) -> bool:
        for byte in pieces:
            connection.sendall(bytes((byte,)))
            if server().stopping.wait(every):
                return False
        return True

    return step


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("status line", reply() * 100),
        ("headers", b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 90),
        ("body", reply(b" " * 5000 + OK)),
        ("chunks", chunked(*([b" "] * 5000), OK)),
        ("gzip", reply(gzip.compress(b" " * 5_000_000 + OK), Content_Encoding="gzip")),
        ("interim answers", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    ],
)
def test_an_answer_that_trickles_ends_at_the_deadline(
    serve: Serve, connect: Connect, name: str, answer: bytes
) -> None:
    # Fast until the part that is to be slow, then a byte at a time, each far within the socket's own time-out.
    fast = {"status line": 3, "headers": 30}.get(
        name, answer.find(b"\r\n\r\n") + 5 if name != "interim answers" else 5
    )
    server: RawServer

    def step(connection: socket.socket) -> bool:
        connection.sendall(answer[:fast])
        return trickles(answer[fast:], 0.02, lambda: server)(connection)

    server = serve(step)
    with pytest.raises(AnswerLostError, match=r"did not answer in time .*no complete answer within 0\.3 s"):
        connect(server.url, timeout=0.3, max_attempts=1).call("a.method", {})


def test_an_answer_that_never_comes_ends_at_the_deadline(serve: Serve, connect: Connect) -> None:
    server: RawServer

    def step(_: socket.socket) -> bool:
        server.stopping.wait()
        return False

    server = serve(step)
    with pytest.raises(AnswerLostError, match=r"no complete answer within 0\.2 s") as caught:
        connect(server.url, timeout=0.2).call("a.method", {})
    assert caught.value.replay is Replay.AMBIGUOUS
    assert len(server.requests) == 1


def test_an_answer_that_starts_and_then_stops_ends_at_the_same_deadline(
    serve: Serve, connect: Connect
) -> None:
    server: RawServer

    def step(connection: socket.socket) -> bool:
        server.stopping.wait(0.8)
        connection.sendall(reply()[:-5])
        # In time for the socket's own time-out, which starts anew with every piece.
        server.stopping.wait(0.8)
        connection.sendall(reply()[-5:])
        return True

    server = serve(step)
    with pytest.raises(AnswerLostError, match=r"no complete answer within 1 s"):
        connect(server.url, timeout=1.0, max_attempts=1).call("a.method", {})


def test_a_slow_but_complete_answer_is_read_and_the_next_call_has_its_full_time(
    serve: Serve, connect: Connect
) -> None:
    server: RawServer

    def step(connection: socket.socket) -> bool:
        server.stopping.wait(0.4)
        connection.sendall(reply())
        return True

    server = serve(step)
    client = connect(server.url, timeout=1.5)
    for _ in range(4):
        client.call("a.method", {})
    assert len(server.requests) == 4


@pytest.mark.parametrize("coding", ["identity", "gzip", "chunked"])
def test_too_large_answer_is_refused(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, coding: str
) -> None:
    monkeypatch.setattr(transport, "BASE_BYTES", 1_000_000)
    huge = b" " * 3_000_000
    answers = {
        "identity": reply(huge),
        "gzip": reply(gzip.compress(huge), Content_Encoding="gzip"),
        "chunked": chunked(*[huge[:50_000]] * 60),
    }
    server = serve(says(answers[coding], keep=False))
    with pytest.raises(AnswerUnreadableError, match=r"longer than 100\d{4} bytes") as caught:
        connect(server.url).call("a.method", {})
    assert caught.value.replay is Replay.AMBIGUOUS
    assert len(server.requests) == 1


def test_a_redirect_with_an_endless_body_is_not_read_to_its_end(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "BASE_BYTES", 100_000)
    server = serve(says(reply(b" " * 3_000_000, "302 Found", Location="/x"), keep=False))
    with pytest.raises(AnswerUnreadableError, match=r"longer than 10\d{4} bytes"):
        connect(server.url).call("a.method", {})


def test_gzip_is_read_and_so_is_an_answer_in_many_pieces(serve: Serve, connect: Connect) -> None:
    body = b'{"a_response":{"x":"' + "张三😀".encode() * 20_000 + b'"}}'
    packed = gzip.compress(body)
    pieces = [packed[at : at + 7] for at in range(0, len(packed), 7)]
    for answer in (
        reply(packed, Content_Encoding="gzip"),
        chunked(*pieces, Content_Encoding="gzip"),
        chunked(body),
    ):
        server = serve(says(answer))
        assert connect(server.url).call("a.method", {}).payload["x"] == "张三😀" * 20_000


def test_the_connect_time_out_is_never_longer_than_ten_seconds() -> None:
    assert transport.CONNECT_TIMEOUT == 10.0
