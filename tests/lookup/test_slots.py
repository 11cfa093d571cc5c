"""Slots in every shape of the platform: its lists, its pushed message from any level, JSON in JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_lingyang.lookup.slots import read_slots

SLOTS = [{"name": "意向", "action": "x", "value": "有", "required": True}, {"name": "时间", "value": None}]
READ = {"意向": "有", "时间": None}
LISTS: list[Any] = [
    SLOTS,
    {"call_result_slot": SLOTS},
    json.dumps(SLOTS),
    {"call_result_slot": json.dumps(SLOTS)},
]
MESSAGES: list[Any] = [
    *({"slots": slots} for slots in LISTS),
    *({"slots": slots, "intentions": [], "info": {"duration": 3}} for slots in LISTS),
    {"output": {"slots": SLOTS, "intentions": {"x": []}}},
    {"output": json.dumps({"slots": SLOTS})},
    {"data": {"output": {"slots": {"call_result_slot": SLOTS}}, "info": {}}},
    {"call_result_key_info": {"task_id": 5}, "call_result": {"data": {"output": {"slots": SLOTS}}}},
    {"call_result": json.dumps({"data": json.dumps({"output": json.dumps({"slots": SLOTS})})})},
]


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    "form", [lambda value: value, text, lambda value: text(text(value)), lambda v: f" {text(v)}\n"]
)
@pytest.mark.parametrize(
    "message", [SLOTS, {"call_result_slot": SLOTS}, READ, *MESSAGES], ids=range(3 + len(MESSAGES))
)
def test_slots_are_found_in_every_shape(message: Any, form: Any) -> None:
    assert read_slots(form(message)) == (READ, True)


@pytest.mark.parametrize(
    "slots", [{"call_result_slot": SLOTS[0]}, SLOTS[:1], {"name": "意向", "value": "有"}, {"意向": "有"}]
)
def test_one_slot_is_a_list_too(slots: Any) -> None:
    assert read_slots({"slots": slots}) == ({"意向": "有"}, True)


@pytest.mark.parametrize(
    "slots", [[], {}, None, {"call_result_slot": []}, {"call_result_slot": {}}, "[]", "{}"]
)
@pytest.mark.parametrize(
    "wrap", [lambda x: {"slots": x}, lambda x: {"call_result": {"data": {"output": {"slots": x}}}}]
)
def test_an_empty_list_of_slots_is_none_and_readable(slots: Any, wrap: Any) -> None:
    assert read_slots(wrap(slots)) == ({}, True)


@pytest.mark.parametrize(
    "message",
    [
        {"call_result": {"data": {"info": {"duration": 3}}}},
        {"call_result": {"data": None}},
        {"call_result": "{}"},
        {"call_result_key_info": {"task_id": 5}},
        {"data": {"output": {}}},
        {"output": {"intentions": []}},
        {"info": {"code": "106"}, "intentions": []},
        {"intentions": [{"name": "x", "finished": True}]},
        [1, 2],
        ["slots"],
        7,
        True,
        "text",
        "[" * 100_000,
        '"' + "\\" * 99,
    ],
    ids=range(15),
)
def test_a_message_without_slots_is_unreadable(message: Any) -> None:
    assert read_slots(message) == ({}, False)


@pytest.mark.parametrize(
    "slots",
    [
        {"slots": "two", "size": "3"},
        {"output": "yes"},
        {"data": ""},
        {"info": None, "a": "b"},
        {"name": "Zhang", "value": "5"},
        {"choices": ["a", "b"]},
        {"a": {"b": "c"}},
        {"slots": [{"size": "two"}]},
        {"call_result": "no"},
    ],
    ids=str,
)
def test_an_object_slot_value_may_use_any_names(slots: Any) -> None:
    assert read_slots(slots) == (slots, True)
    assert read_slots(text(slots)) == (slots, True)


def test_endless_nesting_of_slots_is_bounded() -> None:
    deep: Any = SLOTS
    for _ in range(5000):
        deep = {"data": deep}
    assert read_slots(deep) == ({}, False)
