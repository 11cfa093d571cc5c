"""Look-ups of results, and the simulated results."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from airflow_provider_lingyang.sandbox import simulated_people
from tests.sandbox.client import Gateway

LOOKUP = "sandbox.lingyang.utouch.query.task.result"
IDS = [f"recipient-{number}" for number in range(2000)]


def test_slots_fill_with_time_and_stay(gateway: Gateway) -> None:
    gateway.submit(task_list=[gateway.task(number) for number in range(20)])
    ids = [f"order-{number}" for number in range(20)]
    before = gateway.lookup(*ids)
    assert {item["status"] for item in before.values()} == {"WAITING"}
    assert all(item["output_params"] == '{"意向":"","时间":""}' for item in before.values())
    gateway.moment += 1.49
    assert {item["status"] for item in gateway.lookup(*ids).values()} == {"WAITING"}
    gateway.moment += 0.5
    assert len({item["status"] for item in gateway.lookup(*ids).values()}) > 1
    gateway.moment += 1.01
    after = gateway.lookup(*ids)
    assert {item["status"] for item in after.values()} == {"ANSWERED", "NOT_REACHED"}
    for item in after.values():
        slots = json.loads(item["output_params"])
        assert list(slots) == ["意向", "时间"]
        allowed = simulated_people.CHOICES if item["status"] == "ANSWERED" else ("",)
        assert set(slots.values()) <= set(allowed)
    gateway.moment += 1000
    assert gateway.lookup(*ids) == after


def test_created_at_is_the_time_of_execution_in_china(gateway: Gateway) -> None:
    gateway.moment = 1_710_230_756.0
    task_id = gateway.submit().echoes[0]["task_id"]
    gateway.moment += 60
    found = gateway.lookup("order-1")["order-1"]
    assert (found["created_at"], found["task_id"]) == ("2024-03-12 16:05:56", task_id)


def test_ids_that_are_not_known_are_left_out(gateway: Gateway) -> None:
    gateway.submit()
    assert set(gateway.lookup("order-1", "order-2")) == {"order-1"}
    assert gateway.lookup("order-2") == {}
    assert gateway.call(LOOKUP, simplify="true", task_result_query='{"biz_ids":["order-2"]}').json[
        "result"
    ] == {
        "code": "200",
        "success": True,
    }


def test_an_id_executed_twice_is_found_twice_the_oldest_first(gateway: Gateway) -> None:
    ids = [gateway.submit().echoes[0]["task_id"] for _ in range(2)]
    reply = gateway.call(LOOKUP, task_result_query='{"biz_ids":["order-1"]}')
    assert [item["task_id"] for item in reply.result["data"]["task_result"]] == ids


@pytest.mark.parametrize(
    ("struct", "code", "sub_code"),
    [
        ({"biz_ids": ["x"] * 50}, "200", ""),
        ({"biz_ids": ["x"] * 51}, "15", "isv.invalid-parameter:biz_ids"),
        ({"biz_ids": []}, "15", "isv.missing-parameter:biz_ids"),
        ({}, "15", "isv.missing-parameter:biz_ids"),
        ({"biz_ids": "x"}, "15", "isv.invalid-parameter:biz_ids"),
        ({"biz_ids": [1]}, "15", "isv.invalid-parameter:biz_ids"),
        ({"biz_ids": [""]}, "15", "isv.invalid-parameter:biz_ids"),
        ({"biz_ids": ["x"], "more": 1}, "15", "isv.invalid-parameter:more"),
        ([], "41", ""),
    ],
)
def test_the_look_up_checks_its_struct(gateway: Gateway, struct: object, code: str, sub_code: str) -> None:
    assert gateway.call(LOOKUP, task_result_query=json.dumps(struct)).code == code
    last = gateway.last_request()
    assert (last["code"], last["sub_code"], last["accepted"]) == (code, sub_code, 0)
    assert last["outcome"] == ("answered" if code == "200" else "refused")


def test_about_one_in_ten_is_not_reached_and_all_slot_values_occur() -> None:
    reached = [biz_id for biz_id in IDS if simulated_people.is_reached(0, biz_id)]
    assert 0.87 < len(reached) / len(IDS) < 0.93
    assert {simulated_people.slot_value(0, biz_id, "意向") for biz_id in IDS} == set(simulated_people.CHOICES)


def test_an_answer_takes_between_half_of_the_time_and_all_of_it() -> None:
    delays = [simulated_people.answer_delay(0, biz_id, 10) for biz_id in IDS]
    assert 5 <= min(delays) < 5.1
    assert 9.9 < max(delays) <= 10


@pytest.mark.parametrize(
    "draw", [simulated_people.is_reached, lambda seed, biz_id: simulated_people.answer_delay(seed, biz_id, 1)]
)
def test_another_seed_gives_other_results(draw: Callable[[int, str], object]) -> None:
    assert [draw(0, biz_id) for biz_id in IDS] == [draw(0, biz_id) for biz_id in IDS]
    assert [draw(0, biz_id) for biz_id in IDS] != [draw(1, biz_id) for biz_id in IDS]


def test_without_slots_there_is_still_a_status() -> None:
    assert simulated_people.result(0, "recipient-1", [], waited=0, answer_after=1) == ("WAITING", {})
    assert {simulated_people.result(0, biz_id, [], waited=1, answer_after=1)[0] for biz_id in IDS} == {
        "ANSWERED",
        "NOT_REACHED",
    }
