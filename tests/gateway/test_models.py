"""The API page's structs: every field, the page's nesting, kind input, exact output, nothing private shown."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway import field_types
from airflow_provider_lingyang.gateway.dates import parse_date
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.models import (
    InitiativeBatchTaskRequest,
    InitiativeTaskEcho,
    InitiativeTaskRequest,
    InitiativeTaskResponse,
    UseBookInfo,
    explain,
)

TEXTS = ("biz_id", "outer_user_id", "user_name", "cms_member_type", "phone_number", "email")
NUMBERS = ("source_id", "department_id", "appointment_time_id", "policy_id", "book_user_id", "cms_user_id")
JSONS = ("input_params", "output_params", "book_charge_biz_info")
PRIVATE = (
    "phone_number",
    "email",
    "outer_user_id",
    "cms_user_id",
    "user_name",
    "input_params",
    "output_params",
    "book_charge_biz_info",
    "book_user_id",
)

PAGE_TASK: dict[str, Any] = {
    "source_id": 123,
    "department_id": 30001,
    "outer_user_id": "OUTER_USER_ID",
    "input_params": "{}",
    "user_name": "USER_NAME",
    "cms_member_type": "CMS_MEMBER_TYPE",
    "appointment_time_id": 1710230712,
    "phone_number": "10000000001",
    "policy_id": 123,
    "book_charge_biz_info": "{}",
    "output_params": "{}",
    "biz_id": "BIZ_ID",
    "book_user_id": 123,
    "cms_user_id": 123,
    "email": "1234@qq.com",
    "plan_execute_start_time": "2024-03-12 14:05:56",
}
"""The Java sample's obj4."""
PAGE_BATCH: dict[str, Any] = {
    "task_unique_code": "79326d4a-7fcd-4670-87e3-0b853d15dd6b",
    "batch_num": "1",
    "task_list": [PAGE_TASK],
    "plan_id": 123,
    "use_book_info": {"use_platform": "PLATFORM_A", "book_code": "BOOK_CODE", "book_owner_id": 123},
}
"""The Java sample's obj1."""

LEAST = {"input_params": "{}", "output_params": "{}"}


def task(**fields: Any) -> InitiativeTaskRequest:
    return InitiativeTaskRequest.model_validate(LEAST | fields)


