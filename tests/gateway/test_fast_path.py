"""The fast path gives, to the character, what the models give, or leaves the task to them."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from airflow_provider_lingyang.gateway import fast_path
from airflow_provider_lingyang.gateway.fast_path import FastRequest, FastTask, request_json, validate_task
from airflow_provider_lingyang.gateway.field_types import ALLOW_INTERNATIONAL
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest, InitiativeTaskRequest


class Level(IntEnum):
    GOLD = 3


class Text(str):
    """A driver's own kind of text."""


OFFSET = timezone(timedelta(hours=-3, minutes=-30))
TEXTS = [
    "", " ", "B1", " B1", "B1 ", "\x1cB1", "B1\u3000", "\u00a0", "客户 😀", 'a"b\\c', "a\n\t\x01\x7f\x80b", "\u2028", "\ud800", "a\0b",
    "15400000001", "8615400000001", "015400000001", "01020000001", "020200000011", "0102000000111", "+1 4000000001",
    "001400000000", "010-20000001-1", "15400000001\n", "a@b.", "A@xn--B.c", "a@b..c", "ａ@b", "a\u200b@b",
    "10000000001", "008610000000001", "+8610000000001", "8610000000001", "100-0000 0001", "٣٣٣٣٣", "²²²²²", "1234", "1" * 21,
    "a@b", "A@B.C", "a@b c", "a@\x1cb", "@", "0", "007", "-7", "9" * 18, "9" * 19, "9" * 20, "1.0", "NaN", "null",
    "{}", " {} ", '{"a":1}', '{"a":1,"a":2}', '{"a":"\\ud800"}', '{"a":NaN}', "[]", "{", '{"客":"户"}',
    "2024-03-12 14:05:56", " 2024-03-12T14:05:56Z", "20240312 14", "2024-03-12", "Thu Mar 14 15:16:52 CST 2024",
]  # fmt: skip
OTHERS = [
    None, True, False, 0, 7, -7, 10**10, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**5000, Level.GOLD, Text("B2"), b"x",
    0.0, 1.5, -0.0, 1e22, float("nan"), float("inf"), Decimal("7"), Decimal("7.00"), Decimal("7.10"), Decimal("1E+3"),
    Decimal("1E+200"), Decimal("NaN"), Decimal("-0"), date(2024, 3, 12), datetime(2024, 3, 12, 14, 5, 56, 789),
    datetime(2024, 3, 12, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=OFFSET),
    datetime(9999, 12, 31, 23, tzinfo=UTC), datetime.min, datetime.max, uuid.UUID(int=7), {}, {"a": "b"}, {1: 2, "1": 3},
    {"a": {"b": [1, None]}}, {"a": float("nan")}, {"a": Decimal("1.10")}, {"a": "\ud800"}, [], [1], (), object(),
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from([*TEXTS, *OTHERS]),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.datetimes(timezones=st.sampled_from([None, UTC, OFFSET])),
)
FIELDS = list(InitiativeTaskRequest.model_fields)
PLAIN: dict[str, Any] = {
    "biz_id": "B1",
    "phone_number": "10000000001",
    "email": "A@example.com",
    "input_params": "{}",
    "output_params": {"a": "b"},
}


def by_model(task: dict[str, Any], *, international: bool = False) -> str | None:
    try:
        return InitiativeTaskRequest.model_validate(
            task, context={ALLOW_INTERNATIONAL: international}
        ).to_json()
    except ValidationError:
        return None


def fast(task: dict[str, Any], *, international: bool = False) -> str | None:
    """Return the JSON of a task; None: it is invalid."""
    given = {name: value for name, value in task.items() if value is not None}
    try:
        return to_json(validate_task(given, allow_international=international)).decode()
    except ValidationError:
        return None


def fast_request(**request: Any) -> dict[str, Any]:
    return {"task_unique_code": "code", "plan_id": 7, "task_list": [PLAIN], **request}


@settings(max_examples=400, deadline=None)
@given(
    changed=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    left_out=st.lists(st.sampled_from(sorted(PLAIN)), max_size=2),
    international=st.booleans(),
)
def test_agrees_with_the_model(changed: dict[str, Any], left_out: list[str], international: bool) -> None:
    task = {name: value for name, value in (PLAIN | changed).items() if name not in left_out}
    assert fast(task, international=international) == by_model(task, international=international)


@pytest.mark.parametrize("name", FIELDS)
def test_agrees_with_the_model_about_every_value_we_thought_of(name: str) -> None:
    for value in [*TEXTS, *OTHERS]:
        task = PLAIN | {name: value}
        assert fast(task) == by_model(task), repr(value)


@pytest.mark.parametrize("name", list(InitiativeBatchTaskRequest.model_fields))
def test_agrees_with_the_model_of_a_request(name: str) -> None:
    tasks = [
        [],
        [PLAIN, PLAIN | {"phone_number": "+86 10000000001"}],
        [InitiativeTaskRequest(**PLAIN)],
        [None],
        [{}],
    ]
    tasks += [[PLAIN | {field: None}] for field in FIELDS]
    books = [{"use_platform": "p", "book_code": "c", "book_owner_id": "1"}, {"use_platform": "p"}]
    for value in [*TEXTS, *OTHERS, *tasks, *books]:
        request = fast_request(**{name: value})
        try:
            expected = InitiativeBatchTaskRequest.model_validate(request).to_json()
        except ValidationError:
            with pytest.raises(ValidationError):
                request_json(request)
        else:
            assert request_json(request) == expected, repr(value)


def test_an_unknown_field_is_invalid() -> None:
    with pytest.raises(ValidationError):
        validate_task(PLAIN | {"colour": "red"})
    with pytest.raises(ValidationError):
        request_json(fast_request(colour="red"))


@pytest.mark.parametrize("international", [True, False])
def test_another_country_s_number_is_allowed_where_it_may_be(international: bool) -> None:
    abroad = PLAIN | {"phone_number": "+1 4000000001"}
    if international:
        assert validate_task(abroad, allow_international=True)["phone_number"] == "0014000000001"
        request_json(fast_request(task_list=[abroad]), allow_international=True)
        return
    with pytest.raises(ValidationError):
        validate_task(abroad)
    with pytest.raises(ValidationError):
        request_json(fast_request(task_list=[abroad]))


ORDINARY = [
    {},
    {"biz_id": 7, "phone_number": 10000000001, "source_id": "8"},
    {"phone_number": "01020000001", "outer_user_id": "会员"},
    {"input_params": {"amount": 12.5}, "book_charge_biz_info": '{"cost_center": "crm"}'},
    {"plan_execute_start_time": datetime(2030, 1, 1, tzinfo=UTC)},
    {"plan_execute_start_time": "2030-01-01 00:00:00"},
]


@pytest.mark.parametrize("changed", ORDINARY)
def test_an_ordinary_task_needs_no_model(changed: dict[str, Any]) -> None:
    task = PLAIN | changed
    assert to_json(fast_path._TASK.validate_python(task)).decode() == by_model(task)
    found = fast_path._REQUEST.validate_python(fast_request(task_list=[task | {"cms_user_id": None}]))
    assert isinstance(found["task_list"][0], dict)


@pytest.mark.parametrize(
    ("plain", "model"), [(FastTask, InitiativeTaskRequest), (FastRequest, InitiativeBatchTaskRequest)]
)
def test_has_the_fields_of_the_model_in_their_order(plain: type, model: type[BaseModel]) -> None:
    assert list(plain.__annotations__) == list(model.model_fields)
