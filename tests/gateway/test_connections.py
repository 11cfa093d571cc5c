"""Whose answer it is: late answers, second answers, and answers before the question never decide another request."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.gateway import urllib3_connections as connections
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    GatewayError,
    LingyangError,
    NotSentError,
    Replay,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.lookup.query import ResultQuery
from tests.gateway.conftest import Connect, ConnectOnLoop, MakeBatch, OnALoop, RawServer, Serve, Step, Time
from tests.gateway.test_tls_and_proxies import certificate, https, tls
from tests.gateway.test_transport import LOST, chunked, closes, half_then, reply, resets, says

THROTTLED = reply(b'{"error_response":{"code":7,"sub_msg":"This ban will last for 1 more seconds"}}')
REFUSED = reply(b'{"error_response":{"code":15,"sub_code":"isv.invalid-parameter"}}')
NOT_ALLOWED = reply(b'{"error_response":{"code":11,"sub_code":"isv.invalid-permission"}}')
UNSUCCESSFUL = reply(b'{"a_response":{"result":{"success":false,"message":"no"}}}')
EMPTY = reply(b'{"a_response":{"result":{"success":true,"data":[]}}}')


def accepted(*numbers: int) -> bytes:
    data = [{"task_id": number, "task_request": {"biz_id": f"order-{number}"}} for number in numbers]
    return reply(json.dumps({"a_response": {"result": {"success": True, "data": data}}}).encode())


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("certificates"), "good")


INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 3\r\n\r\n",
    "199": b"HTTP/1.1 199 Other\r\nX: y\r\n\r\n",
    "many": b"HTTP/1.1 102 Processing\r\n\r\n" * 7 + b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("interim", list(INTERIM.values()), ids=list(INTERIM))
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_an_interim_answer_is_not_the_answer(
    serve: Serve, connect: Connect, make_batch: MakeBatch, interim: bytes, apart: bool
) -> None:
    server: RawServer

    def answer(connection: socket.socket) -> bool:
        number = len(server.requests)
        if apart:
            connection.sendall(interim)
            server.stopping.wait(0.05)
            connection.sendall(accepted(number))
        else:
            connection.sendall(interim + accepted(number))
        return True

    server = serve(answer)
    client = connect(server.url)
    for number in (1, 2, 3):
        assert client.submit_batch(make_batch(number)).task_ids == {f"order-{number}": number}
    assert len(server.requests) == 3


LATE = {
    "throttled": THROTTLED,
    "refused": REFUSED,
    "not allowed": NOT_ALLOWED,
    "unsuccessful": UNSUCCESSFUL,
    "nothing accepted": EMPTY,
    "its own again": accepted(1),
    "a server error": reply(b"<html></html>", "502 Bad Gateway"),
    "half an answer": accepted(1)[:-7],
    "an interim answer": INTERIM["102"],
}


@pytest.mark.parametrize("late", list(LATE.values()), ids=list(LATE))
@pytest.mark.parametrize("when", ["before the next request", "after it"])
def test_a_second_answer_never_decides_the_next_request(
    serve: Serve, connect: Connect, make_batch: MakeBatch, late: bytes, when: str
) -> None:
    first: list[socket.socket] = []
    server: RawServer

    def once_more() -> None:
        try:
            first[0].sendall(late)
        except OSError:
            pass  # closed on the other side

    def answers(connection: socket.socket) -> bool:
        first.append(connection)
        connection.sendall(accepted(1))
        if when == "before the next request":
            server.stopping.wait(0.05)
            once_more()
        return True

    def answers_next(connection: socket.socket) -> bool:
        if when == "after it":
            once_more()
            server.stopping.wait(0.05)
        connection.sendall(accepted(2))
        return True

    server = serve(answers, answers_next)
    client = connect(server.url)
    assert client.submit_batch(make_batch(1)).task_ids == {"order-1": 1}
    assert client.submit_batch(make_batch(2)).task_ids == {"order-2": 2}
    assert len(server.requests) == 2


@pytest.mark.parametrize("refusal", [THROTTLED, REFUSED, NOT_ALLOWED, UNSUCCESSFUL])
@pytest.mark.parametrize("rest", [accepted(1), b"\r\n", b"x", INTERIM["100"], reply(b"<html></html>")])
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_refusal_followed_by_more_bytes_is_ambiguous(
    serve: Serve, connect: Connect, make_batch: MakeBatch, refusal: bytes, rest: bytes, apart: bool
) -> None:
    server: RawServer

    def answers(connection: socket.socket) -> bool:
        connection.sendall(refusal if apart else refusal + rest)
        if apart:
            server.stopping.wait(0.05)
            connection.sendall(rest)
        return True

    server = serve(answers)
    with pytest.raises(AnswerUnreadableError, match="answered more than once") as caught:
        connect(server.url).submit_batch(make_batch(1))
    assert caught.value.replay is Replay.AMBIGUOUS
    assert len(server.requests) == 1


@pytest.mark.parametrize("refusal", [THROTTLED, REFUSED, NOT_ALLOWED, UNSUCCESSFUL])
@pytest.mark.parametrize("keep", [False, True], ids=["closed", "kept"])
def test_a_refusal_alone_counts_whether_the_gateway_closes_or_not(
    serve: Serve, connect: Connect, make_batch: MakeBatch, refusal: bytes, keep: bool
) -> None:
    server = serve(says(refusal, keep=keep))
    with pytest.raises(GatewayError):
        connect(server.url, max_attempts=1).submit_batch(make_batch(1))


@pytest.mark.parametrize("rest", [THROTTLED, REFUSED, b"x", accepted(1)])
def test_accepted_answer_stays_accepted_whatever_follows(
    serve: Serve, connect: Connect, make_batch: MakeBatch, rest: bytes
) -> None:
    server = serve(says(accepted(1) + rest))
    assert connect(server.url).submit_batch(make_batch(1)).task_ids == {"order-1": 1}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("greeting", [accepted(1), THROTTLED, b"220 mail.test ESMTP\r\n", b""])
def test_no_request_is_sent_when_the_gateway_speaks_or_closes_first(
    serve: Serve,
    connect: Connect,
    make_batch: MakeBatch,
    monkeypatch: pytest.MonkeyPatch,
    pem: Path,
    greeting: bytes,
    secure: bool,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))

    greeted = threading.Event()

    def greets(connection: socket.socket) -> socket.socket:
        # Else the kernel holds it back behind the tickets of TLS.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = tls(pem)(connection) if secure else connection
        if greeting:
            wrapped.sendall(greeting)
        else:
            wrapped.shutdown(socket.SHUT_WR)
        greeted.set()
        return wrapped

    dial = connections._HTTPConnection.connect

    def slowly(self: Any) -> None:
        dial(self)
        assert greeted.wait(600)
        greeted.clear()

    monkeypatch.setattr(connections._HTTPConnection, "connect", slowly)
    server = serve(says(accepted(1)), wrap=greets)
    with pytest.raises(NotSentError, match="answered before it was asked") as caught:
        connect(https(server) if secure else server.url).submit_batch(make_batch(1))
    assert caught.value.replay is Replay.SAFE
    assert server.requests == []


def test_tls_tickets_are_no_answer(
    serve: Serve, connect: Connect, make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch, pem: Path
) -> None:
    """They come after the handshake, and make the socket readable."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    server = serve(*[says(accepted(number)) for number in (1, 2, 3)], wrap=tls(pem))
    client = connect(https(server))
    for number in (1, 2, 3):
        assert client.submit_batch(make_batch(number)).task_ids == {f"order-{number}": number}
    assert server.connections == 3


