"""Each way a connection can be wrong is told apart, in one sentence without a credential."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.sandbox.process import SandboxProcess


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def ask(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, changes: Any, **extra: Any
) -> tuple[bool, str]:
    connection = sandbox.connection(**{"timeout": 2, **extra}) | changes
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(connection))
    works, sentence = LingyangHook().test_connection()
    assert "sandbox-secret" not in sentence
    assert "CANARY" not in sentence
    return works, sentence


def test_a_connection_that_works_says_so(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    works, sentence = ask(sandbox, monkeypatch, {})
    assert works
    assert sentence.startswith("The gateway accepts the App key and the signature; the look-up can show that")
    assert sandbox.record()["totals"]["executed_tasks"] == 0


def test_clock_offset_is_reported_before_the_limit(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_fault(kind="clock", seconds=120)
    works, sentence = ask(sandbox, monkeypatch, {})
    assert works
    assert any(f"this machine's clock is {seconds} s behind" in sentence for seconds in (118, 119, 120))


def test_a_missing_look_up_is_mentioned(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    works, sentence = ask(sandbox, monkeypatch, {"extra": {}})
    assert works
    assert "no result_query is described" in sentence


@pytest.mark.parametrize(
    ("changes", "extra", "fault", "expected"),
    [
        ({"login": "CANARY"}, {}, None, "does not know the app key"),
        ({"password": "CANARY"}, {}, None, "the signature is wrong"),
        ({}, {"session_token": "CANARY"}, None, "the session is invalid or expired"),
        ({}, {}, {"kind": "session_required"}, "the session is missing"),
        ({}, {}, {"kind": "clock", "seconds": 660}, "the timestamp is more than 10 minutes off"),
        ({}, {}, {"kind": "permission"}, "lacks the permission package"),
        ({}, {}, {"kind": "ip"}, "not on the app's IP allow-list"),
        ({"host": "http://127.0.0.1:9/router/rest"}, {}, None, "Connection refused"),
        ({"host": "https://no-such-host.invalid/router/rest"}, {}, None, "was not reached"),
        ({"host": ""}, {}, None, "must be a full one"),
        ({}, {"result_query": {"method": "m", "items": "x"}}, None, "'items' is no key of it"),
        ({}, {"result_query": '{"method": '}, None, "result_query: it is not JSON (line 1, column 12)"),
        ({}, {"timeout": "CANARY"}, None, "timeout must be a number"),
        ({}, {"max_attempts": "1.5"}, None, "max_attempts must be a number"),
        ({}, {"max_requests_per_second": "CANARY"}, None, "max_requests_per_second must be at least"),
        ({}, {"lookup_settle": "1"}, None, "lookup_settle (1) must be at least timeout (2)"),
        ({}, {"console_url": "CANARY"}, None, "console_url must be an address such as"),
        ({}, {"dedupes_by_code": "CANARY"}, None, "dedupes_by_code must be true or false"),
        ({}, {"sign_method": "sha1"}, None, "unknown sign_method"),
        ({}, {}, {"kind": "html"}, "not one of the gateway"),
    ],
)
def test_connection_errors_are_distinguished(
    sandbox: SandboxProcess,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    extra: dict[str, Any],
    fault: dict[str, Any] | None,
    expected: str,
) -> None:
    if fault:
        sandbox.add_fault(**fault)
    works, sentence = ask(sandbox, monkeypatch, changes, **extra)
    assert not works
    assert expected in sentence
    # What is in brackets is markup to Airflow's command line, and would not be shown.
    assert "[" not in sentence


def answered(monkeypatch: pytest.MonkeyPatch, serve: Callable[[str], str], body: str) -> tuple[bool, str]:
    connection = {"conn_type": "lingyang", "host": serve(body), "login": "k", "password": "CANARY"}
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(connection))
    return LingyangHook().test_connection()


@pytest.fixture
def serve() -> Iterator[Callable[[str], str]]:
    """Start a server that answers every call with a body, and give its address."""
    servers = []

    def start(body: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                content = body.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/router/rest"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"time": None},
        {"time": ""},
        {"time": "now"},
        {"time": "CANARY"},
        {"time": "0001-01-01 00:00:00"},
        {"time": "1970-01-01 00:00:00"},
        {"time": ["2026-01-01 00:00:00"]},
        {"result": {"success": True}},
        {"time": 12},
    ],
    ids=str,
)
def test_an_answer_without_the_gateway_s_time_is_no_gateway(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[[str], str], payload: dict[str, Any]
) -> None:
    works, sentence = answered(monkeypatch, serve, json.dumps({"time_get_response": payload}))
    assert not works
    assert "its answer holds no time" in sentence
    assert "CANARY" not in sentence


def test_the_sentences_hold_no_text_of_what_answered(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[[str], str]
) -> None:
    error = {
        "code": 11,
        "msg": "call [CANARY]",
        "sub_code": "isv.permission-x",
        "sub_msg": "http://evil.example",
    }
    works, sentence = answered(monkeypatch, serve, json.dumps({"error_response": error}))
    assert not works
    assert "lacks the permission package" in sentence
    assert "code 11, sub_code isv.permission-x" in sentence
    assert "CANARY" not in sentence
    assert "evil" not in sentence


def test_clock_beyond_the_limit_is_reported_in_seconds(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.add_fault(kind="clock", seconds=-3600)
    _, sentence = ask(sandbox, monkeypatch, {})
    ahead = re.search(r"(\d+) s ahead", sentence)
    assert ahead
    assert int(ahead[1]) == pytest.approx(3600, abs=600)


def test_a_host_that_does_not_answer_does_not_hold_the_api_server(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, silent_port: int
) -> None:
    works, sentence = ask(sandbox, monkeypatch, {"host": f"http://127.0.0.1:{silent_port}/"}, timeout=0.3)
    assert not works
    assert "within 0.3 s" in sentence


def test_wrong_field_is_reported_without_the_form_prefix(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(sandbox, monkeypatch, {}, timeout="soon") == (False, "timeout must be a number")


def test_missing_connection_is_reported() -> None:
    works, sentence = LingyangHook("nowhere").test_connection()
    assert not works
    assert "'nowhere' is not defined" in sentence
