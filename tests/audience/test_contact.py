"""Contacts so that equal ones look equal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lingyang.audience.parser import canonical_email, canonical_phone_of_version_1
from airflow_provider_lingyang.gateway.contacts import PLAIN


@given(st.from_regex(PLAIN, fullmatch=True))
def test_a_plain_number_is_its_own_spelling_in_version_1(number: str) -> None:
    assert canonical_phone_of_version_1(number) == number


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A@Example.COM", "a@example.com"),
        (" a@example.com ", "a@example.com"),
        ("ａ@example.com", "a@example.com"),
        ("a@example.com.", "a@example.com"),
        ("a@example.com\u200b", "a@example.com"),
        ("a@客户.cn", "a@xn--ubt06m.cn"),
        ("Straße@example.com", "STRASSE@example.com"),
        ("a@" + "b" * 70, "A@" + "B" * 70),
    ],
)
def test_two_spellings_of_a_mailbox_are_one(one: str, other: str) -> None:
    assert canonical_email(one) == canonical_email(other)


def test_mailboxes_that_differ_stay_different() -> None:
    found = {canonical_email(text) for text in ("a@b.c", "b@b.c", "a@c.c", "a.b@c", "a+b@c", "ab@c")}
    assert len(found) == 6