@pytest.mark.parametrize("step", [row[1] for row in LOST], ids=[row[0] for row in LOST])
def test_a_request_left_in_doubt_closes_its_connection(
    serve: Serve, connect: Connect, make_batch: MakeBatch, step: Step
) -> None:
    def answers(connection: socket.socket) -> bool:
        return bool(step(connection)) or True  # this side never closes

    server = serve(answers if step not in (resets, closes) else step, says(accepted(2)))
    client = connect(server.url, timeout=1)
    with pytest.raises(LingyangError) as caught:
        client.submit_batch(make_batch(1))
    assert caught.value.replay is Replay.AMBIGUOUS
    server.wait_for_end_of_connection(1)
    assert client.submit_batch(make_batch(2)).task_ids == {"order-2": 2}


# --- look-ups on an event loop, which keep connections --------------------------------------------------------

QUERY = ResultQuery.parse(
    {
        "method": "a.query",
        "request_param": None,
        "biz_ids_field": "biz_ids",
        "max_biz_ids": 10,
        "items_path": "result.data",
        "biz_id_field": "biz_id",
        "output_params_field": "output_params",
    },
    where="here",
)


def results(*biz_ids: str, value: str = "yes") -> bytes:
    items = [{"biz_id": biz_id, "output_params": json.dumps({"answer": value})} for biz_id in biz_ids]
    return reply(json.dumps({"a_response": {"result": {"success": True, "data": items}}}).encode())