def wire(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(model.to_json())
    return found


def problems(model: type[BaseModel], value: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    return explain(caught.value)


def reason(**fields: Any) -> str:
    """Why a task with these fields is refused; one reason, and none that repeats the value."""
    ((name, text),) = problems(InitiativeTaskRequest, LEAST | fields)
    assert [name] == list(fields)
    return text


@pytest.fixture(params=["UTC", "Asia/Shanghai", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu"])
def host_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


# --- the page -------------------------------------------------------------------------------------------------


def test_the_page_s_sample_request_is_written_field_for_field() -> None:
    assert wire(InitiativeBatchTaskRequest.model_validate(PAGE_BATCH)) == PAGE_BATCH


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (InitiativeTaskRequest, set(PAGE_TASK)),
        (InitiativeBatchTaskRequest, set(PAGE_BATCH)),
        (UseBookInfo, {"use_platform", "book_code", "book_owner_id"}),
        (InitiativeTaskResponse, {"task_id", "task_request"}),
        (InitiativeTaskEcho, set(PAGE_TASK)),
    ],
)
def test_the_models_have_the_page_s_fields_and_no_others(model: type[BaseModel], fields: set[str]) -> None:
    assert set(model.model_fields) == fields


@pytest.mark.parametrize(
    ("model", "required"),
    [
        (InitiativeTaskRequest, {"input_params", "output_params"}),
        (InitiativeBatchTaskRequest, {"task_unique_code", "task_list", "plan_id"}),
        (UseBookInfo, {"use_platform", "book_code", "book_owner_id"}),
    ],
)
def test_required_fields_are_those_of_the_api_page(model: type[BaseModel], required: set[str]) -> None:
    assert problems(model, {}) == [(name, "is missing") for name in model.model_fields if name in required]


def test_the_start_time_belongs_to_the_task_and_the_plan_to_the_batch() -> None:
    assert reason(plan_id=1) == "is not a field of the API"
    wrong = PAGE_BATCH | {"plan_execute_start_time": "2024-03-12 14:05:56"}
    assert problems(InitiativeBatchTaskRequest, wrong) == [
        ("plan_execute_start_time", "is not a field of the API")
    ]


def test_the_order_of_the_given_fields_does_not_matter() -> None:
    backwards = dict(reversed(PAGE_BATCH.items())) | {"task_list": [dict(reversed(PAGE_TASK.items()))]}
    one = InitiativeBatchTaskRequest.model_validate(PAGE_BATCH)
    assert InitiativeBatchTaskRequest.model_validate(backwards).to_json() == one.to_json()


def test_a_request_needs_tasks() -> None:
    assert problems(InitiativeBatchTaskRequest, PAGE_BATCH | {"task_list": []}) == [("task_list", "is empty")]


def test_error_in_a_nested_value_names_its_path() -> None:
    wrong = PAGE_BATCH | {
        "task_list": [PAGE_TASK, PAGE_TASK | {"phone_number": "12"}],
        "use_book_info": {"use_platform": "A", "book_code": "", "book_owner_id": "x"},
    }
    assert problems(InitiativeBatchTaskRequest, wrong) == [
        ("task_list.1.phone_number", "is not a phone number (5 to 20 digits)"),
        ("use_book_info.book_code", "is blank"),
        ("use_book_info.book_owner_id", "must be a whole number of at most 64 bits"),
    ]


# --- text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        ("a", "a"),
        ("  张三 ", "张三"),
        (7, "7"),
        (-7, "-7"),
        (2**63, "9223372036854775808"),
        (Decimal(7), "7"),
        (Decimal("7.000"), "7"),
        (Decimal("1E+3"), "1000"),
        (Decimal("12345678901234567890"), "12345678901234567890"),
        ("😀", "😀"),
        ("a\nb\t\x01", "a\nb\t\x01"),
        (None, None),
        ("", None),
        ("   ", None),
    ],
)
def test_text_takes_integers_and_drops_blanks(given_: Any, sent: str | None) -> None:
    assert wire(task(user_name=given_)).get("user_name") == sent


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        1.0,
        1.5,
        float("inf"),
        Decimal("1.5"),
        Decimal("Infinity"),
        Decimal("1E+999999999"),
        b"bytes",
        [],
        {},
        ["a"],
        date(2024, 1, 1),
        object(),
    ],
)
@pytest.mark.parametrize("field", ["user_name", "biz_id", "phone_number", "email"])
def test_text_refuses_what_has_no_one_spelling(field: str, value: Any) -> None:
    assert reason(**{field: value}) == "must be text"


@pytest.mark.parametrize("field", ["user_name", "biz_id", "outer_user_id", "cms_member_type"])
def test_text_that_is_not_unicode_is_refused(field: str) -> None:
    assert reason(**{field: "a\ud800"}) == "holds text that is not Unicode"


@pytest.mark.parametrize("name", ["use_platform", "book_code"])
def test_a_required_text_must_not_be_blank(name: str) -> None:
    book = {"use_platform": "A", "book_code": "B", "book_owner_id": 1}
    assert problems(UseBookInfo, book | {name: "  "}) == [(name, "is blank")]
    assert problems(UseBookInfo, book | {name: None}) == [(name, "is not valid (string_type)")]


def test_a_number_too_long_to_be_written_is_refused_without_its_digits() -> None:
    assert reason(user_name=10**5000) == "is not valid (value_error)"


# --- numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        (0, 0),
        (123, 123),
        ("123", 123),
        (" -5 ", -5),
        (Decimal(9), 9),
        (Decimal("9.0"), 9),
        (2**53 + 1, 2**53 + 1),
        (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1),
        (-(2**63), -(2**63)),
        (Decimal(2**63 - 1), 2**63 - 1),
        (None, None),
        ("", None),
        (" ", None),
    ],
)
def test_numbers_are_int64_given_as_integers_decimals_or_text(
    field: str, given_: Any, sent: int | None
) -> None:
    found = wire(task(**{field: given_})).get(field)
    assert found == sent
    assert type(found) is type(sent)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        1.0,
        1e300,
        float("inf"),
        2**63,
        -(2**63) - 1,
        str(2**63),
        Decimal(2**63),
        Decimal("1.5"),
        "1.0",
        "1e3",
        "0x10",
        "١٢",
        "1_000",
        "+1",
        "abc",
        "9" * 20,
        pytest.param("9" * 5000, id="long text"),
        pytest.param(10**5000, id="long"),
        b"1",
        [],
        {},
        Decimal("Infinity"),
        Decimal("1E+999999999"),
    ],
)
@pytest.mark.parametrize("field", ["source_id", "cms_user_id"])
def test_numbers_refuse_everything_else(field: str, value: Any) -> None:
    assert reason(**{field: value}) == "must be a whole number of at most 64 bits"


