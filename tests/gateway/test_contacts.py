"""One spelling of a phone number, however it was written; what is none, or two, is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lingyang.gateway.contacts import (
    EXTENSION,
    NOT_A_NUMBER,
    PLAIN,
    SEVERAL,
    PhoneNumberError,
    canonical_phone,
)

# Numbers of no subscriber: mobile segments that are not in use, and subscribers of zeros.
MOBILE = "15400000001"
BEIJING, HANGZHOU = "01020000001", "057120000001"
SPELLINGS = {
    MOBILE: [
        MOBILE, f"86{MOBILE}", f"+86{MOBILE}", f"0086{MOBILE}", f"+86 {MOBILE}", f"+86-{MOBILE}", f"(+86){MOBILE}",
        f"+(86){MOBILE}", f"(86){MOBILE}", f"86-{MOBILE}", f"00 86 {MOBILE}", "154-0000-0001", "154 0000 0001",
        "154.0000.0001", "1540000-0001", "+86 154 0000 0001", "86 154-0000-0001", "0086-154-0000-0001",
        f"0{MOBILE}", f"+860{MOBILE}", "１５４００００ ０００１", f"＋８６{MOBILE}", "（+86）154－0000－0001",
        f"\u202d{MOBILE}\u202c", f"\ufeff{MOBILE}", f"{MOBILE}\u200b", f"\u00a0{MOBILE}\u3000", "154\u20110000\u20130001",
        f"+8686{MOBILE}", f"\t{MOBILE}\n",
    ],
    BEIJING: [
        BEIJING, "010-20000001", "010 2000 0001", "(010)20000001", "（010）2000-0001", "+86 10 2000 0001", "+86 010 20000001",
        "+861020000001", "0086 10 20000001", "0086-010-20000001", "86 10 2000 0001", "8601020000001", "+86 (0)10 2000 0001",
        "+86(10)20000001", "010.2000.0001",
    ],
    HANGZHOU: [HANGZHOU, "0571-20000001", "(0571) 2000 0001", "+86 571 20000001", "+86 0571 2000 0001", "8657120000001"],
    "03102000001": ["03102000001", "0310-2000001", "+86 310 2000001", "86 310 2000001"],
    "4000000001": ["4000000001", "400-000-0001", "+86 400 000 0001", "864000000001"],
    "12345": ["12345", "+8612345", "0086 12345", " 12345 "],
    "10600000000000000001": ["10600000000000000001"],
    "00140000000001": ["+140000000001", "00140000000001", "+1 (400) 000-00001", "001-400-000-00001"],
    "00442000000001": ["+44 20 0000 0001", "0044 20 0000 0001", "+44 (0)20 0000 0001", "＋44 20 0000 0001"],
    "0085220000001": ["+852 2000 0001", "00852-2000-0001"],
    "00886200000001": ["+886 2 0000 0001", "00886200000001"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("spelling", "number"),
    [(spelling, number) for number, spellings in SPELLINGS.items() for spelling in spellings],
)
def test_a_number_has_one_spelling(spelling: str, number: str) -> None:
    assert canonical_phone(spelling) == number
    assert canonical_phone(number) == number


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{BEIJING}转8001", EXTENSION),
        (f"{BEIJING} 转 8001", EXTENSION),
        (f"{BEIJING}分机8001", EXTENSION),
        (f"{BEIJING} ext 8001", EXTENSION),
        (f"{BEIJING} ext. 8001", EXTENSION),
        (f"{BEIJING}x8001", EXTENSION),
        (f"{BEIJING} X8001", EXTENSION),
        (f"{BEIJING}#8001", EXTENSION),
        (f"{BEIJING}＃8001", EXTENSION),
        (f"{BEIJING},8001", EXTENSION),
        ("010-20000001-8001", EXTENSION),
        ("010 20000001 8001", EXTENSION),
        ("0571-20000001-1", EXTENSION),
        ("(0571)20000001(801)", EXTENSION),
        ("+86 10 20000001-8001", EXTENSION),
        ("20000001-8001", EXTENSION),
        ("400-000-0001-8001", EXTENSION),
        (f"{MOBILE}转1234", EXTENSION),
        (f"{MOBILE}-1234", EXTENSION),
        ("154-0000-0001-12", EXTENSION),
        (f"{MOBILE}/15400000002", SEVERAL),
        (f"{MOBILE},15400000002", SEVERAL),
        (f"{MOBILE}，15400000002", SEVERAL),
        (f"{MOBILE};15400000002", SEVERAL),
        (f"{MOBILE}；15400000002", SEVERAL),
        (f"{MOBILE}、15400000002", SEVERAL),
        (f"{MOBILE}|15400000002", SEVERAL),
        (f"{MOBILE}\n15400000002", SEVERAL),
        (f"{MOBILE} 15400000002", SEVERAL),
        (f"{MOBILE}15400000002", None),
        (f"{MOBILE}或15400000002", SEVERAL),
        (f"{MOBILE} or 15400000002", SEVERAL),
        (f"+86{MOBILE}+8615400000002", SEVERAL),
        ("20000001 20000002", SEVERAL),
        (f"{BEIJING} 20000002", SEVERAL),
        (f"{MOBILE}/02", SEVERAL),
        (f"{MOBILE}.0", None),
        ("12345.0", NOT_A_NUMBER),
        ("010-20000001.0", None),
        ("1.54E+10", NOT_A_NUMBER),
        ("-15400000001", NOT_A_NUMBER),
        ("1234", NOT_A_NUMBER),
        ("+86 1234", NOT_A_NUMBER),
        ("+", NOT_A_NUMBER),
        ("", NOT_A_NUMBER),
        ("1" * 21, NOT_A_NUMBER),
        ("+1 234567890123456", NOT_A_NUMBER),
        ("000140000000001", NOT_A_NUMBER),
        ("+0014000000000", NOT_A_NUMBER),
        ("١٥٤٠٠٠٠٠٠٠١", NOT_A_NUMBER),
        ("①⑤④⑩⑩⑩⑩", NOT_A_NUMBER),
        ("154****0001", EXTENSION),
        ("tel", NOT_A_NUMBER),
        ("张三15400000001", NOT_A_NUMBER),
    ],
)
def test_value_that_is_not_one_contact_is_refused_with_its_reason(text: str, reason: str | None) -> None:
    with pytest.raises(PhoneNumberError) as caught:
        canonical_phone(text)
    assert str(caught.value) == reason or reason is None


@given(st.from_regex(PLAIN, fullmatch=True))
def test_a_plain_number_is_its_own_spelling(number: str) -> None:
    assert canonical_phone(number) == number


@given(st.text(alphabet="0123456789+-() .转/", max_size=24))
def test_accepted_phone_number_is_stable_and_dialled_as_digits(text: str) -> None:
    try:
        number = canonical_phone(text)
    except PhoneNumberError:
        return
    assert re.fullmatch(r"[0-9]{5,20}", number)
    assert canonical_phone(number) == number
