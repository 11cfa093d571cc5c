"""Rows of any naming → validated tasks."""

from __future__ import annotations

import csv
import io
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_lingyang.audience.parser import Problems, Recipient, RowParser, derived_id
from airflow_provider_lingyang.config.arguments import ROW_FIELDS, TASK_FIELDS, ArgumentError
from airflow_provider_lingyang.gateway.models import InitiativeTaskRequest

PHONE = "10000000001"
BASE: dict[str, Any] = {"biz_id": "B1", "phone_number": PHONE, "input_params": {}, "output_params": "{}"}


def reader(**changes: Any) -> RowParser:
    arguments: dict[str, Any] = {
        "columns": {},
        "task_defaults": {},
        "input_params_columns": {},
        "output_slots": [],
        "channel": None,
        "campaign": "dag/run/task/123",
        "app_secret": "secret",
    }
    return RowParser(**(arguments | changes))


def read(row: dict[str, Any], **changes: Any) -> Recipient:
    found = reader(**changes).parse_mapping(1, row)
    assert isinstance(found, Recipient), found
    return found


def task(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read(row, **changes).task)
    return found


def problems(row: dict[str, Any], **changes: Any) -> list[str]:
    found = reader(**changes).parse_mapping(7, row)
    assert isinstance(found, list)
    return [f"{field} {reason}" for field, reason in found]


def test_the_light_list_of_fields_is_the_models_own() -> None:
    assert set(TASK_FIELDS) == set(InitiativeTaskRequest.model_fields)
    assert set(ROW_FIELDS) == {*TASK_FIELDS, "batch_num"}


def test_columns_are_found_by_mapping_by_own_name_and_whatever_their_case() -> None:
    row = {"ORDER_NO": 17, "Mobile": "+86 100-0000 0001", "INPUT_PARAMS": "{}", "output_params": {"a": ""}}
    assert task(row, columns={"biz_id": "order_no", "phone_number": "mobile"}) == {
        "biz_id": "17",
        "phone_number": PHONE,
        "input_params": "{}",
        "output_params": '{"a":""}',
    }


def test_mapped_column_is_not_sent_under_its_own_name() -> None:
    row = {"outer_user_id": "u1", "phone_number": PHONE, "input_params": "{}", "output_params": "{}"}
    sent = task(row, columns={"biz_id": "outer_user_id"})
    assert sent["biz_id"] == "u1"
    assert "outer_user_id" not in sent


def test_defaults_fill_what_a_row_lacks_and_nothing_else() -> None:
    defaults = {"source_id": 5, "user_name": "客户", "input_params": {"a": 1}}
    row = BASE | {"source_id": 6, "user_name": "  ", "input_params": None}
    sent = task(row, task_defaults=defaults)
    assert (sent["source_id"], sent["user_name"], sent["input_params"]) == (6, "客户", '{"a":1}')


def test_plan_variables_are_folded_into_input_params_as_json() -> None:
    row = {
        "biz_id": "B1",
        "phone_number": PHONE,
        "who": '张"三\\😀',
        "price": Decimal("9.90"),
        "times": 3,
        "at": datetime(2024, 3, 12, 14, 5),
        "token": uuid.UUID(int=5),
        "tags": ["a", {"b": None}],
    }
    sent = task(
        row,
        input_params_columns={name: name for name in ("who", "price", "times", "at", "token", "tags")},
        task_defaults={"input_params": '{"shop": "店", "times": 1}'},
        output_slots=["intention", "when"],
    )
    assert json.loads(sent["input_params"]) == {
        "shop": "店",
        "times": 3,
        "who": '张"三\\😀',
        "price": "9.90",
        "at": "2024-03-12 14:05:00",
        "token": str(uuid.UUID(int=5)),
        "tags": ["a", {"b": None}],
    }
    assert sent["output_params"] == '{"intention":"","when":""}'


def test_slots_of_a_row_are_kept_and_completed() -> None:
    sent = task(BASE | {"output_params": '{"own": "x"}'}, output_slots=["intention"])
    assert json.loads(sent["output_params"]) == {"intention": "", "own": "x"}