@pytest.mark.parametrize("value", [True, 1.0, "x", None, ""])
def test_the_plan_is_a_required_number(value: Any) -> None:
    ((name, _),) = problems(InitiativeBatchTaskRequest, PAGE_BATCH | {"plan_id": value})
    assert name == "plan_id"


# --- contacts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        ("10000000001", "10000000001"),
        (10000000001, "10000000001"),
        (Decimal(10000000001), "10000000001"),
        ("+86 100 0000 0001", "10000000001"),
        ("+8610000000001", "10000000001"),
        ("0086-100-0000-0001", "10000000001"),
        (" 100\t0000 0001 ", "10000000001"),
        ("010-00000001", "01000000001"),
        ("+86\xa010000000001", "10000000001"),
        ("12345", "12345"),
        ("+8612345", "12345"),
        ("1" * 20, "1" * 20),
        ("8610000000001", "8610000000001"),
        (None, None),
        ("", None),
        (" ", None),
    ],
)
def test_a_phone_number_has_one_form_however_it_is_written(given_: Any, sent: str | None) -> None:
    assert wire(task(phone_number=given_)).get("phone_number") == sent


@pytest.mark.parametrize(
    "value",
    [
        "1234",
        "1" * 21,
        "00861",
        "١٠٠٠٠٠٠٠٠٠٠",
        "1000000000a",
        "-",
        "+86",
        -10000000001,
        "-10000000001",
        "10000000001�",
        "n/a",
        "1.0e10",
        -10000000001.0,
    ],
)
def test_invalid_phone_number_is_refused(value: Any) -> None:
    assert reason(phone_number=value) in ("is not a phone number (5 to 20 digits)", "must be text")


@pytest.mark.parametrize(
    ("given_", "sent"), [(" a@b.c ", "a@b.c"), ("张@三.cn", "张@三.cn"), ("", None), (None, None)]
)
def test_an_email_address_is_stripped(given_: Any, sent: str | None) -> None:
    assert wire(task(email=given_)).get("email") == sent


@pytest.mark.parametrize("value", ["a", "@", "a@", "@b", "a b@c", "a@b@c", "a@b c", "a@b\nc"])
def test_invalid_email_address_is_refused(value: str) -> None:
    assert reason(email=value) == "is not an email address"


# --- dates ----------------------------------------------------------------------------------------------------

CST = timezone(timedelta(hours=8))
DATES = [
    (datetime(2024, 3, 12, 14, 5, 56), "2024-03-12 14:05:56"),
    (datetime(2024, 3, 12, 14, 5, 56, 999999), "2024-03-12 14:05:56"),
    (datetime(2024, 3, 12, 6, 5, 56, tzinfo=UTC), "2024-03-12 14:05:56"),
    (datetime(2024, 3, 12, 14, 5, 56, tzinfo=CST), "2024-03-12 14:05:56"),
    (datetime(2024, 3, 11, 20, 5, 56, tzinfo=timezone(timedelta(hours=-10))), "2024-03-12 14:05:56"),
    (datetime(2024, 12, 31, 16, 0, 0, tzinfo=UTC), "2025-01-01 00:00:00"),
    ("2024-03-12 14:05:56", "2024-03-12 14:05:56"),
    (" 2024-03-12 14:05:56 ", "2024-03-12 14:05:56"),
    ("2024-03-12 14:05", "2024-03-12 14:05:00"),
    ("2024-03-12T14:05:56", "2024-03-12 14:05:56"),
    ("2024-03-12T06:05:56Z", "2024-03-12 14:05:56"),
    ("2024-03-12T06:05:56.123456+00:00", "2024-03-12 14:05:56"),
    ("2024-03-12 01:05:56-05:00", "2024-03-12 14:05:56"),
    ("20240312T140556", "2024-03-12 14:05:56"),
    ("Thu Mar 14 15:16:52 CST 2024", "2024-03-14 15:16:52"),
    ("Tue Mar 12 06:05:56 UTC 2024", "2024-03-12 14:05:56"),
    ("Tue Mar 12 06:05:56 GMT 2024", "2024-03-12 14:05:56"),
    ("Tue Mar 12 14:05:56 GMT+08:00 2024", "2024-03-12 14:05:56"),
    ("Tue Mar 12 01:05:56 GMT-0500 2024", "2024-03-12 14:05:56"),
    # A summer night that does not exist in New York, and one that exists there twice.
    ("2024-03-10 02:30:00", "2024-03-10 02:30:00"),
    (datetime(2024, 11, 3, 1, 30), "2024-11-03 01:30:00"),
    (datetime(2000, 1, 1), "2000-01-01 00:00:00"),
    (datetime(2099, 12, 31, 23, 59, 59), "2099-12-31 23:59:59"),
]


