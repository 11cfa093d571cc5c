"""Whatever form a gateway writes a value in, the value is not shown."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from airflow_provider_lingyang.gateway.scrub import Scrubber

PHONE, NAME, MAIL = "13800000001", "欧阳小明", "ou.yang@example.com"
STRUCT = json.dumps({"phone_number": PHONE, "user_name": NAME, "email": MAIL}, ensure_ascii=False)


def scrubbed(text: str) -> str:
    return Scrubber({"p": STRUCT}, {"the-app-secret": "app_secret"})(text) or ""


def wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def per_cent(text: str, encoding: str = "utf-8") -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode(encoding))


FORMS: dict[str, Callable[[str], str]] = {
    "full width": wide,
    "upper case, full width": lambda text: wide(text.upper()),
    "zero-width spaces": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "word joiners and marks of direction": "\u2060\u202e".join,
    "variation selectors": "\ufe0f".join,
    "tag characters": "\U000e0041".join,
    "per cent": per_cent,
    "per cent, GBK": lambda text: per_cent(text, "gb18030"),
    "per cent twice": lambda text: quote(per_cent(text), safe=""),
    "u escapes": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "u escapes, upper case, twice": lambda text: "".join(f"\\\\u{ord(c):04X}" for c in text),
    "x escapes or u escapes": lambda text: "".join(
        f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text
    ),
    "decimal entities": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "base64": encoded,
    "base64 without padding": lambda text: encoded(text).rstrip("="),
    "base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in per cent": lambda text: quote(encoded(text), safe=""),
    "full width in base64": lambda text: encoded(wide(text)),
    "u escapes in base64": lambda text: encoded(json.dumps(text)),
    "a struct in base64": lambda text: encoded(json.dumps({"echo": {"value": text}, "n": 1})),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("value", "field"), [(PHONE, "phone_number"), (NAME, "user_name"), (MAIL, "email")])
def test_value_is_found_in_every_form(form: str, value: str, field: str) -> None:
    found = scrubbed(f"bad field {FORMS[form](value)} here")
    assert found == f"bad field <{field}> here"


def test_struct_in_base64_shows_none_of_its_values() -> None:
    assert scrubbed(f"cannot parse {encoded(STRUCT)}") in ("cannot parse <p>", "cannot parse <phone_number>")


@pytest.mark.parametrize("mark", [*" -._/,;:|*~+#'\"", "\t", "--", " - ", "、", "·", "\u200b", " / "])
def test_phone_number_of_the_request_is_found_with_any_separators(mark: str) -> None:
    for groups in (["138", "0000", "0001"], list(PHONE), ["13800", "000001"]):
        found = scrubbed(f"call {mark.join(groups)} now")
        assert found == "call <phone_number> now"


ANYONE = [
    "19912345678",
    "199 1234 5678",
    "199-1234-5678",
    "199.1234.5678",
    "(199) 1234-5678",
    "1991 2345 678",
]
ANYONE += [
    "+86 199 1234 5678",
    "0086-19912345678",
    "86 19912345678",
    "199\u00a01234\u20115678",
    "1 9 9 1 2 3 4 5 6 7 8",
]


@pytest.mark.parametrize("written", ANYONE)
@pytest.mark.parametrize("form", ["", "full width", "zero-width spaces", "per cent", "u escapes", "base64"])
def test_mobile_number_of_anyone_is_not_shown(written: str, form: str) -> None:
    text = FORMS[form](written) if form else written
    assert scrubbed(f"duplicate of {text} found") == "duplicate of <contact> found"


@pytest.mark.parametrize("form", ["", "full width", "per cent", "u escapes", "base64"])
def test_mailbox_of_anyone_is_not_shown(form: str) -> None:
    text = FORMS[form]("li.si@example.org") if form else "li.si@example.org"
    assert scrubbed(f"duplicate of {text} found") == "duplicate of <contact> found"


@pytest.mark.parametrize(
    "text",
    [
        "isv.missing-parameter:biz_id at 2026-11-28 10:00:00",
        "parameter initiative_batch_task_request is misspelt",
        "request 0ba9b2d517102307121234567e of 79326d4a-7fcd-4670-87e3-0b853d15dd6b",
        "100% of 5,000; \\n is no escape of a value",
        "code 1380000 and 0001",
        "２０２６年１１月",
        "VGhpcyBpcyBubyBiYXNlNjQg",
    ],
)
def test_text_without_values_stays_as_it_is(text: str) -> None:
    assert scrubbed(text) == text


def test_part_of_an_escape_is_no_value() -> None:
    assert scrubbed("%E4 \\ud800 &#; %zz \\u12") == "%E4 \\ud800 &#; %zz \\u12"
