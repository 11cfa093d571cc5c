"""Every kind of fault: what the client sees, and whether the work was done."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.fault_registry import KINDS
from airflow_provider_lingyang.sandbox.faults import PAGE

LOST = "lost"
"""What a client sees that gets no whole answer."""


def seen(gateway: Any, tasks: int = 4) -> Any:
    """Submit a batch: the reply, or LOST."""
    try:
        return gateway.send(
            gateway.submit_params(task_list=[gateway.task(n) for n in range(tasks)]), timeout=0.3
        )
    except (OSError, http.client.HTTPException):
        return LOST


def lost(reply: Any) -> None:
    assert reply == LOST


def error(code: str, sub_code: str | None = None, sub_msg: str = "") -> Callable[[Any], None]:
    def check(reply: Any) -> None:
        body = reply.json["error_response"]
        assert (reply.status, str(body["code"]), body.get("sub_code")) == (200, code, sub_code)
        assert sub_msg in body.get("sub_msg", "")

    return check


def page(status: int) -> Callable[[Any], None]:
    def check(reply: Any) -> None:
        assert (reply.status, reply.body, reply.headers["Content-Type"]) == (
            status,
            PAGE,
            "text/html;charset=UTF-8",
        )

    return check


def accepted(count: int) -> Callable[[Any], None]:
    def check(reply: Any) -> None:
        assert reply.result["success"] is True
        assert len(reply.echoes) == count

    return check


def refused(reply: Any) -> None:
    assert (reply.result["success"], reply.result["code"], reply.result["message"]) == (
        False,
        "400",
        "参数错误",
    )


def unreadable(reply: Any) -> None:
    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json  # noqa: B018


def is_empty(reply: Any) -> None:
    assert (reply.status, reply.body) == (200, b"")


def is_xml(reply: Any) -> None:
    assert reply.headers["Content-Type"] == "text/xml;charset=UTF-8"
    assert reply.body.count(b"<task_id>") == 4


def has_control_characters(reply: Any) -> None:
    unreadable(reply)
    (payload,) = json.loads(reply.body, strict=False).values()
    assert (payload["result"]["success"], payload["result"]["message"]) == (True, "操作成功\x01\t\n\x1f")


def has_other_root(reply: Any) -> None:
    assert set(reply.json) == {"something_else_response"}
    accepted(4)(reply)


def echo_of(*expected: str | None) -> Callable[[Any], None]:
    def check(reply: Any) -> None:
        assert [echo["task_request"].get("biz_id") for echo in reply.echoes] == list(expected)

    return check


def repeats_values(reply: Any) -> None:
    error("15", "isv.invalid-parameter", "10000000000")(reply)
    assert "张三" in reply.json["error_response"]["sub_msg"]


ORDERS = [f"order-{number}" for number in range(4)]
THROTTLED = "accesscontrol.limited-by-api-access-count"
FAULTS: list[tuple[dict[str, Any], Callable[[Any], None], int]] = [
    ({"kind": "throttle"}, error("7", THROTTLED, "This ban will last for 1 more seconds"), 0),
    ({"kind": "throttle", "seconds": 31062, "code": 4, "sub_code": "x"}, error("4", "x", " 31062 more"), 0),
    ({"kind": "error"}, error("15", "isp.remote-service-error"), 0),
    ({"kind": "error", "code": "word", "msg": "m", "sub_code": None, "sub_msg": None}, error("word"), 0),
    ({"kind": "error", "code": 50, "sub_code": "isp.x", "executed": True}, error("50", "isp.x"), 4),
    ({"kind": "refuse"}, refused, 0),
    ({"kind": "permission"}, error("11", "isv.permission-api-package-limit"), 0),
    ({"kind": "ip"}, error("11", "isv.permission-ip-whitelist-limit"), 0),
    ({"kind": "echo_values"}, repeats_values, 0),
    ({"kind": "http"}, page(502), 0),
    ({"kind": "http", "status": 503, "executed": True}, page(503), 4),
    ({"kind": "no_answer"}, lost, 4),
    ({"kind": "no_answer", "executed": False}, lost, 0),
    ({"kind": "slow", "seconds": 30}, lost, 4),
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
    ({"kind": "echo", "mode": "unknown_biz_id"}, echo_of("nobody-by-that-id", *ORDERS[1:]), 4),
    ({"kind": "echo", "mode": "twice"}, echo_of(*ORDERS, "order-0"), 4),
    ({"kind": "echo", "mode": "positions_shuffled"}, echo_of(*reversed(ORDERS)), 4),
    ({"kind": "echo", "mode": "missing_biz_id"}, echo_of(None, *ORDERS[1:]), 4),
    ({"kind": "late_index", "seconds": 60}, accepted(4), 4),
]
SWITCHES = {"clock", "session_required"}


def test_every_kind_is_covered_here() -> None:
    assert {rule["kind"] for rule, _, _ in FAULTS} | SWITCHES == set(KINDS)


@pytest.mark.parametrize(("rule", "check", "executed"), FAULTS, ids=[str(fault[0]) for fault in FAULTS])
def test_a_fault_does_what_it_says(
    gateway: Any, rule: dict[str, Any], check: Callable[[Any], None], executed: int
) -> None:
    assert gateway.fault(**rule)["fired"] == 0
    check(seen(gateway))
    record = gateway.record()
    (request,) = record["requests"]
    assert request["outcome"] == "throttled" if rule["kind"] == "throttle" else f"fault:{rule['kind']}"
    assert record["totals"]["executed_tasks"] == request["accepted"] == executed
    assert record["executions"]["by_biz_id"].keys() <= set(ORDERS)
    assert request["executed"] is (executed > 0 or rule.get("first") == 0)
    gateway.until(lambda: gateway.last()["ended_at"] is not None)
    assert (gateway.last()["answered_at"] is None) is (check is lost)
    assert gateway.control("GET", "faults")["faults"][0]["fired"] == 1


@pytest.mark.parametrize(
    "rule",
    [
        rule
        for rule, _, executed in FAULTS
        if executed and rule["kind"] not in ("no_answer", "slow", "error", "http")
    ],
    ids=str,
)
def test_no_fault_makes_a_success_of_a_request_that_is_wrong(gateway: Any, rule: dict[str, Any]) -> None:
    gateway.fault(**rule)
    try:
        body = gateway.submit(plan_id="7").body
    except (OSError, http.client.HTTPException):
        body = b""
    assert b"true" not in body
    assert b"task_id" not in body
    assert gateway.last()["executed"] is False
    assert gateway.record()["totals"]["executed_tasks"] == 0


def test_faults_come_after_the_protocols_checks(gateway: Any) -> None:
    gateway.fault(kind="throttle", times=None)
    assert gateway.call(v="1.0").code == "33"
    assert gateway.call().code == "7"


def test_a_ban_throttles_every_request_until_it_is_over(gateway: Any) -> None:
    gateway.fault(kind="throttle", seconds=10)
    said = []
    for _ in range(4):
        said.append(gateway.call().json["error_response"]["sub_msg"])
        gateway.moment += 3
    assert said == [f"This ban will last for {left} more seconds" for left in (10, 7, 4, 1)]
    assert gateway.submit().result["success"] is True
    (rule,) = gateway.control("GET", "faults")["faults"]
    assert (rule["fired"], rule["affected"]) == (1, 4)
    assert gateway.record()["totals"]["throttled"] == 4


def test_a_ban_may_be_about_one_method_only(gateway: Any) -> None:
    gateway.fault(kind="throttle", seconds=10, method="submit")
    assert [gateway.submit().code, gateway.submit().code] == ["7", "7"]
    assert "time_get_response" in gateway.call().json


def test_clearing_the_faults_ends_a_ban(gateway: Any) -> None:
    gateway.fault(kind="throttle", seconds=1000)
    assert gateway.submit().code == "7"
    gateway.control("DELETE", "faults")
    assert gateway.submit().code == "200"


def test_work_whose_answer_was_lost_is_remembered_by_dedupe(start_gateway: Any) -> None:
    gateway = start_gateway(dedupe=True)
    gateway.fault(kind="reset_after")
    assert seen(gateway) == LOST
    accepted(4)(seen(gateway))
    assert [request["outcome"] for request in gateway.record()["requests"]] == [
        "fault:reset_after",
        "deduplicated",
    ]
    assert set(gateway.record()["executions"]["by_biz_id"].values()) == {1}


def test_a_partial_answer_is_the_same_again(start_gateway: Any) -> None:
    gateway = start_gateway(dedupe=True)
    gateway.fault(kind="partial", every_kth=2)
    assert seen(gateway).echoes == seen(gateway).echoes
    assert gateway.record()["totals"]["executed_tasks"] == 2


def test_a_reset_is_a_reset(gateway: Any) -> None:
    gateway.fault(kind="reset_before")
    with gateway.opened(gateway.submit_params()) as connection, pytest.raises(ConnectionResetError):
        connection.recv(100)


def test_a_reset_in_between_comes_after_the_headers_and_some_of_the_body(gateway: Any) -> None:
    gateway.fault(kind="reset_during")
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


def test_a_late_index_finds_what_was_executed_only_later(gateway: Any) -> None:
    gateway.fault(kind="late_index", seconds=60)
    gateway.submit()
    gateway.moment += 59
    assert gateway.lookup("order-1") == {}
    gateway.moment += 1
    assert gateway.lookup("order-1")["order-1"]["status"] in ("ANSWERED", "NOT_REACHED")


@pytest.mark.parametrize("seconds", [-1000, 1000])
def test_the_gateways_clock_can_be_off(gateway: Any, seconds: int) -> None:
    gateway.fault(kind="clock", seconds=seconds)
    assert gateway.call().code == "31"
    assert gateway.last()["outcome"] == "refused"
    ours = gateway.timestamp(seconds)
    assert gateway.call(timestamp=ours).json["time_get_response"]["time"] == ours
    gateway.send(gateway.submit_params(system={"timestamp": ours}))
    query = {"task_result_query": '{"biz_ids":["order-1"]}', "timestamp": ours}
    found = gateway.call("sandbox.lingyang.utouch.query.task.result", **query).result
    assert found["data"]["task_result"][0]["created_at"] == ours
    gateway.control("DELETE", "faults")
    assert gateway.call().json.keys() == {"time_get_response"}


def test_a_look_up_can_fail_too(gateway: Any) -> None:
    lookup = "sandbox.lingyang.utouch.query.task.result"
    gateway.fault(kind="http", status=500, method="lookup")
    assert gateway.submit().status == 200
    assert gateway.call(lookup, task_result_query='{"biz_ids":["order-1"]}').status == 500
    gateway.fault(kind="control_characters", method="lookup")
    body = gateway.call(lookup, task_result_query='{"biz_ids":["order-1"]}').body
    assert b"\x01" in body


def test_slow_is_slow(gateway: Any) -> None:
    gateway.fault(kind="slow", seconds=0.2)
    started = time.monotonic()
    assert gateway.submit().result["success"] is True
    assert time.monotonic() - started >= 0.2
