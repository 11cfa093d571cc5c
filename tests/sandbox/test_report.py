"""The report: requests in order of arrival, executions, and violations of the order."""

from __future__ import annotations

import json

import pytest

from airflow_provider_lingyang.sandbox.record import Entry, Record
from airflow_provider_lingyang.sandbox.report import report
from tests.sandbox.client import Gateway


def test_records_requests_in_order_of_arrival(gateway: Gateway) -> None:
    gateway.submit(batch_num="01", task_list=[gateway.task(1), gateway.task(2, biz_id=None)])
    gateway.moment += 2
    gateway.lookup("order-1", "order-5")
    gateway.call(v="1.0")
    gateway.submit(plan_id="7")
    first, second, third, fourth = gateway.record()["requests"]
    assert first == {
        "seq": 1,
        "method": "alibaba.lingyang.utouch.submit.initiative.batch.task",
        "received_at": 1_800_000_000.0,
        "answered_at": 1_800_000_000.0,
        "ended_at": 1_800_000_000.0,
        "outcome": "executed",
        "executed": True,
        "task_unique_code": "code-1",
        "batch_num": "01",
        "plan_id": 7,
        "biz_ids": ["order-1"],
        "accepted": 2,
        "code": "200",
        "sub_code": "",
        "request_id": first["request_id"],
    }
    assert (second["seq"], second["outcome"], second["biz_ids"]) == (2, "answered", ["order-1", "order-5"])
    assert second["received_at"] == 1_800_000_002.0
    assert (third["outcome"], third["code"], third["task_unique_code"]) == ("refused", "33", None)
    assert (fourth["outcome"], fourth["plan_id"], fourth["sub_code"]) == (
        "refused",
        None,
        "isv.invalid-parameter:plan_id",
    )
    assert gateway.record()["totals"] == {
        "requests": 4,
        "submits": 2,
        "lookups": 1,
        "others": 1,
        "executed_requests": 1,
        "executed_tasks": 2,
        "distinct_biz_ids": 1,
        "duplicate_biz_ids": 0,
        "duplicate_contacts": 0,
        "deduplicated": 0,
        "refused": 2,
        "throttled": 0,
        "faults": 0,
        "open": 0,
        "crashed": 0,
        "order_violations": 0,
    }


def test_contacts_are_counted_by_phone_and_email_and_else_by_outer_user_id(gateway: Gateway) -> None:
    tasks = [
        gateway.task(1, email="one@example.com", outer_user_id="u-1"),
        gateway.task(2, phone_number=None, email="one@example.com"),
        gateway.task(3, phone_number=None, outer_user_id="u-1"),
    ]
    gateway.submit(task_list=tasks)
    record = gateway.record()
    assert record["executions"]["by_contact"] == {"10000000001": 1, "one@example.com": 2, "u-1": 1}
    assert record["totals"]["duplicate_contacts"] == 1


def test_parts_of_the_report_can_be_left_out(gateway: Gateway) -> None:
    gateway.submit()
    assert set(gateway.control("GET", "record?requests=0")) == {
        "totals",
        "overlap",
        "order_violations",
        "executions",
    }
    assert set(gateway.control("GET", "record?requests=0&executions=0")) == {
        "totals",
        "overlap",
        "order_violations",
    }


def test_reset_deletes_all_but_reuses_no_id(gateway: Gateway) -> None:
    before = gateway.submit(batch_num="2").echoes[0]["task_id"]
    gateway.add_fault(kind="throttle", times=None)
    gateway.control("POST", "reset")
    record = gateway.record()
    assert (record["requests"], record["executions"]["by_biz_id"], set(record["totals"].values())) == (
        [],
        {},
        {0},
    )
    assert gateway.faults() == []
    assert gateway.lookup("order-1") == {}
    assert gateway.submit(batch_num="1").echoes[0]["task_id"] > 0 != before
    assert gateway.last_request()["seq"] > 1
    assert gateway.record()["order_violations"] == []


def test_reset_keeps_the_clock(gateway: Gateway) -> None:
    gateway.add_fault(kind="clock", seconds=1000)
    gateway.add_fault(kind="session_required")
    gateway.control("POST", "reset")
    assert [rule["rule"]["kind"] for rule in gateway.faults()] == ["clock"]