@pytest.mark.parametrize(("given_", "sent"), DATES)
def test_dates_are_china_s_on_a_host_of_any_zone(host_zone: str, given_: Any, sent: str) -> None:
    assert wire(task(plan_execute_start_time=given_))["plan_execute_start_time"] == sent


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-12",
        "14:05:56",
        "now",
        "2024-13-12 14:05:56",
        "2024-02-30 10:00:00",
        "2024-03-12+08:00",
        "2024-W11-2T10:00",
        "Thu Foo 14 15:16:52 CST 2024",
        "Thu Mar 14 15:16:52 EDT 2024",
        "Thu Mar 32 15:16:52 CST 2024",
        "Thu Mar 14 15:16:52 GMT+99:00 2024",
        "２０２４-03-12 14:05:56",
        1710230712,
        1710230712000,
        1.5,
        True,
        date(2024, 3, 12),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=CST),
        [],
        {},
    ],
)
def test_invalid_date_is_refused(value: Any) -> None:
    assert reason(plan_execute_start_time=value) == "must be a date with a time, such as 2024-03-12 14:05:56"


@pytest.mark.parametrize(
    "value",
    [
        datetime(1, 1, 1),
        datetime(1, 1, 1, tzinfo=UTC),
        "0001-01-01 00:00:00",
        datetime(1970, 1, 1),
        "1999-12-31 23:59:59",
        datetime(1999, 12, 31, 15, 59, 59, tzinfo=UTC),
        datetime(2099, 12, 31, 16, tzinfo=UTC),
        "2100-01-01 00:00:00",
        datetime(9999, 12, 31),
    ],
)
def test_a_start_time_that_stands_for_none_is_refused(value: Any) -> None:
    assert reason(plan_execute_start_time=value) == "must be a date within the years 2000 to 2099"


@pytest.mark.parametrize("value", [None, "", "  "])
def test_no_date_is_not_sent(value: Any) -> None:
    assert "plan_execute_start_time" not in wire(task(plan_execute_start_time=value))


START_TIMES = {"min_value": datetime(2000, 1, 2), "max_value": datetime(2099, 12, 30)}


@given(moment=st.datetimes(**START_TIMES, timezones=st.just(UTC) | st.just(CST) | st.none()))
def test_a_date_that_was_written_is_read_as_the_same_second(moment: datetime) -> None:
    text = wire(task(plan_execute_start_time=moment))["plan_execute_start_time"]
    expected = moment.replace(tzinfo=CST) if moment.tzinfo is None else moment
    assert parse_date(text) == expected.replace(microsecond=0)


