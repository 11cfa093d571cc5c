"""The short way for plain rows gives, to the character, what the model gives, or leaves the row to it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_lingyang.audience.fast_path import READERS
from airflow_provider_lingyang.audience.parser import Recipient, RowParser
from airflow_provider_lingyang.gateway.models import InitiativeTaskRequest


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
FIELDS = [*READERS, "batch_num"]
CHANNELS: list[str | None] = [None, "call", "sms", "email"]


def reader(**changes: Any) -> RowParser:
    arguments: dict[str, Any] = {
        "columns": {},
        "task_defaults": {},
        "input_params_columns": {},
        "output_slots": [],
        "channel": None,
        "campaign": "campaign/1",
        "key": "secret",
    }
    return RowParser(**(arguments | changes))


def both(given: RowParser, names: Sequence[str], values: Sequence[Any]) -> tuple[Any, Any]:
    """What the short way makes of a row, and what the model does."""
    shape = given._layout_of(tuple(names), all_needed=True)
    plain = shape.plain.read(values)
    return plain and Recipient(1, *plain), given._validate(1, shape, values)


PLAIN: dict[str, Any] = {
    "biz_id": "B1",
    "phone_number": "10000000001",
    "email": "A@example.com",
    "input_params": "{}",
    "output_params": {"a": "b"},
    "batch_num": "3",
}


@settings(max_examples=400, deadline=None)
@given(data=st.data(), changed=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4))
def test_the_short_way_agrees_with_the_model(data: st.DataObject, changed: dict[str, Any]) -> None:
    row = PLAIN | changed
    for name in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=2)):
        row.pop(name, None)
    variables = data.draw(st.dictionaries(st.sampled_from(["name", '客"户', "价"]), VALUES, max_size=2))
    names = [*row, *(f"v{number}" for number in range(len(variables)))]
    given = reader(
        task_defaults=data.draw(
            st.dictionaries(st.sampled_from([n for n in FIELDS if n != "biz_id"]), VALUES, max_size=2)
        ),
        input_params_columns={variable: f"v{number}" for number, variable in enumerate(variables)},
        output_slots=data.draw(st.sampled_from([[], ["intention", '理"由']])),
        channel=data.draw(st.sampled_from(CHANNELS)),
        identity_version=data.draw(st.sampled_from([1, 2])),
        plan_variables_as_text=data.draw(st.booleans()),
        international_numbers=data.draw(st.booleans()),
    )
    plain, judged = both(given, names, [*row.values(), *variables.values()])
    assert plain is None or plain == judged


@pytest.mark.parametrize("name", FIELDS)
def test_the_short_way_agrees_with_the_model_about_every_value_we_thought_of(name: str) -> None:
    given = reader()
    for value in [*TEXTS, *OTHERS]:
        row = PLAIN | {name: value}
        plain, judged = both(given, list(row), list(row.values()))
        assert plain is None or plain == judged, repr(value)


@pytest.mark.parametrize("as_text", [True, False])
def test_the_short_way_agrees_with_the_model_about_every_plan_variable_we_thought_of(as_text: bool) -> None:
    given = reader(input_params_columns={"v": "v"}, plan_variables_as_text=as_text)
    for value in [*TEXTS, *OTHERS]:
        row = PLAIN | {"input_params": None, "v": value}
        plain, judged = both(given, list(row), list(row.values()))
        assert plain is None or plain == judged, repr(value)


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, PLAIN),
        ({"channel": "email"}, PLAIN),
        ({}, {name: value for name, value in PLAIN.items() if name != "biz_id"}),
        ({}, PLAIN | {"biz_id": 7, "phone_number": 10000000001, "batch_num": 2, "source_id": "8"}),
        ({}, PLAIN | {"plan_execute_start_time": datetime(2030, 1, 1, tzinfo=UTC), "email": None}),
        ({"output_slots": ["a"]}, PLAIN | {"output_params": None}),
        ({"task_defaults": {"input_params": {}}}, PLAIN | {"input_params": " "}),
        (
            {"input_params_columns": {"a": "v", "b": "w", "c": "x"}},
            PLAIN | {"input_params": None, "v": "客户", "w": Decimal("1.10"), "x": date(2030, 1, 1)},
        ),
    ],
)
def test_an_ordinary_row_goes_the_short_way(changes: dict[str, Any], row: dict[str, Any]) -> None:
    plain, judged = both(reader(**changes), list(row), list(row.values()))
    assert plain == judged
    assert isinstance(plain, Recipient)


def test_every_field_of_the_model_has_a_reader() -> None:
    assert list(READERS) == list(InitiativeTaskRequest.model_fields)
