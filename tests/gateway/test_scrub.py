"""A request's values leave no text that the gateway writes about it."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lingyang.gateway.form_encoding import form_encoded
from airflow_provider_lingyang.gateway.models import SUBMIT_PARAM, InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.scrub import Scrubber

TASK: dict[str, Any] = {
    "biz_id": "order-1",
    "phone_number": "10000000001",
    "email": "zhang.san+1@example.com",
    "outer_user_id": "tb/张三",
    "cms_user_id": 8812345678,
    "user_name": '张"三\\',
    "input_params": {
        "name": "李 四",
        "note": 'say "hi" & <bye>\n',
        "amount": 12345.75,
        "nested": {"list": ["王五王五"]},
    },
    "output_params": {"slot": "default-answer"},
    "source_id": 4455667,
    "department_id": 30001,
    "cms_member_type": "GOLD-MEMBER",
    "appointment_time_id": 1710230712,
    "policy_id": 998877,
    "book_charge_biz_info": {"cost center": "K-77/甲"},
    "book_user_id": 5566778899,
    "plan_execute_start_time": "2024-03-12 14:05:56",
}
BATCH = {
    "task_unique_code": "79326d4a-7fcd-4670-87e3-0b853d15dd6b",
    "batch_num": "12",
    "plan_id": 1234567,
    "task_list": [TASK],
    "use_book_info": {"use_platform": "PLATFORM_A", "book_code": "BOOK-CODE", "book_owner_id": 7788990},
}
VALUES = {
    "phone_number": "10000000001",
    "email": "zhang.san+1@example.com",
    "outer_user_id": "tb/张三",
    "cms_user_id": "8812345678",
    "user_name": '张"三\\',
    "name": "李 四",
    "note": 'say "hi" & <bye>\n',
    "amount": "12345.75",
    "list": "王五王五",
    "slot": "default-answer",
    "source_id": "4455667",
    "department_id": "30001",
    "cms_member_type": "GOLD-MEMBER",
    "appointment_time_id": "1710230712",
    "policy_id": "998877",
    "cost center": "K-77/甲",
    "book_user_id": "5566778899",
    "plan_execute_start_time": "2024-03-12 14:05:56",
    "book_owner_id": "7788990",
    "use_platform": "PLATFORM_A",
    "book_code": "BOOK-CODE",
}
"""Field → the value of it that no text may hold."""


def escaped(value: str, times: int, *, ascii_only: bool) -> str:
    for _ in range(times):
        value = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
    return value


SPELLINGS = {
    "raw": lambda value: value,
    "in JSON": lambda value: escaped(value, 1, ascii_only=False),
    "in ASCII JSON": lambda value: escaped(value, 1, ascii_only=True),
    "in ASCII JSON of Java": lambda value: "".join(
        f"\\u{ord(c):04X}" if ord(c) > 127 else escaped(c, 1, ascii_only=True) for c in value
    ),
    "in JSON in JSON": lambda value: escaped(value, 2, ascii_only=False),
    "in ASCII JSON in JSON": lambda value: escaped(value, 2, ascii_only=True),
    "in a form": quote_plus,
    "in the form that was sent": lambda value: form_encoded(value).decode(),
    "in a URL": lambda value: quote(value, safe=""),
}
STRUCT = InitiativeBatchTaskRequest.model_validate(BATCH).to_json()


@pytest.fixture(scope="module")
def scrub() -> Scrubber:
    return Scrubber({SUBMIT_PARAM: STRUCT}, {"the-app-secret": "app_secret", "the-session": "session_token"})


@pytest.mark.parametrize("field", VALUES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_value_of_a_request_becomes_its_field_s_name(
    scrub: Scrubber, field: str, spelling: str
) -> None:
    value = SPELLINGS[spelling](VALUES[field])
    assert scrub(f"非法参数:{value}!") == f"非法参数:<{field}>!"


@pytest.mark.parametrize("kept", ["order-1", "79326d4a-7fcd-4670-87e3-0b853d15dd6b", "1234567", "12"])
def test_identifiers_stay(scrub: Scrubber, kept: str) -> None:
    assert scrub(f"task {kept} failed") == f"task {kept} failed"


def test_credentials_become_their_names(scrub: Scrubber) -> None:
    assert scrub("the-session, the-app-secret") == "<session_token>, <app_secret>"


@pytest.mark.parametrize(
    "shown", [STRUCT, json.dumps(STRUCT), json.dumps(STRUCT, ensure_ascii=False), quote_plus(STRUCT)]
)
def test_the_whole_struct_becomes_one_name(scrub: Scrubber, shown: str) -> None:
    found = scrub(f"cannot parse {shown} at 7")
    assert found in (f"cannot parse <{SUBMIT_PARAM}> at 7", f'cannot parse "<{SUBMIT_PARAM}>" at 7')


@pytest.mark.parametrize("start", range(0, 400, 37))
def test_a_part_of_the_struct_holds_no_whole_value(scrub: Scrubber, start: int) -> None:
    found = scrub(STRUCT[start : start + 300]) or ""
    for value in VALUES.values():
        for spelling in SPELLINGS.values():
            assert spelling(value) not in found


@pytest.mark.parametrize(
    "contact", ["19999999999", "+86 199-9999-9999", "8619999999999", "li.si@example.com"]
)
def test_contact_outside_the_request_is_scrubbed(scrub: Scrubber, contact: str) -> None:
    assert scrub(f"重复: {contact}, 199") == "重复: <contact>, 199"


@pytest.mark.parametrize("text", ["at 1999999999999 ms", "code 119999999999", "id-a19999999999", "@ 12"])
def test_other_numbers_and_signs_stay(scrub: Scrubber, text: str) -> None:
    assert scrub(text) == text


@pytest.mark.parametrize("text", [None, "", "nothing of it", "Remote service error", "非法参数"])
def test_a_text_without_values_stays_as_it_is(scrub: Scrubber, text: str | None) -> None:
    assert scrub(text) == text


def scrubbed(text: str, **values: Any) -> str:
    return Scrubber({"p": json.dumps(values)}, {})(text) or ""


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        # One value is the beginning, the end or the middle of another.
        ("x 10000000001 y", {"a": "1000", "b": "10000000001"}, "x <b> y"),
        ("x 10000000001 y", {"a": "0001", "b": "10000000001"}, "x <b> y"),
        ("x 10000000001 y", {"a": "10000000001", "b": "000000"}, "x <a> y"),
        # The end of one is the beginning of the other: nothing of either is left over.
        ("abcdefghij", {"a": "abcdef", "b": "defghij"}, "<a>"),
        ("abcdefghijkl", {"a": "abcde", "b": "defgh", "c": "ghijkl"}, "<a>"),
        ("ababab", {"a": "abab"}, "<a>"),
        ("1111111", {"a": "11111"}, "<a>"),
        ("ab,cd", {"a": "ab", "b": "cd"}, "<a>,<b>"),
        ("abcdefgh", {"a": "abcd", "b": "efgh"}, "<a><b>"),
        # A name that the scrubber writes is not read again.
        ("x Anna y", {"name": "Anna", "b": "name"}, "x <name> y"),
    ],
)
def test_values_that_overlap_leave_nothing_over(text: str, values: dict[str, Any], expected: str) -> None:
    assert scrubbed(text, **values) == expected


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("code 15 in 2015", {"age": "15"}, "code <age> in 2015"),
        ("unknown, no", {"answer": "no"}, "unknown, <answer>"),
        ("name=Ann;", {"name": "Ann"}, "name=<name>;"),
        ("用户Ann不存在", {"name": "Ann"}, "用户<name>不存在"),
        ("a b c", {"a": "a"}, "a b c"),
        ("1 + 1", {"a": "1", "b": 1}, "1 + 1"),
        ("用户李不存在", {"name": "李"}, "用户<name>不存在"),
        ("true 5 9999 10000", {"a": True, "b": 5, "c": 9999, "d": 10000}, "true 5 9999 <d>"),
        ("is {} or []", {"a": "{}", "b": "[]"}, "is {} or []"),
    ],
)
def test_short_values_are_replaced_where_they_stand_alone(
    text: str, values: dict[str, Any], expected: str
) -> None:
    assert scrubbed(text, **values) == expected


def test_a_variable_called_like_an_identifier_is_no_identifier() -> None:
    inner = json.dumps({"task_id": "secret-1", "biz_id": "secret-2", "batch_num": "secret-3"})
    scrub = Scrubber({"p": json.dumps({"biz_id": "b-1", "input_params": inner})}, {})
    assert scrub("b-1 secret-1 secret-2 secret-3") == "b-1 <task_id> <biz_id> <batch_num>"


def test_a_biz_id_that_is_the_phone_number_is_the_phone_number() -> None:
    assert scrubbed("x 10000000001", biz_id="10000000001", phone_number="10000000001") == "x <phone_number>"


def test_flat_parameters_are_scrubbed_too_but_not_the_ids_of_a_look_up() -> None:
    scrub = Scrubber({"biz_ids": "b-1,b-2", "mobile": "10000000001"}, {})
    assert scrub("b-1,b-2 of 10000000001") == "b-1,b-2 of <mobile>"


@pytest.mark.parametrize("length", [480, 495, 499, 500, 501, 520])
def test_a_text_is_cut_only_after_it_was_scrubbed(length: int) -> None:
    found = scrubbed("x" * length + "10000000001", phone="10000000001")
    assert len(found) <= 500
    assert "1" not in found


def test_a_very_long_text_is_only_counted() -> None:
    found = scrubbed("10000000001" * 100_000, phone="10000000001")
    assert found == "<a text of 1100000 characters>"


@pytest.mark.parametrize("mark", ["\n", "\r", "\t", "\x00", "\x1b", "\x85", "\u2028", "\ud800"])
def test_a_text_is_one_line_that_can_be_printed(mark: str) -> None:
    found = scrubbed(f"one{mark}two 10000000001", phone="10000000001")
    assert found == "one two <phone>"
    found.encode()


def test_value_with_a_control_character_is_scrubbed() -> None:
    assert scrubbed("name=Zhang\nSan", name="Zhang\nSan") == "name=<name>"
    assert "10000000001" not in scrubbed("10000\x00000001", phone="10000000001")


def test_a_struct_may_be_deep_or_broken() -> None:
    deep = '{"a":' * 5000 + '"10000000001"' + "}" * 5000
    for text in (deep, '{"a": "10000000001"', "[" * 100_000):
        assert Scrubber({"p": text}, {})("no value") == "no value"
    nested = "{}"
    for _ in range(8):
        nested = json.dumps({"inner": nested, "phone": "10000000001"})
    assert Scrubber({"p": nested}, {})("call 10000000001") == "call <phone>"


def test_scrubber_parses_nothing_without_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the success path pays for this")

    monkeypatch.setattr("airflow_provider_lingyang.gateway.scrub.json.loads", never)
    assert Scrubber({"p": STRUCT}, {})(None) is None
    assert Scrubber({"p": STRUCT}, {})("") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("email zhang.san+1@EXAMPLE.com bad", "email <email> bad"),
        ("TB/张三", "<outer_user_id>"),
        ("tb&#x2F;&#24352;&#x4e09;", "<outer_user_id>"),
        ("tb&sol;张三", "<outer_user_id>"),
        ("张&quot;三\\", "<user_name>"),
        ("张&#34;三&#92;", "<user_name>"),
        ("张&amp;quot;三\\", "<user_name>"),
        ("SAY &QUOT;hi&quot; &amp; &lt;bye&gt;\n", "<note>"),
        ("zhang.san&#43;1&#x40;example.com", "<email>"),
        ("İ ŉ ZHANG.SAN+1@example.com ß!", "İ ŉ <email> ß!"),
    ],
)
def test_value_in_another_case_or_as_entities_is_scrubbed(scrub: Scrubber, text: str, expected: str) -> None:
    assert scrub(text) == expected


PHONES = [
    "13812345678",
    "138 1234 5678",
    "138-1234-5678",
    "138.1234.5678",
    "(138) 1234-5678",
    "138\u00a01234\u20115678",
    "1 3 8 1 2 3 4 5 6 7 8",
    "8613812345678",
    "+86 138 1234 5678",
    "0086-13812345678",
    "+86 (138) 1234-5678",
    "138&#45;1234&#45;5678",
]


@pytest.mark.parametrize("written", PHONES)
@pytest.mark.parametrize("sent", ["13812345678", "138 1234 5678", "+8613812345678", "0086-138-1234-5678"])
def test_phone_number_with_any_separators_is_scrubbed(sent: str, written: str) -> None:
    for about in ("bad phone {}!", "7 {} 1"):
        found = scrubbed(about.format(written), phone_number=sent)
        assert "<phone_number>" in found
        assert not {"138", "1234", "5678", "13812345678"} & set(re.findall("[0-9]+", found))


@pytest.mark.parametrize(
    "kept",
    [
        "biz_id order-20240312-001 of 2024-03-12",
        "request_id 0ba9b2d5-1710-2307-1212",
        "task 79326d4a-7fcd-4670-87e3-0b853d15dd6b",
    ],
)
def test_identifiers_stay_where_dates_and_short_numbers_were_sent(kept: str) -> None:
    values = {"birthday": "2024.03.12", "phone_number": "13812345678"}
    assert scrubbed(kept, **values) == kept


@pytest.mark.parametrize("call_id", ["138-1234-5678", "ZHANGSAN", "138.1234.5678"])
def test_an_id_of_a_call_is_no_way_to_respell_a_value(call_id: str) -> None:
    scrub = Scrubber({"p": json.dumps({"phone_number": "13812345678", "user": "ZhangSan"})}, {})
    assert scrub.call_id(call_id) in ("<phone_number>", "<user>")
    assert scrub.call_id("sb55e89351b95b") == "sb55e89351b95b"


def test_work_grows_no_faster_than_the_text() -> None:
    tasks = [TASK | {"phone_number": f"1380000{n:04}", "user_name": f"客户 {n}"} for n in range(100)]
    scrub = Scrubber({"p": json.dumps(BATCH | {"task_list": tasks})}, {})
    text = ("138-0000-0007 &#24352; İ x" * 10_000)[: 256 * 1024]

    def work(length: int) -> float:
        started = time.process_time()
        found = scrub(text[:length]) or ""
        assert found.startswith("<phone_number> &#24352; İ x")
        return time.process_time() - started

    assert work(len(text)) < 3 * 16 * work(len(text) // 16)


LETTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=12)


@given(
    values=st.lists(LETTERS, min_size=1, max_size=6, unique=True),
    glue=st.lists(LETTERS, min_size=7, max_size=7),
)
def test_no_value_is_left_after_scrubbing(values: list[str], glue: list[str]) -> None:
    # What the scrubber writes itself must not look like a value.
    scrub = Scrubber({"p": json.dumps({"f": values})}, {})
    text = "".join(between + value for between, value in zip(glue, values, strict=False))
    found = (scrub(text) or "").replace("<f>", "\x00")
    for value in values:
        assert value not in found