@pytest.mark.parametrize(
    ("change", "settings", "expected"),
    [
        ({"phone_number": "call me"}, {}, "phone_number is not a phone number"),
        ({"phone_number": 10000000001.0}, {}, "phone_number must be text"),
        ({"phone_number": None}, {}, "phone_number or email or outer_user_id is missing"),
        ({"phone_number": None, "email": "a@b"}, {"channel": "call"}, "phone_number is missing (channel 'call'"),
        ({}, {"channel": "email"}, "email is missing (channel 'email'"),
        ({"email": "nobody"}, {}, "email is not an email address"),
        ({"input_params": None}, {}, "input_params is missing"),
        ({"input_params": {"who": None}}, {}, "input_params['who'] is NULL"),
        ({"input_params": '{"who": null}'}, {}, "input_params['who'] is NULL"),
        ({"input_params": '{"who": null}'}, {"input_params_columns": {"w": "user_name"}}, "input_params['who'] is NULL"),
        ({"input_params": {"call me": None}}, {}, "input_params is NULL"),
        ({"input_params": {1: "a", "1": "b"}}, {}, "input_params holds a name twice"),
        ({"output_params": None}, {}, "output_params is missing (name the plan's slots in output_slots"),
        ({"input_params": "[1]"}, {}, "input_params must be a JSON object"),
        ({"input_params": "{"}, {"input_params_columns": {"who": "user_name"}}, "input_params must be a JSON object"),
        ({"input_params": '{"a": 1, "a": 2}'}, {"input_params_columns": {"w": "user_name"}}, "input_params must be a JSON"),
        ({"input_params": {"a": {1}}}, {"input_params_columns": {"w": "user_name"}}, "input_params holds a value that JSON"),
        ({"output_params": "x"}, {}, "output_params must be a JSON object"),
        ({"output_params": "x"}, {"output_slots": ["a"]}, "output_params must be a JSON object"),
        ({"source_id": "abc"}, {}, "source_id must be a whole number"),
        ({"source_id": 2**63}, {}, "source_id must be a whole number"),
        ({"plan_execute_start_time": "soon"}, {}, "plan_execute_start_time must be a date with a time"),
        ({"biz_id": None}, {}, "biz_id is missing"),
        ({"biz_id": "\ud800"}, {}, "biz_id holds text that is not Unicode"),
        ({"input_params": '{"a": "\ud800"}'}, {}, "input_params must be a JSON object"),
        ({"email": "a\ud800@b"}, {}, "email is not an email address"),
        ({"batch_num": "A"}, {}, "batch_num is not a string of decimal digits"),
        ({"batch_num": "1.5"}, {}, "batch_num is not a string of decimal digits"),
        ({"batch_num": "-1"}, {}, "batch_num is not a string of decimal digits"),
        ({"batch_num": "１"}, {}, "batch_num is not a string of decimal digits"),
        ({"batch_num": True}, {}, "batch_num is not a string of decimal digits"),
        ({"user_name": None}, {"input_params_columns": {"who": "user_name"}}, "input_params['who'] (column 'user_name') is NULL"),
        ({"user_name": float("nan")}, {"input_params_columns": {"who": "user_name"}}, "is NULL"),
        ({"user_name": b"x"}, {"input_params_columns": {"who": "user_name"}}, "holds a value that JSON cannot hold"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_by_its_field_and_never_shown(
    change: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    found = problems({"user_name": "张三"} | BASE | change, **settings)
    assert any(expected in text for text in found), found
    for value in change.values():
        if isinstance(value, str) and len(value) > 2:
            assert value not in "".join(found).replace("is not a phone number", "").replace("JSON", "")


def test_error_of_a_row_names_every_problem() -> None:
    found = problems(BASE | {"phone_number": "x", "source_id": "x", "batch_num": "x"})
    assert len(found) == 3


def test_a_problem_names_the_column_a_field_came_from() -> None:
    row = {"no": "1", "tel": "x", "input_params": "{}", "output_params": "{}"}
    assert problems(row, columns={"biz_id": "no", "phone_number": "tel"}) == [
        "phone_number (column 'tel') is not a phone number (5 to 20 digits)"
    ]


@pytest.mark.parametrize(
    ("names", "columns", "expected"),
    [
        (["phone_numbr"], {}, "column 'phone_numbr' is not a field of the API and nothing uses it (did you mean 'phone_number'?)"),
        (["mobile"], {"phone_number": "mobil"}, "no column 'mobil' (did you mean 'mobile'?)"),
        (["biz_id", "BIZ_ID"], {}, "column 'BIZ_ID' twice"),
        (["plan_id"], {}, "column 'plan_id' is not a field"),
    ],
)  # fmt: skip
def test_an_unknown_column_is_an_error_that_names_the_nearest(
    names: list[str], columns: dict[str, str], expected: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        reader(columns=columns).for_columns(names)
    assert expected in str(caught.value)


def test_csv_line_with_more_fields_than_the_header_is_an_error() -> None:
    (row,) = csv.DictReader(io.StringIO("biz_id,phone_number\nb1,10000000001,CANARY\n"))
    with pytest.raises(
        ArgumentError, match=r"\(row 3\): a line of a file has more fields than its header"
    ) as caught:
        reader().parse_mapping(3, row)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("name", ["10000000001", "张三", "a@b", 10000000001])
def test_a_name_that_may_be_data_is_not_shown(name: Any) -> None:
    for row in ({name: 1}, {name: 1, str(name).upper(): 2}):
        with pytest.raises(ArgumentError) as caught:
            reader(columns={"phone_number": "mobile"}).parse_mapping(1, row)
        assert str(name) not in str(caught.value)


def test_member_id_is_case_sensitive_and_mailbox_is_not() -> None:
    assert read(BASE | {"phone_number": None, "outer_user_id": "aB"}).contact.endswith("aB")
    base = {name: value for name, value in BASE.items() if name != "biz_id"}
    upper, lower = (read(base | {"email": mail}, channel="email") for mail in ("A@b", "a@B"))
    assert (upper.contact, upper.biz_id) == (lower.contact, lower.biz_id)


def test_rows_of_different_shapes_are_each_read_by_their_own_names() -> None:
    one = reader(columns={"phone_number": "tel"})
    base = {"input_params": "{}", "output_params": "{}"}
    assert isinstance(one.parse_mapping(1, base | {"biz_id": "1", "tel": PHONE}), Recipient)
    assert isinstance(one.parse_mapping(2, base | {"TEL": PHONE, "biz_id": "2"}), Recipient)
    missing = one.parse_mapping(3, base | {"biz_id": "3"})
    assert isinstance(missing, list)
    assert missing[0][0] == "columns['phone_number']"
    assert missing[0][1].startswith("names the column 'tel'")
    assert one.parse_mapping(4, base | {"biz_id": "3"}) == missing
    with pytest.raises(ArgumentError, match=r"'tell' .*\(row 5\)"):
        one.parse_mapping(5, base | {"tell": PHONE, "biz_id": "5"})
    assert one.parse_mapping(6, "text") == [("the row", "is a str, not a mapping of names to values")]  # type: ignore[arg-type]


def test_a_biz_id_is_derived_from_the_contact_alone_and_cannot_be_enumerated() -> None:
    base = {name: value for name, value in BASE.items() if name != "biz_id"}
    first = read(base)
    assert first.derived
    assert json.loads(first.task)["biz_id"] == first.biz_id
    same = [
        read(base | {"input_params": '{"other": 1}'}),
        read(base | {"batch_num": "9"}),
        read(base | {"phone_number": "+86 1000-0000001"}),
    ]
    assert {recipient.biz_id for recipient in same} == {first.biz_id}
    others = [
        read(base, app_secret="another"),
        read(base, campaign="dag/other-run/task/123"),
        read(base | {"phone_number": "10000000002"}),
        read(base | {"email": "a@b"}),
        read(base | {"outer_user_id": "u"}),
        read(base | {"cms_user_id": 1}),
    ]
    assert len({first.biz_id, *(recipient.biz_id for recipient in others)}) == 7


def test_recipient_repr_holds_no_contact() -> None:
    assert PHONE not in repr(read(BASE | {"user_name": "张三"}))
    assert "张三" not in repr(read(BASE | {"user_name": "张三"}))


MOBILE = "15400000001"
BY_CONTACT = {name: value for name, value in BASE.items() if name != "biz_id"}


@pytest.mark.parametrize("as_tuple", [True, False])
@pytest.mark.parametrize(
    ("spelling", "version_1"),
    [
        (MOBILE, MOBILE),
        (15400000001, MOBILE),
        ("+86 154-0000-0001", MOBILE),
        (f"86{MOBILE}", f"86{MOBILE}"),
        (f"0{MOBILE}", f"0{MOBILE}"),
        ("（１５４）0000-0001", MOBILE),
        ("154.0000.0001", MOBILE),
    ],
)
def test_recipient_is_its_phone_number_in_any_spelling_from_identity_version_2(
    spelling: Any, version_1: str, as_tuple: bool
) -> None:
    def found(phone: Any, version: int) -> Recipient:
        row = BY_CONTACT | {"phone_number": phone}
        one = reader(identity_version=version)
        given = one.for_columns(list(row))(1, list(row.values())) if as_tuple else one.parse_mapping(1, row)
        assert isinstance(given, Recipient)
        return given

    latest, plain = found(spelling, 2), found(MOBILE, 2)
    assert (latest.biz_id, latest.contact, json.loads(latest.task)) == (
        plain.biz_id,
        plain.contact,
        json.loads(plain.task),
    )
    before = found(spelling, 1)
    assert before.contact == plain.contact
    # What version 1 made of it is known: what it made of a number in digits has not changed.
    expected = derived_id(b"secret", "dag/run/task/123", [version_1, None, None, None])
    assert before.biz_id == expected


@pytest.mark.parametrize(("version", "equal"), [(1, False), (2, True)])
def test_mailbox_identity_of_version_1_normalizes_less(version: int, equal: bool) -> None:
    row = BY_CONTACT | {"phone_number": None}
    first, second = (
        read(row | {"email": mail}, channel="email", identity_version=version)
        for mail in ("A@example.com", "a@example.com.")
    )
    assert first.contact == second.contact
    assert (first.biz_id == second.biz_id) is equal
    assert json.loads(first.task)["email"] == "A@example.com"


@pytest.mark.parametrize(
    "spelling", ["+1 400 000 0001", "0014000000001", "001-400-000-0001", "（＋1）4000000001"]
)
def test_foreign_phone_number_has_one_verdict(spelling: str) -> None:
    row = BASE | {"phone_number": spelling}
    for channel in (None, "call", "sms"):
        (problem,) = problems(row, channel=channel)
        assert problem.startswith("phone_number is another country's number (to allow them: international_")
        found = read(row, channel=channel, international_numbers=True)
        assert found.contact == "phone_number 0014000000001"
    sent = task(row | {"email": "a@example.com"}, channel="email")
    assert sent["phone_number"] == "0014000000001"


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("010-20000001转8001", "phone_number holds an extension"),
        ("15400000001/15400000002", "phone_number holds more than one number"),
    ],
)
def test_phone_number_with_an_extension_is_refused_with_its_reason(spelling: str, expected: str) -> None:
    (problem,) = problems(BASE | {"phone_number": spelling})
    assert expected in problem


# --- columns that are kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("gold", "gold"),
        ('金卡 "A"', '金卡 "A"'),
        ("", ""),
        (7, 7),
        (-1.5, -1.5),
        (Decimal("12.50"), "12.50"),
        (True, True),
        (None, None),
        (float("nan"), None),
        (date(2026, 1, 5), "2026-01-05"),
        (datetime(2026, 1, 5, 1, 2, 3, tzinfo=UTC), "2026-01-05 09:02:03"),
        ("x" * 200, "x" * 200),
        # Ids, some of as many digits as a phone number.
        ("202601051234", "202601051234"),
        (10000000009, 10000000009),
        *(
            (text, text)
            for text in (
                # Not a number of its own, but a part of a longer one.
                "202615400000002",
                "154000000021",
                "9154000000021",
                "1700000000000",
                "100000199002300000",
                "1000000199001010000",
                "0100000001",
                "00000000123",
                "2026-01-15 2026-01-16",
                "2026-01-15 13:45:12.345678",
                "192.168.100.200",
                "71c0ffee-1540-4000-8000-15400000002a",
                "15400000002a00000000000000000000",
                "v1.5.4",
            )
        ),
        ("A@B", "A@B"),
    ],
)
def test_a_column_is_kept_as_json(value: Any, kept: Any) -> None:
    row = BASE | {"Tier": value, "city": "x"}
    found = read(row, keep_columns=["tier", "city"])
    assert found.kept == json.dumps({"tier": kept, "city": "x"}, ensure_ascii=False, separators=(",", ":"))
    assert "tier" not in json.loads(found.task)


CONTACT = "holds a phone number, an email address or an identity number, which is never kept"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (PHONE, CONTACT),
        ("100 0000-0001", CONTACT),
        (f"86{PHONE}", CONTACT),
        (f"call {PHONE} today", CONTACT),
        (int(PHONE), CONTACT),
        ("15400000001", CONTACT),
        ("+86 154-0000-0001", CONTACT),
        ("".join(chr(ord(digit) + 0xFEE0) for digit in "15400000001"), CONTACT),
        ("+44 20 7946 0000", CONTACT),
        ("one@mail.invalid", CONTACT),
        ("of One@Mail.invalid!", CONTACT),
        ("other@mail.invalid", CONTACT),
        ("wife 15400000002", CONTACT),
        ("tel15400000002x", CONTACT),
        ("15400000002;15400000003", CONTACT),
        ("1540000 0002 (home)", CONTACT),
        ("home: 154-0000-0002!", CONTACT),
        ("to +86 (0)154 0000 0002", CONTACT),
        ("or 008615400000002", CONTACT),
        ("or 015400000002", CONTACT),
        ("\u0661\u0665\u0664" + "\u0660" * 7 + "\u0662 x", CONTACT),
        ("order-15400000002-1", CONTACT),
        ("0571-20000000", CONTACT),
        ("01020000000", CONTACT),
        ("office 0571 2000 0000 ext 3", CONTACT),
        ("of +86 571 2000 0000", CONTACT),
        ("of +44 20 7946 0000 (UK)", CONTACT),
        ("100000199001010000", CONTACT),
        ("id10000019900101000X.", CONTACT),
        ("100000 19900101 0000", CONTACT),
        ("mail:two@mail.invalid;", CONTACT),
        ("x" * 201, "has more than 200 characters"),
        (10**200, "has more than 200 characters"),
        ("a\0", "holds a NUL character"),
        ("\ud800", "holds a value that JSON cannot hold"),
        (float("inf"), "holds a value that JSON cannot hold"),
        ({"a": 1}, "is a dict: text, a number, a truth value or a date can be kept"),
        ([1], "is a list: text, a number, a truth value or a date can be kept"),
        (b"x", "is a bytes: text, a number, a truth value or a date can be kept"),
    ],
)
def test_what_cannot_be_kept_makes_the_row_invalid(value: Any, problem: str) -> None:
    row = BASE | {"email": "one@mail.invalid", "tier": value, "city": "x"}
    found = reader(keep_columns=["tier", "city"]).parse_mapping(1, row)
    assert isinstance(found, Problems)
    assert found == [("keep_columns['tier']", problem)]
    assert found.kept == '{"tier":null,"city":"x"}'
    # Nor is it kept where the contact itself is not valid.
    worse = reader(keep_columns=["tier", "city"]).parse_mapping(1, row | {"phone_number": f"{PHONE} x"})
    assert isinstance(worse, Problems)
    assert [field for field, _ in worse] == ["phone_number"]
    assert worse.kept == found.kept


