"""Conditions on which faults fire, and invalid rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.sandbox.client import Gateway

CONDITIONS: list[tuple[dict[str, Any], str]] = [
    ({}, "x......."),
    ({"times": 3}, "xxx....."),
    ({"times": None}, "xxxxxxxx"),
    ({"after": 2}, "..x....."),
    ({"after": 2, "times": 2}, "..xx...."),
    ({"every": 3}, "..x..x.."),
    ({"every": 3, "times": 1}, "..x....."),
    ({"every": 2, "after": 1, "times": 2}, "..x.x..."),
    ({"rate": 0}, "........"),
    ({"rate": 1}, "xxxxxxxx"),
]


def pattern(gateway: Gateway, count: int = 8) -> str:
    return "".join("." if gateway.submit().code == "200" else "x" for _ in range(count))


@pytest.mark.parametrize(("when", "expected"), CONDITIONS, ids=[str(case[0]) for case in CONDITIONS])
def test_rule_fires_as_configured(gateway: Gateway, when: dict[str, Any], expected: str) -> None:
    gateway.add_fault(kind="refuse", **when)
    assert pattern(gateway) == expected
    (rule,) = gateway.faults()
    assert rule["fired"] == rule["affected"] == expected.count("x")
    assert rule["rule"] == {"kind": "refuse", **when}


def test_a_rate_is_about_that_often_and_the_same_for_the_same_seed(gateway: Gateway) -> None:
    found = []
    for seed in (1, 1, 2):
        gateway.control("DELETE", "faults")
        gateway.add_fault(kind="refuse", rate=0.3, seed=seed)
        found.append(pattern(gateway, 60))
    assert found[0] == found[1] != found[2]
    assert all(8 <= one.count("x") <= 28 for one in found)


def test_a_schedule_mixes_kinds_reproducibly(gateway: Gateway) -> None:
    kinds = ["refuse", {"kind": "error", "code": 10, "sub_code": None}, {"kind": "http", "status": 503}]
    found = []
    for _ in range(2):
        gateway.control("POST", "reset")
        gateway.add_fault(schedule={"seed": 7, "rate": 0.5, "kinds": kinds})
        for _ in range(40):
            gateway.submit()
        found.append([request["outcome"] for request in gateway.record()["requests"]])
    assert found[0] == found[1]
    assert set(found[0]) == {"executed", "fault:refuse", "fault:error", "fault:http"}


def test_a_rule_is_about_its_method_and_match_only(gateway: Gateway) -> None:
    gateway.add_fault(kind="refuse", times=None, match={"batch_num": "2", "plan_id": 7})
    gateway.add_fault(kind="error", times=None, match={"biz_id": "order-9"})
    gateway.add_fault(kind="http", times=None, method="lookup")
    assert gateway.submit(batch_num="1").code == "200"
    assert gateway.submit(batch_num="2").code == "400"
    assert gateway.submit(batch_num="2", plan_id=8).code == "200"
    assert gateway.submit(task_list=[gateway.task(1), gateway.task(9)]).code == "15"
    assert gateway.call().json.keys() == {"time_get_response"}
    assert [rule["fired"] for rule in gateway.faults()] == [1, 1, 0]


def test_the_oldest_rule_goes_first_and_only_one_fires(gateway: Gateway) -> None:
    gateway.add_fault(kind="refuse")
    gateway.add_fault(kind="http")
    assert gateway.submit().code == "400"
    assert gateway.submit().status == 502
    assert gateway.submit().code == "200"


@pytest.mark.parametrize("kind", ["partial", "late_index", "echo", "echo_values"])
def test_kinds_that_make_sense_for_submits_only_wait_for_one(gateway: Gateway, kind: str) -> None:
    needs: dict[str, dict[str, Any]] = {"late_index": {"seconds": 1}, "echo": {"mode": "twice"}}
    gateway.add_fault(kind=kind, **needs.get(kind, {}))
    gateway.call()
    assert gateway.faults()[0]["fired"] == 0
    gateway.submit()
    assert gateway.faults()[0]["fired"] == 1


BAD_RULES: list[tuple[object, str]] = [
    ([], "a rule is a JSON object"),
    ({}, "needs a kind"),
    ({"kind": "nope"}, "unknown kind 'nope'; there are "),
    ({"kind": "http", "stauts": 500}, "http: unknown stauts; it takes status, executed"),
    ({"kind": "permission", "executed": True}, "permission: unknown executed; it takes nothing"),
    ({"kind": "reset_after", "executed": False}, "reset_after: unknown executed"),
    ({"kind": "http", "status": "500"}, "http: status must be int"),
    ({"kind": "http", "status": True}, "http: status must be int"),
    ({"kind": "http", "executed": 1}, "http: executed must be bool"),
    ({"kind": "slow"}, "slow: seconds is required"),
    ({"kind": "slow", "seconds": -1}, "slow: seconds must not be negative"),
    ({"kind": "clock", "seconds": 1e308}, "clock: seconds must be less than ten years"),
    ({"kind": "echo"}, "echo: mode is required"),
    ({"kind": "echo", "mode": "other"}, "echo: mode must be"),
    ({"kind": "error", "code": 1.5}, "error: code must be int | str"),
    ({"kind": "http", "times": 0}, "times must be a whole number of at least 1"),
    ({"kind": "http", "every": 0}, "every must be"),
    ({"kind": "http", "every": None}, "every must be"),
    ({"kind": "http", "after": -1}, "after must be"),
    ({"kind": "http", "rate": 2}, "rate must be a number from 0 to 1"),
    ({"kind": "http", "seed": "x"}, "seed must be a whole number"),
    ({"kind": "http", "method": "nope"}, "method must be submit, lookup or one of"),
    ({"kind": "http", "match": {"phone": "1"}}, "match must be an object with keys of batch_num"),
    ({"kind": "clock", "seconds": 1, "times": 1}, "clock is on until it is cleared; it takes none of times"),
    ({"schedule": {}}, "kinds must be a list"),
    ({"schedule": {"kinds": ["nope"]}}, "unknown kind"),
    ({"schedule": {"kinds": ["slow"]}}, "slow: seconds is required"),
    ({"schedule": {"kinds": ["session_required"]}}, "cannot be scheduled"),
    ({"schedule": {"kinds": ["http"], "status": 500}}, "unknown keys status"),
    ({"schedule": {"kinds": ["http"]}, "kind": "http"}, "and nothing else"),
]


@pytest.mark.parametrize(("rule", "message"), BAD_RULES, ids=[str(case[0]) for case in BAD_RULES])
def test_refuses_an_invalid_rule_with_the_reason(gateway: Gateway, rule: object, message: str) -> None:
    reply = gateway.http(json.dumps(rule).encode(), path="/sandbox/faults")
    assert reply.status == 400
    assert message in reply.json["error"]
    assert gateway.faults() == []


def test_rules_must_be_json(gateway: Gateway) -> None:
    for body in (b"kind=http", b"\xff", b""):
        reply = gateway.http(body, path="/sandbox/faults")
        assert (reply.status, reply.json) == (400, {"error": "the body is not JSON that can be used"})


def test_the_kinds_can_be_listed(gateway: Gateway) -> None:
    kinds = gateway.control("GET", "kinds")
    assert kinds["http"]["arguments"] == {"status": 502, "executed": False}
    assert kinds["slow"]["arguments"] == {"seconds": "required"}
    assert all(kind["what"] for kind in kinds.values())
