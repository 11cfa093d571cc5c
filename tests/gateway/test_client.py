"""The client against the sandbox: what arrives there, what is repeated, what each fault becomes."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    CallRefusedError,
    LingyangError,
    NotSentError,
    Replay,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.signing import SIGN_METHODS
from airflow_provider_lingyang.lookup.query import ResultQuery
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from tests.gateway.conftest import Connect, MakeBatch, Serve, Time, fetch_results

QUERY = ResultQuery.parse(RESULT_QUERY, where="sandbox")


def totals(sandbox: SandboxProcess) -> dict[str, int]:
    found: dict[str, int] = sandbox.record()["totals"]
    return found


@pytest.mark.parametrize("sign_method", SIGN_METHODS)
@pytest.mark.parametrize("session_token", [None, "sandbox-session"])
def test_a_request_with_every_field_arrives_and_comes_back(
    gateway_sandbox: SandboxProcess,
    connect: Connect,
    make_batch: MakeBatch,
    sign_method: str,
    session_token: str | None,
) -> None:
    client = connect(gateway_sandbox.url, sign_method=sign_method, session_token=session_token)
    every = {
        "email": "a@example.com",
        "outer_user_id": "u & + % = /",
        "cms_user_id": 2**63 - 1,
        "user_name": "张三😀'\"\\\n",
        "source_id": 1,
        "department_id": 2,
        "cms_member_type": "GOLD",
        "appointment_time_id": 3,
        "policy_id": 4,
        "book_charge_biz_info": {"a": "é"},
        "book_user_id": 5,
        "plan_execute_start_time": datetime(2024, 3, 12, 6, 5, 56, tzinfo=UTC),
    }
    book = {"use_platform": "PLATFORM_A", "book_code": "BOOK_CODE", "book_owner_id": 123}
    request = InitiativeBatchTaskRequest.model_validate(
        make_batch(1, 2, **every).model_dump() | {"use_book_info": book}
    )
    receipt = client.submit_batch(request)
    assert list(receipt.task_ids) == ["order-1", "order-2"]
    for sent, accepted in zip(request.task_list, receipt.data, strict=True):
        assert accepted.task_request is not None
        assert accepted.task_request.model_dump() == sent.model_dump() | {
            "plan_execute_start_time": sent.plan_execute_start_time
        }
        assert accepted.task_id
    assert receipt.request_id == gateway_sandbox.record()["requests"][0]["request_id"]


def test_submitted_recipients_are_looked_up_in_chunks(
    gateway_sandbox: SandboxProcess, connect: Connect, make_batch: MakeBatch
) -> None:
    client = connect(gateway_sandbox.url)
    task_ids = client.submit_batch(make_batch(*range(1, 121))).task_ids
    asked = [*task_ids, "order-nobody"]
    found = fetch_results(client, QUERY, asked)
    assert list(found) == list(task_ids)
    assert {biz_id: int(result.task_id or 0) for biz_id, result in found.items()} == task_ids
    assert {result.status for result in found.values()} <= {"ANSWERED", "NOT_REACHED"}
    assert totals(gateway_sandbox)["lookups"] == 3


def test_ids_outside_the_look_up_are_left_out(
    gateway_sandbox: SandboxProcess, connect: Connect, make_batch: MakeBatch
) -> None:
    client = connect(gateway_sandbox.url)
    client.submit_batch(make_batch(1))
    assert fetch_results(client, QUERY, []) == {}
    assert fetch_results(client, QUERY, ["order-2"]) == {}


def test_any_method_can_be_called(gateway_sandbox: SandboxProcess, connect: Connect) -> None:
    answer = connect(gateway_sandbox.url).call("taobao.time.get", {})
    assert set(answer.payload) == {"time", "request_id"}
    assert connect(gateway_sandbox.url).call("taobao.time.get", {"simplify": "true"}).payload.keys() == {
        "time",
        "request_id",
    }


def test_calls_wait_for_the_rate_limit_that_they_share(
    gateway_sandbox: SandboxProcess, connect: Connect, make_batch: MakeBatch, time_machine: Time
) -> None:
    limiter = RateLimiter(0.1, monotonic=lambda: time_machine.seconds)
    begun = time_machine.seconds
    settings = connect(gateway_sandbox.url).settings
    clients = [GatewayClient(settings, limiter=limiter, sleep=time_machine.sleep) for _ in range(2)]
    with clients[0] as one, clients[1] as other:
        task_ids = one.submit_batch(make_batch(1)).task_ids
        assert time_machine.seconds == begun
        assert list(fetch_results(other, QUERY, list(task_ids))) == list(task_ids)
        one.call("taobao.time.get", {})
    assert time_machine.seconds == begun + 20


def test_a_wait_for_the_rate_limit_that_is_cut_short_ends_the_call(
    gateway_sandbox: SandboxProcess, connect: Connect
) -> None:
    limiter = RateLimiter()
    limiter.pause(50)
    waits: list[float] = []

    def cut_short(seconds: float) -> bool:
        waits.append(seconds)
        return False

    settings = connect(gateway_sandbox.url).settings
    with (
        GatewayClient(settings, limiter=limiter, sleep=cut_short) as client,
        pytest.raises(NotSentError, match="asked to stop while the call waited") as raised,
    ):
        client.call("taobao.time.get", {}, idempotent=True)
    assert raised.value.replay is Replay.NEVER
    assert len(waits) == 1
    assert gateway_sandbox.record()["requests"] == []


@pytest.mark.parametrize("may_be_sent", [False, True])
def test_asks_whether_a_request_may_be_sent_when_there_is_a_connection(
    gateway_sandbox: SandboxProcess, connect: Connect, make_batch: MakeBatch, may_be_sent: bool
) -> None:
    """A name, a connection and TLS may take longer than an intent lives; a process may be paused meanwhile."""
    asked: list[int] = []

    def check() -> None:
        # The gateway has taken the connection by now, and has read nothing.
        asked.append(totals(gateway_sandbox)["requests"])
        if not may_be_sent:
            raise ZeroDivisionError

    client = connect(gateway_sandbox.url)
    with nullcontext() if may_be_sent else pytest.raises(ZeroDivisionError):
        client.submit_struct(make_batch(1).to_json(), before_send=check)
    # Of that request only.
    client.call("taobao.time.get", {})
    assert asked == [0]
    assert gateway_sandbox.record()["executions"]["by_biz_id"] == ({"order-1": 1} if may_be_sent else {})


# --- faults ---------------------------------------------------------------------------------------------------

# fault, the error a submit ends in (None: it is accepted), how often a submit and a look-up are sent by 3 attempts.
LATE = ("slow", "no_answer")
"""Faults that are waited for until the time-out; all others are answered, however busy the machine is."""
FAULTS: list[tuple[dict[str, Any], type[LingyangError] | None, int, int]] = [
    ({"kind": "throttle", "seconds": 0.001}, None, 2, 2),
    ({"kind": "error", "code": 7, "sub_code": None, "sub_msg": None}, None, 2, 2),
    ({"kind": "error", "code": 15, "sub_code": "isv.BUSINESS_LIMIT_CONTROL"}, ThrottledError, 1, 1),
    (
        {
            "kind": "error",
            "code": 7,
            "sub_code": None,
            "sub_msg": "This ban will last for 31062 more seconds",
        },
        ThrottledError,
        1,
        1,
    ),
    ({"kind": "error", "code": 10, "sub_code": None}, ServiceError, 1, 2),
    ({"kind": "error", "executed": True}, ServiceError, 1, 2),
    ({"kind": "error", "sub_code": "isp.null-pointer-exception"}, ServiceError, 1, 1),
    ({"kind": "error", "code": "odd-word", "sub_code": None}, ServiceError, 1, 2),
    ({"kind": "error", "code": 25, "sub_code": None}, CallRefusedError, 1, 1),
    ({"kind": "permission"}, CallRefusedError, 1, 1),
    ({"kind": "ip"}, CallRefusedError, 1, 1),
    ({"kind": "refuse"}, RequestRefusedError, 1, 1),
    ({"kind": "error", "sub_code": "isv.invalid-parameter"}, RequestRefusedError, 1, 1),
    ({"kind": "http", "status": 500}, AnswerUnreadableError, 1, 2),
    ({"kind": "http", "status": 502, "executed": True}, AnswerUnreadableError, 1, 2),
    ({"kind": "http", "status": 404}, AnswerUnreadableError, 1, 2),
    ({"kind": "no_answer"}, AnswerLostError, 1, 2),
    ({"kind": "slow", "seconds": 2}, AnswerLostError, 1, 2),
    ({"kind": "reset_before"}, AnswerLostError, 1, 2),
    ({"kind": "reset_during"}, AnswerLostError, 1, 2),
    ({"kind": "reset_after"}, AnswerLostError, 1, 2),
    ({"kind": "truncated"}, AnswerUnreadableError, 1, 2),
    ({"kind": "empty"}, AnswerUnreadableError, 1, 2),
    ({"kind": "html"}, AnswerUnreadableError, 1, 2),
    ({"kind": "xml"}, None, 1, 1),
    ({"kind": "wrong_root"}, None, 1, 1),
    ({"kind": "control_characters"}, None, 1, 1),
]


@pytest.mark.parametrize(("fault", "error", "writes", "_"), FAULTS, ids=[str(row[0]) for row in FAULTS])
def test_write_is_retried_only_when_not_executed(
    gateway_sandbox: SandboxProcess,
    connect: Connect,
    make_batch: MakeBatch,
    time_machine: Time,
    fault: dict[str, Any],
    error: type[LingyangError] | None,
    writes: int,
    _: int,
) -> None:
    gateway_sandbox.add_fault(method="submit", **fault)
    client = connect(gateway_sandbox.url, timeout=1 if fault["kind"] in LATE else 60)
    if error is None:
        assert list(client.submit_batch(make_batch(1)).task_ids) == ["order-1"]
    else:
        with pytest.raises(error) as caught:
            client.submit_batch(make_batch(1))
        assert caught.value.hint
        assert caught.value.replay is not Replay.SAFE or (caught.value.retry_after or 0) > 60
    record = gateway_sandbox.record()
    assert record["totals"]["submits"] == writes
    assert len(time_machine.sleeps) == writes - 1
    assert max(record["executions"]["by_biz_id"].values(), default=0) <= 1


@pytest.mark.parametrize(("fault", "error", "_", "reads"), FAULTS, ids=[str(row[0]) for row in FAULTS])
def test_look_up_is_retried_after_an_ambiguous_answer(
    gateway_sandbox: SandboxProcess,
    connect: Connect,
    make_batch: MakeBatch,
    fault: dict[str, Any],
    error: type[LingyangError] | None,
    _: int,
    reads: int,
) -> None:
    connect(gateway_sandbox.url).submit_batch(make_batch(1))
    gateway_sandbox.add_fault(method="lookup", **fault)
    client = connect(gateway_sandbox.url, timeout=1 if fault["kind"] in LATE else 60)
    if error is None or reads == 2:
        assert list(fetch_results(client, QUERY, ["order-1"])) == ["order-1"]
    else:
        with pytest.raises(error):
            fetch_results(client, QUERY, ["order-1"])
    assert totals(gateway_sandbox)["lookups"] == reads


@pytest.mark.parametrize("max_attempts", [1, 2, 4])
def test_a_safe_refusal_is_repeated_up_to_max_attempts(
    gateway_sandbox: SandboxProcess,
    connect: Connect,
    make_batch: MakeBatch,
    time_machine: Time,
    max_attempts: int,
) -> None:
    gateway_sandbox.add_fault(
        kind="error", code=7, sub_code=None, sub_msg="This ban will last for 9 more seconds", times=10
    )
    with pytest.raises(ThrottledError) as caught:
        connect(gateway_sandbox.url, max_attempts=max_attempts).submit_batch(make_batch(1))
    assert caught.value.retry_after == 9.0
    assert totals(gateway_sandbox)["submits"] == max_attempts
    assert time_machine.sleeps == [10.0] * (max_attempts - 1)


def test_a_look_up_ends_after_max_attempts_too(gateway_sandbox: SandboxProcess, connect: Connect) -> None:
    gateway_sandbox.add_fault(kind="http", times=10)
    with pytest.raises(AnswerUnreadableError):
        fetch_results(connect(gateway_sandbox.url), QUERY, ["order-1"])
    assert totals(gateway_sandbox)["lookups"] == 3


def test_call_is_a_write_by_default(gateway_sandbox: SandboxProcess, connect: Connect) -> None:
    params = {"task_result_query": '{"biz_ids":["order-1"]}'}
    gateway_sandbox.add_fault(kind="http", times=2)
    client = connect(gateway_sandbox.url)
    with pytest.raises(AnswerUnreadableError):
        client.call(LOOKUP, params)
    assert client.call(LOOKUP, params, idempotent=True).payload["result"]["success"] is True
    assert totals(gateway_sandbox)["lookups"] == 3


@pytest.mark.parametrize(
    ("settings", "code", "advice"),
    [
        ({"app_key": "nobody"}, "29", "login"),
        ({"app_secret": "wrong"}, "25", "App secret"),
        ({"session_token": "expired"}, "27", "session_token"),
    ],
)
def test_credential_errors_are_distinguished_and_not_retried(
    gateway_sandbox: SandboxProcess,
    connect: Connect,
    make_batch: MakeBatch,
    settings: dict[str, Any],
    code: str,
    advice: str,
) -> None:
    with pytest.raises(CallRefusedError, match=advice) as caught:
        connect(gateway_sandbox.url, **settings).submit_batch(make_batch(1))
    assert caught.value.code == code
    assert caught.value.request_id
    assert totals(gateway_sandbox)["submits"] == 1


@pytest.mark.parametrize(("minutes", "side"), [(-20, "behind"), (20, "ahead of"), (8 * 60, "ahead of")])
def test_clock_offset_is_reported_in_seconds(
    gateway_sandbox: SandboxProcess, connect: Connect, make_batch: MakeBatch, minutes: int, side: str
) -> None:
    client = connect(gateway_sandbox.url, clock=lambda: datetime.now(UTC) + timedelta(minutes=minutes))
    with pytest.raises(CallRefusedError) as caught:
        client.submit_batch(make_batch(1))
    assert caught.value.code == "31"
    about = abs(minutes) * 60
    assert any(f"{about + off} s {side} the Date header" in str(caught.value) for off in (-2, -1, 0, 1, 2))


# --- privacy --------------------------------------------------------------------------------------------------


def test_errors_and_logs_hold_no_sent_value(
    gateway_sandbox: SandboxProcess, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    canary = {
        "phone_number": "10000031337",
        "email": "canary@example.com",
        "user_name": "金丝雀张三",
        "outer_user_id": "canary-user",
        "input_params": {"note": 'canary "note"'},
        "output_params": {"slot": "canary-slot"},
    }
    request = InitiativeBatchTaskRequest.model_validate(
        {"task_unique_code": "c", "plan_id": 1, "task_list": [canary]}
    )
    for kind in ("echo_values", "reset_after", "truncated", "refuse", "html", "reset_during"):
        gateway_sandbox.add_fault(kind=kind)
    caplog.set_level(logging.DEBUG)
    client = connect(gateway_sandbox.url, session_token="sandbox-session")
    shown = []
    for _ in range(6):
        with pytest.raises(LingyangError) as caught:
            client.submit_batch(request)
        shown.append(str(caught.value) + repr(vars(caught.value)) + repr(caught.value.__cause__))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    gateway_sandbox.add_fault(
        kind="error", code=7, sub_code=None, sub_msg="10000031337: This ban will last for 1 more seconds"
    )
    client.submit_batch(request)
    shown.append(caplog.text)
    assert "again in 2.0 s" in caplog.text
    assert "<phone_number>" in shown[0]
    for secret in ("10000031337", "canary", "金丝雀张三", "sandbox-secret", "sandbox-session"):
        assert secret not in "".join(shown)


def test_a_signature_that_is_quoted_back_is_not_shown(connect: Connect, serve: Serve) -> None:
    def quotes(connection: Any) -> bool:
        signature = server.requests[-1][1]["sign"]
        body = f'{{"error_response":{{"code":25,"msg":"Invalid signature {signature}"}}}}'.encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        return True

    server = serve(quotes)
    with pytest.raises(CallRefusedError, match="Invalid signature <sign>"):
        connect(server.url).call("a.method", {})


# --- the house ------------------------------------------------------------------------------------------------


def test_head_and_body_leave_in_one_write(
    gateway_sandbox: SandboxProcess, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []

    class Socket(socket.socket):
        def sendall(self, data: Any, flags: int = 0) -> None:
            writes.append(bytes(data))
            super().sendall(data, flags)

    monkeypatch.setattr(socket, "socket", Socket)
    client = connect(gateway_sandbox.url)
    for _ in range(2):
        client.call("taobao.time.get", {})
    assert len(writes) == 2
    assert all(b"method=taobao.time.get" in write for write in writes)


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("gateway.client", ("airflow.", "sqlalchemy.", "aiohttp.", "airflow_provider_lingyang.lookup.")),
        ("gateway.async_client", ("airflow.", "sqlalchemy.", "airflow_provider_lingyang.lookup.")),
        ("lookup.calls", ("airflow.", "sqlalchemy.", "aiohttp.", "requests.")),
    ],
)
def test_layers_import_nothing_above_them(module: str, banned: tuple[str, ...]) -> None:
    code = (
        f"import sys, airflow_provider_lingyang.{module}\n"
        f"sys.exit(any((name + '.').startswith({banned!r}) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_client_verifies_certificates_by_default() -> None:
    assert requests.Session().verify is True
