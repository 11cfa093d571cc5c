"""Which way out: both clients take the environment's proxies, and its exceptions, alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.settings import proxy_of
from tests.gateway.conftest import Connect, Serve
from tests.gateway.test_tls_and_proxies import Proxy, certificate, https, says_ok, tls

NAME, ADDRESS, IPV6 = "https://gw.example.test/x", "https://10.1.2.3:8443/x", "https://[2001:db8::5]/x"

EXCEPTIONS: list[tuple[str, str, bool]] = [
    ("gw.example.test", NAME, True),
    ("GW.Example.TEST", NAME, True),
    ("gw.example.test.", NAME, True),
    ("example.test", NAME, True),
    (".example.test", NAME, True),
    ("*.example.test", NAME, True),
    ("other.test, example.test", NAME, True),
    ("example.test:443", NAME, True),
    ("example.test:8443", NAME, False),
    ("gw.example.test.:443", NAME, True),
    ("example.test:", NAME, True),
    ("user@example.test", NAME, True),
    ("ample.test", NAME, False),
    ("gw.example", NAME, False),
    ("example.tes?", NAME, False),
    ("*", NAME, True),
    ("other.test,*", NAME, True),
    ("", NAME, False),
    (" , ,", NAME, False),
    (".", NAME, False),
    ("10.0.0.0/8", NAME, False),
    ("10.1.2.3", ADDRESS, True),
    ("10.1.2.3:8443", ADDRESS, True),
    ("10.1.2.3:443", ADDRESS, False),
    ("10.0.0.0/8", ADDRESS, True),
    ("192.168.0.0/16, 10.0.0.0/8", ADDRESS, True),
    ("10.1.2.3/8", ADDRESS, True),
    ("10.1.2.0/255.255.255.0", ADDRESS, True),
    ("0.0.0.0/0", ADDRESS, True),
    ("10.1.3.0/24", ADDRESS, False),
    ("10.1.2.0/33", ADDRESS, False),
    ("10.1.2", ADDRESS, False),
    ("2001:db8::/32", IPV6, True),
    ("2001:db8::5", IPV6, True),
    ("[2001:db8::5]", IPV6, True),
    ("2001:db9::/32", IPV6, False),
    ("[2001:db8::", IPV6, False),
    ("[2001:db8::5]:443", IPV6, True),
    ("[2001:db8::5]:8443", IPV6, False),
]


@pytest.mark.parametrize(("exceptions", "url", "direct"), EXCEPTIONS)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy(
    monkeypatch: pytest.MonkeyPatch, name: str, exceptions: str, url: str, direct: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv(name, exceptions)
    assert proxy_of(url) == (None if direct else "http://proxy.test:3128")


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"HTTPS_PROXY": "http://a.test:1"}, "http://a.test:1"),
        ({"https_proxy": "http://a.test:1"}, "http://a.test:1"),
        ({"HTTPS_PROXY": "http://b.test:1", "https_proxy": "http://a.test:1"}, "http://a.test:1"),
        ({"ALL_PROXY": "http://a.test:1"}, "http://a.test:1"),
        ({"ALL_PROXY": "http://b.test:1", "HTTPS_PROXY": "http://a.test:1"}, "http://a.test:1"),
        ({"HTTP_PROXY": "http://b.test:1"}, None),
        ({"HTTPS_PROXY": "a.test:1"}, "http://a.test:1"),
        ({"HTTPS_PROXY": "https://a.test:1"}, "https://a.test:1"),
        ({"HTTPS_PROXY": ""}, None),
        ({"NO_PROXY": "b.test", "no_proxy": "gw.example.test", "HTTPS_PROXY": "http://a.test:1"}, None),
    ],
)
def test_proxy_variable_precedence(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(NAME) == proxy


UNUSABLE = [
    "socks4://127.0.0.1:{port}",
    "socks4a://127.0.0.1:{port}",
    "socks5://127.0.0.1:{port}",
    "SOCKS5://127.0.0.1:{port}",
    "socks5h://me:proxy-password@127.0.0.1:{port}",
    "ftp://127.0.0.1:{port}",
    "http://:{port}",
    "http://127.0.0.1:0",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:port",
    "http://[::1",
    "http://",
    "http://me:%E5%BC%A0proxy-password@127.0.0.1:{port}",
    "http://me:%E4proxy-password@127.0.0.1:{port}",
]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("certificates"), "good")


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    started = Proxy()
    yield started
    started.stop()


@pytest.mark.parametrize("address", UNUSABLE)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
def test_a_proxy_that_cannot_be_used_is_a_wrong_setting_and_nothing_is_sent(
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    pem: Path,
    proxy: Proxy,
    name: str,
    address: str,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    monkeypatch.setenv(name, address.format(port=proxy.url.rpartition(":")[2]))
    server = serve(says_ok, wrap=tls(pem))
    with pytest.raises(
        LingyangConfigError, match=r"the proxy that the environment names.*nothing was sent"
    ) as caught:
        connect(https(server)).call("a.method", {"x": "canary"})
    assert "proxy-password" not in str(caught.value)
    assert server.connections == 0
    assert proxy.heads == []
    # Where the gateway is an exception, the proxy does not matter.
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    connect(https(server)).call("a.method", {})


@pytest.mark.parametrize("exceptions", ["127.0.0.0/8", "10.0.0.0/8,127.0.0.1/32", "*", "127.0.0.1"])
def test_an_exception_is_one_for_both_clients(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, pem: Path, proxy: Proxy, exceptions: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", exceptions)
    connect(https(serve(says_ok, wrap=tls(pem)))).call("a.method", {})
    assert proxy.heads == []


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ("me:secret", "bWU6c2VjcmV0"),
        ("me%40corp:p%3Ass%2F", "bWVAY29ycDpwOnNzLw=="),
        ("me:p%C3%A4ss", "bWU6cORzcw=="),
        ("me", "bWU6"),
    ],
)
def test_a_proxy_s_password_goes_to_the_proxy_alone(
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    pem: Path,
    proxy: Proxy,
    user: str,
    header: str,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("://", f"://{user}@"))
    server = serve(says_ok, wrap=tls(pem))
    client = connect(https(server))
    client.call("a.method", {})
    (head,) = proxy.heads
    assert f"Proxy-Authorization: Basic {header}\r\n" in head
    assert "proxy-authorization" not in "".join(server.heads).lower()
