"""Other forms of a look-up's answer, on the wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, get_args

import pytest

from airflow_provider_lingyang.lookup.slots import read_slots
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.lookup_styles import Failure
from tests.sandbox.client import Gateway

Root = dict[str, dict[str, object]]
"""A whole answer in JSON."""
LookUp = Callable[..., Root]
IDS = ["order-0", "order-1", "order-2"]


@pytest.fixture
def look_up(gateway: Gateway) -> LookUp:
    """Look three recipients up while a rule is in force."""

    def look_up(rule: dict[str, Any], **struct: object) -> Root:
        gateway.submit(task_list=[gateway.task(number) for number in range(3)])
        gateway.moment += 60
        gateway.add_fault(**rule)
        query = {"biz_ids": IDS, **struct}
        root: Root = gateway.call(LOOKUP, task_result_query=json.dumps(query)).json
        return root

    return look_up


def result(root: Root) -> dict[str, Any]:
    (payload,) = root.values()
    found = payload["result"]
    assert isinstance(found, dict)
    return found


def items(root: Root) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = result(root)["data"].get("task_result", [])
    return found


@pytest.mark.parametrize("style", get_args(Failure))
def test_a_failed_look_up_has_no_results(look_up: LookUp, style: str) -> None:
    assert "order" not in json.dumps(look_up({"kind": "lookup_failed", "style": style}))


def test_a_rule_for_look_ups_leaves_submits_alone(gateway: Gateway) -> None:
    gateway.add_fault(kind="lookup_failed", times=None)
    assert gateway.submit().result["success"] is True
    assert gateway.record()["totals"]["requests"] >= 1


def test_without_a_flag_nothing_says_success(look_up: LookUp) -> None:
    found = look_up({"kind": "lookup_without_flag"})
    assert set(result(found)) == {"code", "data"}
    assert len(items(found)) == 3


@pytest.mark.parametrize(
    ("style", "ids"),
    [
        ("other_case", ["ORDER-0", "ORDER-1", "ORDER-2"]),
        ("numbers", IDS),
        ("strangers_only", ["of-another-campaign"]),
        ("stranger_beside", [*IDS, "of-another-campaign"]),
    ],
)
def test_ids_differ(look_up: LookUp, style: str, ids: list[str]) -> None:
    assert [item["biz_id"] for item in items(look_up({"kind": "lookup_ids", "style": style}))] == ids


@pytest.mark.parametrize(
    ("style", "created"),
    [
        ("utc", "2027-01-15 08:00:00"),
        ("utc_with_zone", "2027-01-15 08:00:00+00:00"),
        ("milliseconds", 1_800_000_000_000),
        ("year_1", "0001-01-01 00:00:00"),
        ("epoch", "1970-01-01 00:00:00"),
        ("none", None),
        ("far_future", "9999-12-31 23:59:59"),
    ],
)
def test_dates_are_in_another_form(look_up: LookUp, style: str, created: object) -> None:
    assert items(look_up({"kind": "lookup_dates", "style": style}))[0]["created_at"] == created


@pytest.mark.parametrize(
    ("style", "beside"),
    [
        ("total", {"total_count": 3}),
        ("has_next", {"has_next": True}),
        ("cursor", {"next_cursor": "c2"}),
        ("page_size", {"page_size": 2, "page_no": 1}),
        ("unsaid", {}),
        ("shifting", {"total_count": 3}),
    ],
)
def test_answers_in_pages(look_up: LookUp, gateway: Gateway, style: str, beside: dict[str, Any]) -> None:
    found = look_up({"kind": "lookup_pages", "style": style, "times": None})
    assert {
        name: value for name, value in result(found).items() if name not in ("code", "success", "data")
    } == beside
    assert [item["biz_id"] for item in items(found)] == IDS[:2]
    query = {"biz_ids": IDS, "page_no": 2, "page_size": 2}
    second = gateway.call(LOOKUP, task_result_query=json.dumps(query)).json
    assert [item["biz_id"] for item in items(second)] == ([] if style == "shifting" else IDS[2:])


@pytest.mark.parametrize(
    ("style", "order"), [("older_first", [1, 0]), ("older_last", [0, 1]), ("older_of_all", [0, 1])]
)
def test_several_results_of_one_recipient(look_up: LookUp, style: str, order: list[int]) -> None:
    found = [
        item
        for item in items(look_up({"kind": "lookup_several", "style": style}))
        if item["biz_id"] == "order-0"
    ]
    assert [item["created_at"] < "2027-01-14" for item in found] == [bool(each) for each in order]
    assert len({item["task_id"] for item in found}) == len(order)


@pytest.mark.parametrize(
    "style", ["list", "wrapped", "text_twice", "slots", "output", "data", "call_result", "message_text"]
)
def test_slots_are_readable_in_every_form(look_up: LookUp, style: str) -> None:
    (slots, readable) = read_slots(
        items(look_up({"kind": "lookup_slots", "style": style}))[0]["output_params"]
    )
    assert readable
    assert list(slots) == ["意向", "时间"]


def test_a_message_may_hold_no_slots(look_up: LookUp) -> None:
    assert read_slots(items(look_up({"kind": "lookup_slots", "style": "without"}))[0]["output_params"]) == (
        {},
        False,
    )


@pytest.mark.parametrize("style", ["boolean", "text", "nested"])
def test_a_status_is_in_another_form(look_up: LookUp, style: str) -> None:
    for item in items(look_up({"kind": "lookup_status", "style": style})):
        status = item["state"]["code"] if style == "nested" else item["status"]
        assert status in {"boolean": (True, False), "text": ("True", "False")}.get(
            style, ("ANSWERED", "NOT_REACHED")
        )