# --- strings that hold JSON -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", JSONS)
@pytest.mark.parametrize(
    ("given_", "sent"),
    [
        ({}, "{}"),
        ("{}", "{}"),
        (" {} \n", "{}"),
        ({"name": "张三"}, '{"name":"张三"}'),
        ('{"name":"张三"}', '{"name":"张三"}'),
        ('{"a": 1,  "b": [1, 2]}', '{"a": 1,  "b": [1, 2]}'),
        ({"quote": '"', "slash": "\\", "line": "\n"}, '{"quote":"\\"","slash":"\\\\","line":"\\n"}'),
        ({"emoji": "😀"}, '{"emoji":"😀"}'),
        ({"n": 1.5, "b": True, "x": None, "l": [1, {"y": 2}]}, '{"n":1.5,"b":true,"x":null,"l":[1,{"y":2}]}'),
        ({"price": Decimal("12.50")}, '{"price":"12.50"}'),
        ({"when": datetime(2024, 3, 12, 6, 0, tzinfo=UTC)}, '{"when":"2024-03-12 14:00:00"}'),
        ({"day": date(2024, 3, 12)}, '{"day":"2024-03-12"}'),
        ({"id": uuid.UUID(int=1)}, '{"id":"00000000-0000-0000-0000-000000000001"}'),
        ('{"a":"\\ud83d\\ude00"}', '{"a":"\\ud83d\\ude00"}'),
        ({1: "x"}, '{"1":"x"}'),
    ],
)
def test_a_json_string_takes_an_object_or_its_text_and_is_written_once(
    field: str, given_: Any, sent: str
) -> None:
    model = task(**{field: given_})
    assert getattr(model, field) == sent
    # Once into the string, once more as part of the struct: no third time.
    assert json.loads(wire(model)[field]) == json.loads(sent)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "null",
        "[]",
        '"{}"',
        "1",
        "{",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a":1,"a":2}',
        '{"a":"\\ud800"}',
        '{"a":"\ud800"}',
        '{"a":"raw\ncontrol"}',
        pytest.param("[" * 5000, id="deep"),
        pytest.param('{"a":' * 5000, id="open"),
        "\ufeff{}",
        [],
        [{}],
        1,
        1.5,
        True,
        b"{}",
        object(),
    ],
)
def test_invalid_json_object_is_refused(value: Any) -> None:
    assert reason(input_params=value) == "must be a JSON object"


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def circular() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("inf")},
        {"a": [float("nan"), float("-inf")]},
        {"a": "\ud800"},
        {"\udfff": 1},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {"a": Decimal("Infinity")},
        {"a": Decimal("1E+999999999")},
        {"a": timedelta(1)},
        {"a": datetime.max.replace(tzinfo=UTC)},
        {("a", "b"): 1},
        pytest.param(nested(100_000), id="deep"),
        pytest.param(circular(), id="circular"),
    ],
)
def test_an_object_that_json_cannot_hold_is_refused_whatever_is_in_it(value: Any) -> None:
    assert reason(input_params=value) == "holds a value that JSON cannot hold"


@pytest.mark.parametrize("field", ["input_params", "output_params"])
def test_the_required_json_strings_may_be_empty_objects_but_not_absent(field: str) -> None:
    assert reason(**{field: None}) == "is not valid (string_type)"


def test_a_book_info_that_is_blank_is_not_sent() -> None:
    assert "book_charge_biz_info" not in wire(task(book_charge_biz_info=" "))


# --- the wire -------------------------------------------------------------------------------------------------


def test_the_wire_is_compact_raw_and_without_nulls() -> None:
    model = task(user_name="张三😀", input_params={"城市": "杭州", "n": 1})
    assert model.to_json() == (
        '{"user_name":"张三😀","input_params":"{\\"城市\\":\\"杭州\\",\\"n\\":1}","output_params":"{}"}'
    )


def test_a_batch_without_options_holds_what_is_required_only() -> None:
    model = InitiativeBatchTaskRequest.model_validate(
        {"task_unique_code": "c", "plan_id": 1, "task_list": [LEAST]}
    )
    assert model.to_json() == (
        '{"task_unique_code":"c","task_list":[{"input_params":"{}","output_params":"{}"}],"plan_id":1}'
    )


def test_dump_json_is_compact_and_raw() -> None:
    assert dump_json({"名": ["三", 1, None, True]}) == '{"名":["三",1,null,true]}'
    with pytest.raises(PydanticCustomError):
        dump_json({"a": object()})


# --- privacy --------------------------------------------------------------------------------------------------

CANARY = "canary31337"


def canary_for(field: str) -> Any:
    if field in JSONS:
        return {"x": CANARY}
    if field == "phone_number":
        return "31337313373"
    if field == "email":
        return f"{CANARY}@example.com"
    return 31337313373 if field in NUMBERS else CANARY


@pytest.mark.parametrize("field", PRIVATE)
def test_repr_of_a_model_holds_no_private_value(field: str) -> None:
    model = task(**{field: canary_for(field)})
    batch = InitiativeBatchTaskRequest(task_unique_code="c", plan_id=1, task_list=[model])
    echo = InitiativeTaskResponse.model_validate({"task_id": 1, "task_request": json.loads(model.to_json())})
    for shown in (repr(model), str(model), repr(batch), str([batch]), repr(echo), str(echo)):
        assert "31337" not in shown
    assert "31337" in model.to_json()