@pytest.mark.parametrize(
    ("columns", "names", "problem"),
    [
        ({}, ["tier"], r"keep_columns\['tier'\]: the audience has no column 'tier'"),
        (
            {"phone_number": "tel"},
            ["Tel"],
            "keep_columns: 'Tel' is sent as phone_number, so it may hold personal data",
        ),
    ],
)
def test_a_column_that_cannot_be_kept(columns: dict[str, str], names: list[str], problem: str) -> None:
    with pytest.raises(ArgumentError, match=problem):
        reader(columns=columns, keep_columns=names).for_columns(
            ["biz_id", "tel" if columns else "phone_number"]
        )


def test_a_row_that_lacks_a_kept_column_is_invalid() -> None:
    one = reader(keep_columns=["tier"])
    assert isinstance(one.parse_mapping(1, BASE | {"tier": "gold"}), Recipient)
    assert one.parse_mapping(2, BASE) == [
        ("keep_columns['tier']", "names the column 'tier', which the row lacks")
    ]


def test_an_invalid_row_has_its_id_where_that_is_one() -> None:
    for biz_id, known in (
        ("B1", "B1"),
        (17, "17"),
        ("15400000001", None),
        ("a@mail.invalid", None),
        (1.5, None),
    ):
        found = reader().parse_mapping(1, BASE | {"biz_id": biz_id, "phone_number": "x", "batch_num": 7})
        assert isinstance(found, Problems)
        assert (found.biz_id, found.batch_num) == (known, "7")