def test_batches_one_after_the_other_are_in_order(gateway: Gateway) -> None:
    for batch_num in ("2", "2", "10", "11", None):
        gateway.submit(batch_num=batch_num)
    record = gateway.record()
    assert (record["overlap"], record["order_violations"]) == (False, [])


def test_a_later_batch_while_an_earlier_one_is_unanswered_is_an_overlap(gateway: Gateway) -> None:
    gateway.add_fault(kind="no_answer", executed=False)
    with gateway.opened(gateway.submit_params(batch_num="2")):
        gateway.until(lambda: gateway.record()["totals"]["open"] == 1)
        gateway.submit(batch_num="10", plan_id=8)
        gateway.submit(batch_num="2")
        gateway.submit()
        assert gateway.record()["overlap"] is False
        gateway.submit(batch_num="10")
        record = gateway.record()
    assert record["overlap"] is True
    (violation,) = record["order_violations"]
    assert violation == {
        "kind": "overlap",
        "plan_id": 7,
        "seq": 5,
        "batch_num": "10",
        "other_seq": 1,
        "other_batch_num": "2",
    }


def test_an_abandoned_request_is_no_overlap(gateway: Gateway) -> None:
    gateway.add_fault(kind="no_answer")
    with gateway.opened(gateway.submit_params(batch_num="1")):
        gateway.until(lambda: gateway.record()["totals"]["open"] == 1)
    gateway.submit(batch_num="2")
    record = gateway.record()
    assert (record["overlap"], record["order_violations"]) == (False, [])
    request = record["requests"][0]
    assert (request["outcome"], request["executed"], request["answered_at"]) == (
        "fault:no_answer",
        True,
        None,
    )
    gateway.until(lambda: gateway.record()["totals"]["open"] == 0)


@pytest.mark.parametrize("gave_up", [False, True])
def test_an_abandoned_request_is_no_overlap_before_the_server_notices(gave_up: bool) -> None:
    record = Record()
    first = Entry("m", 0.0, "r-1", batch_num="1", plan_id=7, is_client_gone=lambda: gave_up)
    second = Entry("m", 0.0, "r-2", batch_num="2", plan_id=7)
    record.arrive(first)
    record.arrive(second)
    assert report(record.db)["overlap"] is not gave_up
    record.close()


def test_an_earlier_batch_after_a_later_one_is_late_even_when_that_was_refused(gateway: Gateway) -> None:
    gateway.add_fault(kind="throttle")
    gateway.submit(batch_num="10")
    gateway.moment += 5
    gateway.submit(batch_num="9")
    (violation,) = gateway.record()["order_violations"]
    assert (violation["kind"], violation["batch_num"], violation["other_batch_num"]) == ("late", "9", "10")
    assert gateway.record()["overlap"] is False


@pytest.mark.parametrize("batch_num", ["x", "9" * 19, "９", "²"])
def test_a_batch_num_that_is_no_number_has_no_place_in_the_order(gateway: Gateway, batch_num: str) -> None:
    gateway.submit(batch_num=batch_num)
    gateway.submit(batch_num="1")
    assert gateway.record()["order_violations"] == []


def test_reports_many_tasks(gateway: Gateway) -> None:
    for number in range(20):
        tasks = [gateway.task(number * 500 + index) for index in range(500)]
        gateway.submit(task_unique_code=f"code-{number}", task_list=tasks)
    totals = gateway.control("GET", "record?requests=0&executions=0")["totals"]
    assert (totals["executed_tasks"], totals["distinct_biz_ids"], totals["duplicate_biz_ids"]) == (
        10_000,
        10_000,
        0,
    )
    assert len(gateway.record()["executions"]["by_contact"]) == 10_000


@pytest.mark.parametrize(
    "struct",
    [
        {"task_list": 1},
        {"task_list": [1, {"biz_id": 2}]},
        {"plan_id": 2**70},
        {"batch_num": 3},
        {"plan_id": True},
    ],
)
def test_records_an_invalid_request(gateway: Gateway, struct: object) -> None:
    gateway.submit(json.dumps(struct))
    last = gateway.last_request()
    assert (last["outcome"], last["biz_ids"], last["plan_id"], last["batch_num"]) == (
        "refused",
        [],
        None,
        None,
    )