@pytest.mark.parametrize("field", sorted(PAGE_TASK))
@pytest.mark.parametrize("value", [[CANARY, b""], {CANARY: {CANARY}}, f"\ud800{CANARY}", CANARY.encode()])
def test_no_reason_repeats_a_value(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        task(**{field: {"a": value} if field in JSONS else value})
    assert CANARY not in str(explain(caught.value))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("value", [CANARY, [CANARY], [{CANARY: 1}], [[CANARY]], None])
def test_no_reason_of_a_batch_repeats_a_value(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        InitiativeBatchTaskRequest.model_validate(PAGE_BATCH | {"task_list": value})
    reasons = [text for _, text in explain(caught.value)]
    assert CANARY not in str(reasons)


# --- the echo -------------------------------------------------------------------------------------------------


def test_the_page_s_sample_echo_is_read() -> None:
    echo = PAGE_TASK | {"plan_execute_start_time": "Thu Mar 14 15:16:52 CST 2024", "user_name": "USER_NANE"}
    found = InitiativeTaskResponse.model_validate({"task_id": 123, "task_request": echo})
    assert found.task_id == 123
    assert found.task_request is not None
    expected = echo | {"plan_execute_start_time": datetime(2024, 3, 14, 15, 16, 52, tzinfo=CST)}
    assert found.task_request.model_dump() == expected


@pytest.mark.parametrize(
    "text", ["2024-03-14 15:16:52", "Thu Mar 14 15:16:52 CST 2024", "2024-03-14T07:16:52Z"]
)
def test_an_echo_s_date_is_read_in_both_forms_on_any_host(host_zone: str, text: str) -> None:
    echo = InitiativeTaskEcho.model_validate({"plan_execute_start_time": text})
    assert echo.plan_execute_start_time == datetime(2024, 3, 14, 15, 16, 52, tzinfo=CST)


@pytest.mark.parametrize("value", ["soon", "2024-03-14", "", 1710400612000, True, ["x"], {"x": 1}])
def test_an_echo_s_odd_date_does_not_spoil_the_answer(value: Any) -> None:
    assert InitiativeTaskEcho.model_validate({"biz_id": "b", "plan_execute_start_time": value}).biz_id == "b"


@pytest.mark.parametrize("field", sorted(set(PAGE_TASK) - {"biz_id"}))
@pytest.mark.parametrize("value", [None, "", "text", 1, 1.5, True, 2**70, [], {}, {"a": [1]}, "\ud800"])
def test_only_the_biz_id_of_an_echo_has_to_be_readable(field: str, value: Any) -> None:
    assert InitiativeTaskEcho.model_validate({"biz_id": "b", field: value}).biz_id == "b"


@pytest.mark.parametrize(
    ("value", "biz_id"), [("b", "b"), (7, "7"), (2**63, "9223372036854775808"), (None, None)]
)
def test_a_biz_id_comes_back_as_text(value: Any, biz_id: str | None) -> None:
    assert InitiativeTaskEcho.model_validate({"biz_id": value}).biz_id == biz_id


@pytest.mark.parametrize("value", [2**53 + 1, str(2**53 + 1)])
def test_task_ids_beyond_what_floats_can_hold_are_exact(value: Any) -> None:
    assert InitiativeTaskResponse.model_validate({"task_id": value}).task_id == 9007199254740993


def test_fields_that_the_page_does_not_know_are_ignored_in_answers() -> None:
    answer = {"task_id": 1, "new": 1, "task_request": {"biz_id": "b", "new": {}}}
    assert InitiativeTaskResponse.model_validate(answer).task_request == InitiativeTaskEcho(biz_id="b")


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    text=st.one_of(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ).map(json.dumps),
        st.sampled_from(
            [
                '{"a": 1, "a": 2}',
                '{"a": NaN}',
                '{"a": "\\ud800"}',
                '{"a": 1e5}',
                "[1]",
                '{"a":\t1}',
                '{"a": {"b": 1, "b": 1}}',
                '{"a": 1, "\\u0061": 2}',
                '{"a": ":", "a": 2}',
                '{"a": "\\"", "a": 1}',
                '{"a" : 1, "a": 2}',
                '{"a": [{"b": 1}, {"b": 1}], "b": 1}',
                '{"a": "\ud800"}',
                '{"a": 1e999}',
                '{"a": "\x00"}',
                '{"a": 1,}',
                '{"a": 1} {}',
            ]
        ),
    )
)
def test_a_json_object_that_is_taken_the_short_way_is_one_the_long_way_too(text: str) -> None:
    if field_types._is_flat(text):
        assert field_types.parse_json_object(text) == json.loads(text)
