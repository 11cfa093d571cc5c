"""Submitting a batch: the wire's types, the answer's shapes, identity and what is executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.sandbox.client import Client, Gateway

STRINGS = ["outer_user_id", "user_name", "cms_member_type"]
NUMBERS = ["source_id", "department_id", "appointment_time_id", "policy_id", "book_user_id", "cms_user_id"]
JSONS = ["input_params", "output_params", "book_charge_biz_info"]
NOT_A_STRING: list[object] = [1, None, True, ["x"], {"x": 1}]
NOT_A_NUMBER: list[object] = ["1", None, True, 1.0, 1.5, 2**63, -(2**63) - 1, [1]]
NOT_JSON: list[object] = [
    "",
    "x",
    "[]",
    "null",
    '"{}"',
    {},
    None,
    1,
    '{"a":NaN}',
    '{"a":1,"a":2}',
    '{"\\ud800":""}',
]
NOT_A_DATE: list[object] = [
    "2024-03-12",
    "2024-03-12T14:05:56",
    "2024-02-30 00:00:00",
    "2024-3-12 14:05:56",
    1710230712,
    None,
    "",
]
NOT_A_PHONE: list[object] = ["1234", "1" * 21, "+8610000000001", "100-0000-0001", "", 10000000001]

NOT_TASKS: list[object] = [None, {}, "[]", ["x"], [None]]
NOT_A_STRUCT: list[object] = [None, [], "x"]

BAD_TASKS: list[tuple[str, object]] = (
    [(name, value) for name in STRINGS for value in NOT_A_STRING]
    + [(name, value) for name in NUMBERS for value in NOT_A_NUMBER]
    + [(name, value) for name in JSONS for value in NOT_JSON]
    + [("plan_execute_start_time", value) for value in NOT_A_DATE]
    + [("phone_number", value) for value in NOT_A_PHONE]
    + [("email", value) for value in ("", "nobody", "a@b@c", "a b@example.com", 1)]
    + [("biz_id", value) for value in ("", 1, None)]
    + [("nonsense", 1), ("bizId", "x"), ("plan_id", 7)]
)
BAD_BATCHES: list[tuple[str, object]] = [
    *[("task_unique_code", value) for value in NOT_A_STRING],
    *[("plan_id", value) for value in NOT_A_NUMBER],
    *[("batch_num", value) for value in [*NOT_A_STRING, "", "one", "1.0", "-1", "１"]],
    *[("task_list", value) for value in NOT_TASKS],
    *[("use_book_info", value) for value in NOT_A_STRUCT],
    ("nonsense", 1),
]


def put(struct: dict[str, Any], name: str, value: object) -> str:
    return json.dumps({**struct, name: value}, ensure_ascii=False)


@pytest.mark.parametrize(("name", "value"), BAD_TASKS)
def test_a_task_field_of_another_type_is_refused(gateway: Gateway, name: str, value: object) -> None:
    reply = gateway.submit(
        put(gateway.batch(), "task_list", [gateway.task(1), {**gateway.task(2), name: value}])
    )
    error = reply.json["error_response"]
    assert (error["code"], error["sub_code"]) == (15, f"isv.invalid-parameter:{name}")
    assert f"task_list[1].{name}" in error["sub_msg"]
    assert gateway.record()["executions"] == {"by_biz_id": {}, "by_contact": {}, "by_code": {}}


@pytest.mark.parametrize(("name", "value"), BAD_BATCHES)
def test_a_batch_field_of_another_type_is_refused(gateway: Gateway, name: str, value: object) -> None:
    error = gateway.submit(put(gateway.batch(), name, value)).json["error_response"]
    assert (error["code"], error["sub_code"]) == (15, f"isv.invalid-parameter:{name}")
    assert gateway.last_request()["executed"] is False


BOOK = {"use_platform": "P", "book_code": "B", "book_owner_id": 1}
MISSING: list[tuple[str, Callable[[Client], dict[str, Any]]]] = [
    ("task_unique_code", lambda g: g.batch(task_unique_code=None)),
    ("task_unique_code", lambda g: g.batch(task_unique_code="")),
    ("plan_id", lambda g: g.batch(plan_id=None)),
    ("task_list", lambda g: g.batch(task_list=None)),
    ("task_list", lambda g: g.batch(task_list=[])),
    ("input_params", lambda g: g.batch(task_list=[g.task(input_params=None)])),
    ("output_params", lambda g: g.batch(task_list=[g.task(output_params=None)])),
    *[
        (name, lambda g, name=name: g.batch(use_book_info={key: BOOK[key] for key in BOOK if key != name}))
        for name in BOOK
    ],
]


@pytest.mark.parametrize(("name", "make"), MISSING)
def test_a_required_field_that_is_not_there_is_named(
    gateway: Gateway, name: str, make: Callable[[Client], dict[str, Any]]
) -> None:
    error = gateway.submit(make(gateway)).json["error_response"]
    assert (error["code"], error["sub_code"]) == (15, f"isv.missing-parameter:{name}")
    assert error["sub_msg"].startswith(("缺少", "参数"))
    assert gateway.last_request()["executed"] is False


def test_a_task_without_any_contact_is_refused_in_the_result(gateway: Gateway) -> None:
    reply = gateway.submit(task_list=[gateway.task(1), gateway.task(2, phone_number=None)])
    assert (reply.result["code"], reply.result["success"]) == ("400", False)
    assert "task_list[1]" in reply.result["message"]
    last = gateway.last_request()
    assert (last["outcome"], last["executed"], last["code"]) == ("refused", False, "400")


def full_task(gateway: Gateway) -> dict[str, Any]:
    numbers = {name: 2**63 - 1 - index for index, name in enumerate(NUMBERS)}
    strings = {name: f"值 {name}" for name in STRINGS}
    more = {
        "email": "one@example.com",
        "book_charge_biz_info": "{}",
        "plan_execute_start_time": "2024-03-14 15:16:52",
    }
    task: dict[str, Any] = gateway.task(1, **numbers, **strings, **more)
    return task


def test_every_field_is_echoed_as_sent_but_dates_in_javas_form(gateway: Gateway) -> None:
    task = full_task(gateway)
    reply = gateway.submit(batch_num="1", use_book_info=BOOK, task_list=[task])
    assert reply.headers["Content-Type"] == "text/javascript;charset=UTF-8"
    assert (reply.result["code"], reply.result["success"]) == ("200", True)
    (echo,) = reply.echoes
    assert echo["task_request"] == {**task, "plan_execute_start_time": "Thu Mar 14 15:16:52 CST 2024"}


@pytest.mark.parametrize("contact", [{"email": "one@example.com"}, {"outer_user_id": "u-1"}])
def test_an_email_or_an_outer_user_id_is_contact_enough(gateway: Gateway, contact: dict[str, str]) -> None:
    assert gateway.submit(task_list=[gateway.task(phone_number=None, **contact)]).result["success"] is True
    assert gateway.record()["executions"]["by_contact"] == {next(iter(contact.values())): 1}


def test_the_simplified_answer_has_no_root_and_no_inner_list(gateway: Gateway) -> None:
    body = gateway.submit(system={"simplify": "true"}).json
    assert set(body) == {"result", "request_id"}
    assert [echo["task_request"]["biz_id"] for echo in body["result"]["data"]] == ["order-1"]
    refused = gateway.submit(system={"simplify": "true"}, plan_id=None).json
    assert refused["error_response"]["sub_code"] == "isv.missing-parameter:plan_id"


def test_xml_is_the_default_and_looks_like_the_api_page(gateway: Gateway) -> None:
    params = gateway.params(
        "alibaba.lingyang.utouch.submit.initiative.batch.task",
        format=None,
        simplify="true",
        initiative_batch_task_request=json.dumps(
            gateway.batch(task_list=[gateway.task(1, user_name="<张三> & \x01Co"), gateway.task(2)])
        ),
    )
    root = ElementTree.fromstring(gateway.send(gateway.signed(params)).body)
    assert root.tag == "alibaba_lingyang_utouch_submit_initiative_batch_task_response"
    assert (root.findtext("result/code"), root.findtext("result/success")) == ("200", "true")
    tasks = root.findall("result/data/initiative_task_response/task_request")
    assert [task.findtext("biz_id") for task in tasks] == ["order-1", "order-2"]
    assert tasks[0].findtext("user_name") == "<张三> & Co"
    assert root.findtext("request_id") == gateway.last_request()["request_id"]


def test_task_ids_are_distinct_int64_and_some_do_not_fit_a_double(gateway: Gateway) -> None:
    ids = [echo["task_id"] for echo in gateway.submit(task_list=[gateway.task(n) for n in range(100)]).echoes]
    assert len(set(ids)) == 100
    assert all(type(task_id) is int and 0 < task_id < 2**63 for task_id in ids)
    assert len({float(task_id) for task_id in ids}) < 100


def test_executes_a_code_again_without_dedupe(gateway: Gateway) -> None:
    first, second = gateway.submit(), gateway.submit()
    assert first.echoes[0]["task_id"] != second.echoes[0]["task_id"]
    record = gateway.record()
    assert record["executions"] == {
        "by_biz_id": {"order-1": 2},
        "by_contact": {"10000000001": 2},
        "by_code": {"code-1": 2},
    }
    assert (record["totals"]["duplicate_biz_ids"], record["totals"]["duplicate_contacts"]) == (1, 1)


def test_dedupe_repeats_the_answer_and_executes_nothing(
    start_gateway: Callable[..., Gateway],
) -> None:
    gateway = start_gateway(dedupe=True)
    struct = gateway.batch(task_list=[gateway.task(n) for n in range(5)])
    reordered = json.dumps(dict(reversed(struct.items())))
    first, second = gateway.submit(struct), gateway.submit(reordered)
    assert first.result == second.result
    record = gateway.record()
    assert [request["outcome"] for request in record["requests"]] == ["executed", "deduplicated"]
    assert [request["executed"] for request in record["requests"]] == [True, False]
    assert [request["accepted"] for request in record["requests"]] == [5, 5]
    assert (record["totals"]["executed_tasks"], record["totals"]["deduplicated"]) == (5, 1)


def test_dedupe_refuses_a_code_with_another_struct(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(dedupe=True)
    gateway.submit()
    error = gateway.submit(task_list=[gateway.task(2)]).json["error_response"]
    assert error["sub_code"] == "isv.invalid-parameter:task_unique_code"
    assert gateway.submit(task_unique_code="code-2", task_list=[gateway.task(2)]).result["success"] is True
    assert gateway.record()["executions"]["by_code"] == {"code-1": 1, "code-2": 1}


def test_dedupe_ignores_a_code_that_was_not_executed(start_gateway: Callable[..., Gateway]) -> None:
    gateway = start_gateway(dedupe=True)
    gateway.submit(plan_id="7")
    gateway.add_fault(kind="reset_before")
    with pytest.raises(ConnectionResetError):
        gateway.submit()
    assert gateway.submit().result["success"] is True
    assert gateway.record()["executions"]["by_code"] == {"code-1": 1}
