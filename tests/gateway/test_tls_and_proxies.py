"""TLS is always verified; the environment's proxies carry https, and never plain http to this machine."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    LingyangConfigError,
    NotSentError,
    Replay,
)
from tests.gateway.conftest import Connect, RawServer, Serve, Time

BODY = b'{"a_response":{"request_id":"r1"}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def says_ok(connection: socket.socket) -> bool:
    connection.sendall(OK)
    return True


def certificate(folder: Path, name: str, *, days: int = 1, host: str = "127.0.0.1") -> Path:
    """Write a self-signed certificate with its key, valid until ``days`` from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("certificates")
    return {
        "good": certificate(folder, "good"),
        "expired": certificate(folder, "expired", days=-1),
        "other": certificate(folder, "other", host="10.9.8.7"),
    }


def tls(path: Path) -> Callable[[socket.socket], socket.socket]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return lambda connection: context.wrap_socket(connection, server_side=True)


def https(server: RawServer) -> str:
    return f"https://127.0.0.1:{server.port}/router/rest"


# --- TLS ------------------------------------------------------------------------------------------------------


def test_a_certificate_that_the_environment_trusts_is_accepted(
    serve: Serve, connect: Connect, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["good"]))
    server = serve(says_ok, wrap=tls(certificates["good"]))
    client = connect(https(server))
    for _ in range(3):
        assert client.call("a.method", {}).request_id == "r1"
    assert server.connections == 3


@pytest.mark.parametrize(
    ("served", "trusted", "why"),
    [
        ("good", None, "self-signed"),
        ("good", "other", "self-signed"),
        ("expired", "expired", "expired"),
        ("other", "other", "mismatch"),
    ],
)
def test_a_bad_certificate_is_refused_before_anything_is_sent(
    serve: Serve,
    connect: Connect,
    certificates: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    time_machine: Time,
    served: str,
    trusted: str | None,
    why: str,
) -> None:
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates[trusted]))
    server = serve(says_ok, wrap=tls(certificates[served]))
    with pytest.raises(
        NotSentError, match=f"certificate of the gateway was refused .*(?i:{why}).*nothing was sent"
    ) as caught:
        connect(https(server)).call("a.method", {})
    assert caught.value.replay is Replay.NEVER
    assert server.requests == []
    assert time_machine.sleeps == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_ca_bundle_that_is_not_there_is_named(
    serve: Serve, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
    server = serve(says_ok)
    with pytest.raises(NotSentError, match=name) as caught:
        connect(https(server)).call("a.method", {})
    assert caught.value.replay is Replay.NEVER
    assert server.connections == 0


def talks_before_tls(answer: bytes) -> Callable[[socket.socket], socket.socket]:
    def wrap(connection: socket.socket) -> socket.socket:
        connection.recv(10)
        if not answer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.sendall(answer)
        connection.close()
        raise OSError("done")

    return wrap


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x01\x00\x02\x02\x28"]
)
def test_a_tls_handshake_that_fails_is_safe_because_nothing_was_sent(
    serve: Serve, connect: Connect, time_machine: Time, answer: bytes
) -> None:
    server = serve(says_ok, wrap=talks_before_tls(answer))
    with pytest.raises(NotSentError, match="nothing was sent") as caught:
        connect(https(server)).call("a.method", {})
    assert caught.value.replay is Replay.SAFE
    assert server.connections == 3
    assert len(time_machine.sleeps) == 2


def test_a_tls_handshake_that_hangs_is_a_connection_not_made(serve: Serve, connect: Connect) -> None:
    silent = threading.Event()

    def hangs(connection: socket.socket) -> socket.socket:
        silent.wait()
        raise OSError("done")

    server = serve(says_ok, wrap=hangs)
    with pytest.raises(NotSentError, match=r"not reached within 0\.3 s"):
        connect(https(server), timeout=0.3, max_attempts=1).call("a.method", {})
    silent.set()


def test_a_tls_connection_that_breaks_after_the_request_is_ambiguous(
    serve: Serve, connect: Connect, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["good"]))

    def breaks(connection: socket.socket) -> bool:
        connection.sendall(OK[:-5])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        return False

    server = serve(breaks, wrap=tls(certificates["good"]))
    with pytest.raises((AnswerLostError, AnswerUnreadableError)) as caught:
        connect(https(server)).call("a.method", {})
    assert caught.value.replay is Replay.AMBIGUOUS
    assert len(server.requests) == 1


def test_tls_answers_have_the_same_deadline(
    serve: Serve, connect: Connect, certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["good"]))
    server: RawServer

    def trickles(connection: socket.socket) -> bool:
        for byte in OK * 100:
            connection.sendall(bytes((byte,)))
            if server.stopping.wait(0.02):
                return False
        return False

    server = serve(trickles, wrap=tls(certificates["good"]))
    with pytest.raises(AnswerLostError, match="did not answer in time"):
        connect(https(server), timeout=0.3, max_attempts=1).call("a.method", {})


