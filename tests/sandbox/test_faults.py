"""Every kind of fault: the answer to the client, and whether the work is done."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.fault_registry import FAULT_KINDS
from airflow_provider_lingyang.sandbox.faults import PAGE
from tests.sandbox.client import TIMEOUT, Gateway, Reply

LOST = Reply(0, {}, b"")
"""Stands for a connection that was lost before the end of the answer."""
Check = Callable[[Reply], None]


def submit(gateway: Gateway, timeout: float = TIMEOUT) -> Reply:
    """Submit a batch of four tasks; return the reply or LOST."""
    try:
        return gateway.send(
            gateway.submit_params(task_list=[gateway.task(n) for n in range(4)]), timeout=timeout
        )
    except (OSError, http.client.HTTPException):
        return LOST


def lost(reply: Reply) -> None:
    assert reply == LOST


def error(code: str, sub_code: str | None = None, sub_msg: str = "") -> Check:
    def check(reply: Reply) -> None:
        body = reply.json["error_response"]
        assert (reply.status, str(body["code"]), body.get("sub_code")) == (200, code, sub_code)
        assert sub_msg in body.get("sub_msg", "")

    return check


def page(status: int) -> Check:
    def check(reply: Reply) -> None:
        assert (reply.status, reply.body, reply.headers["Content-Type"]) == (
            status,
            PAGE,
            "text/html;charset=UTF-8",
        )

    return check


def accepted(count: int) -> Check:
    def check(reply: Reply) -> None:
        assert reply.result["success"] is True
        assert len(reply.echoes) == count

    return check


def refused(reply: Reply) -> None:
    assert (reply.result["success"], reply.result["code"], reply.result["message"]) == (
        False,
        "400",
        "参数错误",
    )


def unreadable(reply: Reply) -> None:
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json  # noqa: B018  # reading it raises


def is_empty(reply: Reply) -> None:
    assert (reply.status, reply.body) == (200, b"")


def is_xml(reply: Reply) -> None:
    assert reply.headers["Content-Type"] == "text/xml;charset=UTF-8"
    assert reply.body.count(b"<task_id>") == 4


def has_control_characters(reply: Reply) -> None:
    unreadable(reply)
    (payload,) = json.loads(reply.body, strict=False).values()
    assert (payload["result"]["success"], payload["result"]["message"]) == (True, "操作成功\x01\t\n\x1f")


def has_other_root(reply: Reply) -> None:
    assert set(reply.json) == {"something_else_response"}
    accepted(4)(reply)


def echo_of(*expected: str | None) -> Check:
    def check(reply: Reply) -> None:
        assert [echo["task_request"].get("biz_id") for echo in reply.echoes] == list(expected)

    return check


def repeats_values(reply: Reply) -> None:
    error("15", "isv.invalid-parameter", "10000000000")(reply)
    assert "张三" in reply.json["error_response"]["sub_msg"]


def flat(code: str, error_type: str) -> Check:
    def check(reply: Reply) -> None:
        assert (reply.status, reply.json["code"], reply.json["type"]) == (200, code, error_type)
        assert reply.json["request_id"]

    return check


def under(status: int) -> Check:
    def check(reply: Reply) -> None:
        assert (reply.status, set(reply.json)) == (status, {"error_response"})

    return check


def says(*words: str) -> Check:
    def check(reply: Reply) -> None:
        assert reply.status == 200
        assert all(word.encode() in reply.body for word in words)
        reply.json  # noqa: B018  # must be readable

    return check


CONTRADICTIONS = {
    "error_beside_success": says('"success":true', '"error_response"'),
    "error_inside_success": says('{"error_response"', '"result":{"'),
    "success_inside_error": says('{"error_response"', '"success": true'),
    "two_answers": says('"success":true', '"another_response"'),
    "refused_with_echoes": says('"success":false', '"task_request"'),
    "success_without_echo": accepted(0),
    "success_twice": says('"success":true,"success":false'),
    "data_twice": says('"data":{"initiative_task_response":[{}]},"data":'),
}
ORDERS = [f"order-{number}" for number in range(4)]
THROTTLED = "accesscontrol.limited-by-api-access-count"
FAULTS: list[tuple[dict[str, Any], Check, int]] = [
    ({"kind": "throttle"}, error("7", THROTTLED, "This ban will last for 1 more seconds"), 0),
    ({"kind": "throttle", "seconds": 31062, "code": 4, "sub_code": "x"}, error("4", "x", " 31062 more"), 0),
    ({"kind": "error"}, error("15", "isp.remote-service-error"), 0),
    ({"kind": "error", "code": "word", "msg": "m", "sub_code": None, "sub_msg": None}, error("word"), 0),
    ({"kind": "error", "code": 50, "sub_code": "isp.x", "executed": True}, error("50", "isp.x"), 4),
    ({"kind": "error", "status": 502, "executed": True}, under(502), 4),
    ({"kind": "flat_error"}, flat("ApiCallLimit", "ISV"), 0),
    ({"kind": "flat_error", "code": "X", "type": "ISP", "executed": True}, flat("X", "ISP"), 4),
    *(({"kind": "contradiction", "mode": mode}, check, 4) for mode, check in CONTRADICTIONS.items()),
    ({"kind": "contradiction", "mode": "success_without_echo", "executed": False}, accepted(0), 0),
    ({"kind": "echo", "mode": "other_case"}, echo_of("ORDER-0", *[f"order-{n}" for n in range(1, 4)]), 4),
    ({"kind": "refuse"}, refused, 0),
    ({"kind": "permission"}, error("11", "isv.permission-api-package-limit"), 0),
    ({"kind": "ip"}, error("11", "isv.permission-ip-whitelist-limit"), 0),
    ({"kind": "echo_values"}, repeats_values, 0),
    ({"kind": "http"}, page(502), 0),
    ({"kind": "http", "status": 503, "executed": True}, page(503), 4),
    ({"kind": "no_answer"}, lost, 4),
    ({"kind": "no_answer", "executed": False}, lost, 0),
    ({"kind": "slow", "seconds": 600}, lost, 4),
    ({"kind": "slow", "seconds": 0.01}, accepted(4), 4),
    ({"kind": "reset_before"}, lost, 0),
    ({"kind": "reset_during"}, lost, 4),
    ({"kind": "reset_after"}, lost, 4),
    ({"kind": "truncated"}, unreadable, 4),
    ({"kind": "empty"}, is_empty, 4),
    ({"kind": "empty", "executed": False}, is_empty, 0),
    ({"kind": "html"}, page(200), 4),
    ({"kind": "html", "executed": False}, page(200), 0),
    ({"kind": "xml"}, is_xml, 4),
    ({"kind": "wrong_root"}, has_other_root, 4),
    ({"kind": "control_characters"}, has_control_characters, 4),
    ({"kind": "partial"}, echo_of("order-1", "order-3"), 2),
    ({"kind": "partial", "first": 3}, echo_of("order-0", "order-1", "order-2"), 3),
    ({"kind": "partial", "first": 0}, accepted(0), 0),
    ({"kind": "partial", "every_kth": 3}, echo_of("order-2"), 1),
    ({"kind": "echo", "mode": "unknown_biz_id"}, echo_of("unknown-biz-id", *ORDERS[1:]), 4),
    ({"kind": "echo", "mode": "twice"}, echo_of(*ORDERS, "order-0"), 4),
    ({"kind": "echo", "mode": "positions_shuffled"}, echo_of(*reversed(ORDERS)), 4),
    ({"kind": "echo", "mode": "missing_biz_id"}, echo_of(None, *ORDERS[1:]), 4),
    ({"kind": "late_index", "seconds": 60}, accepted(4), 4),
]
SWITCHES = {"clock", "session_required"}


def test_every_kind_is_covered_here() -> None:
    of_lookups = {name for name, kind in FAULT_KINDS.items() if kind.lookups_only}
    assert {rule["kind"] for rule, _, _ in FAULTS} | SWITCHES == set(FAULT_KINDS) - of_lookups


@pytest.mark.parametrize(("rule", "check", "executed"), FAULTS, ids=[str(fault[0]) for fault in FAULTS])
def test_fault_has_its_documented_effect(
    gateway: Gateway, rule: dict[str, Any], check: Check, executed: int
) -> None:
    assert gateway.add_fault(**rule)["fired"] == 0
    held = check is lost and rule["kind"] in ("no_answer", "slow")
    check(submit(gateway, timeout=1 if held else TIMEOUT))
    gateway.until(lambda: gateway.record()["totals"]["requests"] == 1)
    record = gateway.record()
    (request,) = record["requests"]
    assert request["outcome"] == ("throttled" if rule["kind"] == "throttle" else f"fault:{rule['kind']}")
    assert record["totals"]["executed_tasks"] == request["accepted"] == executed
    assert record["executions"]["by_biz_id"].keys() <= set(ORDERS)
    assert request["executed"] is (executed > 0 or rule.get("first") == 0)
    gateway.until(lambda: gateway.last_request()["ended_at"] is not None)
    assert (gateway.last_request()["answered_at"] is None) is (check is lost)
    assert gateway.faults()[0]["fired"] == 1


@pytest.mark.parametrize(
    "rule",
    [
        rule
        for rule, _, executed in FAULTS
        if executed and rule["kind"] not in ("no_answer", "slow", "error", "http")
    ],
    ids=str,
)
def test_a_fault_makes_no_success_of_an_invalid_request(gateway: Gateway, rule: dict[str, Any]) -> None:
    gateway.add_fault(**rule)
    try:
        body = gateway.submit(plan_id="7").body
    except (OSError, http.client.HTTPException):
        body = b""
    assert b"true" not in body
    assert b"task_id" not in body
    assert gateway.last_request()["executed"] is False
    assert gateway.record()["totals"]["executed_tasks"] == 0


def test_faults_come_after_the_protocols_checks(gateway: Gateway) -> None:
    gateway.add_fault(kind="throttle", times=None)
    assert gateway.call(v="1.0").code == "33"
    assert gateway.call().code == "7"


def test_a_ban_throttles_every_request_until_it_is_over(gateway: Gateway) -> None:
    gateway.add_fault(kind="throttle", seconds=10)
    said = []
    for _ in range(4):
        said.append(gateway.call().json["error_response"]["sub_msg"])
        gateway.moment += 3
    assert said == [f"This ban will last for {left} more seconds" for left in (10, 7, 4, 1)]
    assert gateway.submit().result["success"] is True
    (rule,) = gateway.faults()
    assert (rule["fired"], rule["affected"]) == (1, 4)
    assert gateway.record()["totals"]["throttled"] == 4


def test_a_ban_may_be_about_one_method_only(gateway: Gateway) -> None:
    gateway.add_fault(kind="throttle", seconds=10, method="submit")
    assert [gateway.submit().code, gateway.submit().code] == ["7", "7"]
    assert "time_get_response" in gateway.call().json


def test_clearing_the_faults_ends_a_ban(gateway: Gateway) -> None:
    gateway.add_fault(kind="throttle", seconds=1000)
    assert gateway.submit().code == "7"
    gateway.control("DELETE", "faults")
    assert gateway.submit().code == "200"


def test_dedupe_covers_a_lost_answer(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(dedupe=True)
    gateway.add_fault(kind="reset_after")
    assert submit(gateway) == LOST
    accepted(4)(submit(gateway))
    assert [request["outcome"] for request in gateway.record()["requests"]] == [
        "fault:reset_after",
        "deduplicated",
    ]
    assert set(gateway.record()["executions"]["by_biz_id"].values()) == {1}


def test_dedupe_repeats_a_partial_answer(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(dedupe=True)
    gateway.add_fault(kind="partial", every_kth=2)
    assert submit(gateway).echoes == submit(gateway).echoes
    assert gateway.record()["totals"]["executed_tasks"] == 2


def test_reset_before_resets_the_connection(gateway: Gateway) -> None:
    gateway.add_fault(kind="reset_before")
    with gateway.opened(gateway.submit_params()) as connection, pytest.raises(ConnectionResetError):
        connection.recv(100)


def test_reset_during_sends_headers_and_half_of_the_body(gateway: Gateway) -> None:
    gateway.add_fault(kind="reset_during")
    text = b""
    with gateway.opened(gateway.submit_params()) as connection, contextlib.suppress(ConnectionResetError):
        while True:
            chunk = connection.recv(65536)
            assert chunk, "it ended, but it was not reset"
            text += chunk
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    announced = int(head.lower().partition(b"content-length: ")[2].split()[0])
    assert 0 < len(body) < announced


def test_late_index_delays_look_ups(gateway: Gateway) -> None:
    gateway.add_fault(kind="late_index", seconds=60)
    gateway.submit()
    gateway.moment += 59
    assert gateway.lookup("order-1") == {}
    gateway.moment += 1
    assert gateway.lookup("order-1")["order-1"]["status"] in ("ANSWERED", "NOT_REACHED")


@pytest.mark.parametrize("seconds", [-1000, 1000])
def test_clock_shifts_the_gateways_time(gateway: Gateway, seconds: int) -> None:
    gateway.add_fault(kind="clock", seconds=seconds)
    assert gateway.call().code == "31"
    assert gateway.last_request()["outcome"] == "refused"
    ours = gateway.timestamp(seconds)
    assert gateway.call(timestamp=ours).json["time_get_response"]["time"] == ours
    gateway.send(gateway.submit_params(system={"timestamp": ours}))
    query = {"task_result_query": '{"biz_ids":["order-1"]}', "timestamp": ours}
    found = gateway.call("sandbox.lingyang.utouch.query.task.result", **query).result
    assert found["data"]["task_result"][0]["created_at"] == ours
    gateway.control("DELETE", "faults")
    assert gateway.call().json.keys() == {"time_get_response"}


def test_faults_apply_to_look_ups(gateway: Gateway) -> None:
    lookup = "sandbox.lingyang.utouch.query.task.result"
    gateway.add_fault(kind="http", status=500, method="lookup")
    assert gateway.submit().status == 200
    assert gateway.call(lookup, task_result_query='{"biz_ids":["order-1"]}').status == 500
    gateway.add_fault(kind="control_characters", method="lookup")
    body = gateway.call(lookup, task_result_query='{"biz_ids":["order-1"]}').body
    assert b"\x01" in body


def test_slow_delays_the_answer(gateway: Gateway) -> None:
    gateway.add_fault(kind="slow", seconds=0.2)
    started = time.monotonic()
    assert gateway.submit().result["success"] is True
    assert time.monotonic() - started >= 0.2