@pytest.fixture
def looks(time_machine: Time) -> Iterator[ConnectOnLoop]:
    made: list[OnALoop] = []

    def make(url: str, **settings: Any) -> OnALoop:
        chosen = {"app_key": "sandbox", "app_secret": "sandbox-secret", "timeout": 5.0, **settings}
        made.append(OnALoop(GatewaySettings(url=url, **chosen), time_machine))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_look_ups_keep_a_connection_while_its_answers_are_clean(
    serve: Serve, looks: ConnectOnLoop, monkeypatch: pytest.MonkeyPatch, pem: Path, secure: bool
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    steps = [says(results(f"id-{number}")) for number in range(4)]
    server = serve(*steps, **({"wrap": tls(pem)} if secure else {}))
    client = looks(https(server) if secure else server.url)
    for number in range(4):
        assert set(client.fetch_results(QUERY, [f"id-{number}"])) == {f"id-{number}"}
    assert server.connections == 1


UNCLEAN = {
    "refusal": REFUSED,
    "throttled": THROTTLED,
    "HTTP 500": reply(results("id-1").partition(b"\r\n\r\n")[2], "500 Oops"),
    "unreadable": reply(b"<html></html>"),
    "empty": EMPTY,
    "a stranger": results("id-9"),
    "a stranger beside": results("id-1", "id-9"),
    "HTTP 1.0 that is kept": results("id-1")
    .replace(b"HTTP/1.1", b"HTTP/1.0")
    .replace(b"Content-Type", b"Connection: keep-alive\r\nContent-Type"),
    "until its end": results("id-1").replace(b"Content-Length", b"X-Length"),
    "more than its length": results("id-1") + b"x",
    "a body that is none": b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n{} ",
    "damaged compression": reply(b"\x1f\x8b\x08xxxxxx", Content_Encoding="gzip"),
}


@pytest.mark.parametrize("answer", list(UNCLEAN.values()), ids=list(UNCLEAN))
def test_after_an_answer_that_is_not_clean_a_look_up_s_connection_is_closed(
    serve: Serve, looks: ConnectOnLoop, answer: bytes
) -> None:
    closing = b"X-Length" in answer
    server = serve(says(answer, keep=not closing), says(results("id-1")))
    client = looks(server.url, max_attempts=1)
    try:
        client.fetch_results(QUERY, ["id-1"])
    except LingyangError:
        pass
    assert set(client.fetch_results(QUERY, ["id-1"])) == {"id-1"}
    assert [number for number, _ in server.requests] == [1, 2]
    server.wait_for_end_of_connection(1)


LATE_RESULTS = {
    "of the one before": results("id-1", value="late"),
    "of both": results("id-1", "id-2", value="late"),
    "empty": EMPTY,
    "refused": REFUSED,
    "not allowed": NOT_ALLOWED,
    "unreadable": reply(b"<html></html>"),
    "chunked": chunked(b'{"a_response":{"result":{"success":true,', b'"data":[]}}}'),
}


@pytest.mark.parametrize("late", list(LATE_RESULTS.values()), ids=list(LATE_RESULTS))
@pytest.mark.parametrize("when", ["with the first", "before the next request", "after it"])
def test_a_second_answer_to_a_look_up_is_never_the_next_one_s(
    serve: Serve, looks: ConnectOnLoop, late: bytes, when: str
) -> None:
    server: RawServer
    read, followed = threading.Event(), threading.Event()

    def answers(connection: socket.socket) -> bool:
        connection.sendall(results("id-1") + (late if when == "with the first" else b""))
        if when == "before the next request":
            read.wait(600)
            connection.sendall(late)
            followed.set()
        return True

    def slips(connection: socket.socket) -> bool:
        if server.requests[-1][0] == 1:  # on the kept connection
            connection.sendall(late)
        connection.sendall(results("id-2"))
        return True

    server = serve(answers, slips if when == "after it" else says(results("id-2")), says(results("id-2")))
    client = looks(server.url, max_attempts=1)
    try:
        client.fetch_results(QUERY, ["id-1"])
    except AnswerUnreadableError:
        assert when == "with the first"
    if when == "before the next request":
        read.set()
        assert followed.wait(600)
    found = client.fetch_results(QUERY, ["id-2"])
    assert set(found) == {"id-2"}
    assert "late" not in str(found["id-2"].output_params)
    assert server.connections == 2


def test_a_throttle_on_a_kept_connection_is_waited_out_and_not_asked_again_at_once(
    serve: Serve, looks: ConnectOnLoop
) -> None:
    server = serve(says(results("id-1")), says(THROTTLED))
    client = looks(server.url, max_attempts=1)
    client.fetch_results(QUERY, ["id-1"])
    with pytest.raises(ThrottledError):
        client.fetch_results(QUERY, ["id-2"])
    assert len(server.requests) == 2


@pytest.mark.parametrize("end", [resets, closes, half_then(resets), half_then(closes)])
def test_a_call_that_is_no_look_up_never_uses_a_kept_connection(
    serve: Serve, looks: ConnectOnLoop, end: Any
) -> None:
    server = serve(says(results("id-1")), says(reply()), says(results("id-1")), end)
    client = looks(server.url, max_attempts=1)
    client.fetch_results(QUERY, ["id-1"])
    client.call("a.method", {})
    client.fetch_results(QUERY, ["id-1"])
    with pytest.raises(LingyangError):
        client.call("a.method", {})
    assert len({number for number, fields in server.requests if fields["method"] == "a.method"}) == 2
    assert server.requests[0][0] not in {
        number for number, fields in server.requests if fields["method"] == "a.method"
    }