@pytest.mark.parametrize("entry", ["default", "machine 127.0.0.1"])
def test_the_password_of_netrc_is_never_sent(
    serve: Serve,
    connect: Connect,
    certificates: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entry: str,
) -> None:
    (tmp_path / ".netrc").write_text(f"{entry} login me password canary\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["good"]))
    server = serve(says_ok, wrap=tls(certificates["good"]))
    connect(https(server)).call("a.method", {})
    assert "authorization" not in server.heads[0].lower()


# --- proxies --------------------------------------------------------------------------------------------------


class Proxy:
    """Answers CONNECT with a status; on 200 it lets the bytes through to where it is asked to."""

    def __init__(self, status: str = "200 Connection established") -> None:
        self.status = status
        self.heads: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def stop(self) -> None:
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._start(self._serve, connection)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                return
            head += piece
        self.heads.append(head.decode())
        connection.sendall(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
        if not self.status.startswith("200"):
            connection.close()
            return
        host, port = head.split()[1].decode().rsplit(":", 1)
        there = socket.create_connection((host, int(port)))
        self._open.append(there)
        self._start(self._copy, connection, there)
        self._start(self._copy, there, connection)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


StartProxy = Callable[..., Proxy]


@pytest.fixture
def start_proxy() -> Iterator[StartProxy]:
    started: list[Proxy] = []

    def start(*args: Any) -> Proxy:
        started.append(Proxy(*args))
        return started[-1]

    yield start
    for proxy in started:
        proxy.stop()


def test_https_goes_through_the_environment_s_proxy(
    serve: Serve,
    connect: Connect,
    certificates: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    start_proxy: StartProxy,
) -> None:
    proxy = start_proxy()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", "http://me:proxy-password@"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["good"]))
    server = serve(says_ok, wrap=tls(certificates["good"]))
    client = connect(https(server))
    for _ in range(3):
        client.call("a.method", {"x": "canary"})
    assert len(proxy.heads) == 3
    for head in proxy.heads:
        assert head.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.")
        assert "Proxy-Authorization: Basic" in head
        assert "canary" not in head and "router" not in head
    assert len(server.requests) == 3
    assert "proxy-authorization" not in "".join(server.heads).lower()


@pytest.mark.requests_only
def test_asks_once_whether_a_request_may_be_sent_through_a_proxy(
    serve: Serve,
    connect: Connect,
    certificates: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    start_proxy: StartProxy,
) -> None:
    """The proxy's CONNECT is no request: only once there is a tunnel may the request be sent, or not."""
    proxy = start_proxy()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["good"]))
    server = serve(says_ok, wrap=tls(certificates["good"]))
    asked: list[tuple[int, int]] = []

    def check() -> None:
        asked.append((len(proxy.heads), len(server.requests)))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        connect(https(server)).submit_struct("{}", before_send=check)
    assert asked == [(1, 0)]


def test_no_proxy_is_honoured(
    serve: Serve,
    connect: Connect,
    certificates: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    start_proxy: StartProxy,
) -> None:
    proxy = start_proxy()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates["good"]))
    connect(https(serve(says_ok, wrap=tls(certificates["good"])))).call("a.method", {})
    assert proxy.heads == []


def test_a_certificate_is_verified_through_a_proxy_too(
    serve: Serve,
    connect: Connect,
    certificates: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    start_proxy: StartProxy,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", start_proxy().url)
    server = serve(says_ok, wrap=tls(certificates["good"]))
    with pytest.raises(NotSentError, match="certificate"):
        connect(https(server)).call("a.method", {})
    assert server.requests == []


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_plain_http_to_this_machine_never_goes_through_a_proxy(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, start_proxy: StartProxy, name: str
) -> None:
    proxy = start_proxy()
    monkeypatch.setenv(name, proxy.url)
    server = serve(says_ok)
    connect(server.url).call("a.method", {})
    assert proxy.heads == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status", ["407 Proxy Authentication Required", "403 canary", "502 Bad Gateway", "302 Found"]
)
def test_a_refused_tunnel_is_safe(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, start_proxy: StartProxy, status: str
) -> None:
    proxy = start_proxy(status)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", "http://me:proxy-password@"))
    server = serve(says_ok)
    with pytest.raises(NotSentError, match=f"the proxy answered HTTP {status[:3]}") as caught:
        connect(https(server)).call("a.method", {})
    assert caught.value.replay is Replay.SAFE
    assert "canary" not in str(caught.value) and "proxy-password" not in str(caught.value)
    assert len(proxy.heads) == 3
    assert server.connections == 0


def test_a_proxy_that_is_not_there_is_safe(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, start_proxy: StartProxy
) -> None:
    proxy = start_proxy()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    proxy.stop()
    with pytest.raises(
        NotSentError, match=r"through the proxy.*Connection refused.*nothing was sent"
    ) as caught:
        connect("https://gateway.invalid/", max_attempts=1).call("a.method", {})
    assert caught.value.replay is Replay.SAFE


@pytest.mark.parametrize(
    "proxy", ["http://:0", "http://127.0.0.1:port", "socks5://127.0.0.1:1", "http://[::1", "bogus://x"]
)
def test_a_proxy_that_cannot_be_used_is_a_wrong_setting_not_a_lost_answer(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises((LingyangConfigError, NotSentError)):
        connect("https://gateway.invalid/", max_attempts=1).call("a.method", {})
