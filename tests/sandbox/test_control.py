"""The control protocol refuses pages in a browser on the same machine."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess

CALLS = [("GET", "/sandbox/record"), ("POST", "/sandbox/reset"), ("POST", "/sandbox/faults")]
CALLS += [("GET", "/sandbox/faults"), ("DELETE", "/sandbox/faults"), ("GET", "/sandbox/kinds")]


def status(sandbox: SandboxProcess, method: str, path: str, headers: dict[str, str]) -> int:
    address = urlsplit(sandbox.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    port = str(address.port)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value.replace("PORT", port))
        body = b'{"kind": "throttle"}' if path.endswith("faults") and method == "POST" else b""
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:PORT"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example:PORT"},
        {"Host": "10.0.0.1:PORT"},
        {"Host": ""},
        {"Host": "[::1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "localhost:PORT", "Origin": "http://127.0.0.1:PORT"},
        {"Host": "localhost:PORT", "Origin": "https://localhost:PORT"},
    ],
)
def test_refuses_a_foreign_host_or_origin(
    lingyang_sandbox: SandboxProcess, method: str, path: str, headers: dict[str, str]
) -> None:
    assert status(lingyang_sandbox, method, path, headers) in (400, 403)
    assert lingyang_sandbox.faults() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:PORT"},
        {"Host": "localhost.:PORT"},
        {"Host": "127.0.0.2"},
        {"Host": "[::1]:PORT"},
        {"Host": "localhost:PORT", "Origin": "http://localhost:PORT"},
        {"Origin": "http://127.0.0.1:PORT"},
    ],
)
def test_answers_the_machine_itself(lingyang_sandbox: SandboxProcess, headers: dict[str, str]) -> None:
    assert status(lingyang_sandbox, "GET", "/sandbox/record", headers) == 200
