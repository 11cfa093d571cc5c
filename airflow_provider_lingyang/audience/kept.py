"""Columns of the author's own that travel with a recipient: ids and tiers, never a contact."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway.contacts import holds_contact
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.values import plain_value

_MAX_TEXT = 200
_SURE = 7
"""Characters from which on a contact is one wherever it stands in a text."""
CONTACT = "holds a phone number, an email address or an identity number, which is never kept"
_NO_DIGITS = re.compile("[^0-9]+")
_BEFORE_A_NUMBER = re.compile("^0*(?:86)?0*")


def kept_json(
    positions: Mapping[str, int], values: Sequence[Any], phone: object, email: object
) -> tuple[str, list[tuple[str, str]]]:
    """Return the JSON of the values that may be kept, and what is wrong with the others, which are null in it.

    :param positions: column → position among the row's values.
    :param phone: of the row, valid or not; None: it has none.
    :param email: likewise.
    """
    kept: dict[str, Any] = {}
    problems = []
    for name, position in positions.items():
        value = plain_value(values[position])
        problem = _problem(value) or (CONTACT if _holds_contact(value, phone, email) else None)
        if problem is not None:
            problems.append((f"keep_columns[{name!r}]", problem))
            value = None
        kept[name] = value
    return dump_json(kept), problems


def _problem(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if not isinstance(value, (str, int, float, Decimal, date, time)):
        return f"is a {type(value).__name__}: text, a number, a truth value or a date can be kept"
    try:
        text = _text(value)
        text.encode()
    except (PydanticCustomError, ValueError):
        return "holds a value that JSON cannot hold"
    if len(text) > _MAX_TEXT:
        return f"has more than {_MAX_TEXT} characters"
    return "holds a NUL character" if "\0" in text else None


def _holds_contact(value: Any, phone: object, email: object) -> bool:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value.isalpha()):
        return False
    text = _text(value)
    number = _BEFORE_A_NUMBER.sub("", _digits(str(phone or "")))
    contacts = [contact for contact in (number, str(email or "").strip().lower()) if contact]
    spellings = text.strip().lower(), _digits(text)
    return holds_contact(text) or any(
        contact in spelling if len(contact) >= _SURE else contact == spelling
        for contact in contacts
        for spelling in spellings
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value).strip('"')


def _digits(text: str) -> str:
    return _NO_DIGITS.sub("", text if text.isascii() else unicodedata.normalize("NFKC", text))
