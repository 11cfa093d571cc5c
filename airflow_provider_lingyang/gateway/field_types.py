"""The API page's types for pydantic: lenient with input, exact in requests.

Errors name what is wrong and never repeat the value.
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError, from_json, to_json

from airflow_provider_lingyang.gateway.contacts import (
    INVISIBLE,
    PhoneNumberError,
    canonical_phone,
)
from airflow_provider_lingyang.gateway.dates import CHINA, date_text, in_china, parse_date
from airflow_provider_lingyang.gateway.values import is_blank, is_null, plain_value

T = TypeVar("T")

INT64 = 2**63
_MAX_DIGITS = 100
"""Of a Decimal: one with a large exponent would fill the memory with zeros."""

_FIRST_START, _END_OF_STARTS = datetime(2000, 1, 1, tzinfo=CHINA), datetime(2100, 1, 1, tzinfo=CHINA)
"""Databases hold the year 1, 1970 or 9999 for "no date"; the platform is younger than the first."""
_TEXT_ONLY = frozenset((str,))
_JSON_SCALARS = frozenset((str, int, float, bool))
ALLOW_INTERNATIONAL = "allow_international"
"""Key of a validation's context: whether a phone number may be another country's. Default: it may not."""


def to_text(value: Any) -> Any:
    """Return text, or the digits of a whole number; None stays None.

    :raises PydanticCustomError: it is neither.
    """
    value = plain_value(value)
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)  # of an enum's member, too, the number
    if (whole := _whole(value)) is not None:
        return str(whole)
    raise PydanticCustomError("text", "must be text")


def _whole(value: Any) -> int | None:
    """Return an integral Decimal as an int, or None for anything else."""
    if not isinstance(value, Decimal) or not value.is_finite() or value.adjusted() > _MAX_DIGITS:
        return None
    return int(value) if value == value.to_integral_value() else None


def _to_number(value: Any) -> Any:
    value = plain_value(value)
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,19}\s*", value, re.ASCII):
        value = int(value)
    elif (whole := _whole(value)) is not None:
        value = whole
    if isinstance(value, bool) or not isinstance(value, int) or not -INT64 <= value < INT64:
        raise PydanticCustomError("number", "must be a whole number of at most 64 bits")
    return value


def _to_json_object(value: Any) -> Any:
    """Check a JSON object, given as a dict or as text, and return its text: serialised once."""
    if isinstance(value, str):
        return json_object_text(value)
    if isinstance(value, dict):
        return json_object_of(value)
    if is_null(value):
        return None
    raise PydanticCustomError("json_object", "must be a JSON object")


def json_object_of(value: dict[Any, Any]) -> str:
    """Return a dict as the text of a JSON object.

    :raises PydanticCustomError: JSON cannot hold it, or would hold a name twice: of 1 and "1" it makes the same.
    """
    if _TEXT_ONLY.issuperset(map(type, value)):
        if _JSON_SCALARS.issuperset(map(type, value.values())):
            try:
                text = to_json(value)  # in a fifth of the other's time
            except ValueError:
                pass  # half a character
            else:
                if b"NaN" not in text and b"Infinity" not in text:
                    return text.decode()
    elif len(set(map(str, value))) < len(value):
        raise PydanticCustomError("json_object", "holds a name twice")
    return dump_json(value)


# output_params and the like are the same for every recipient.
@lru_cache(64)
def json_object_text(text: str) -> str:
    """Return the text of a JSON object without the white space around it, checked as :func:`parse_json_object` does."""
    text = text.strip()
    if not _is_flat(text):
        parse_json_object(text)
    return text


def _is_flat(text: str) -> bool:
    """Whether a text is a JSON object of plain values, with no name in there twice.

    Found in a third of the time that it takes to look at each name: such an object has two quotation marks for each
    name and each text in it; a name that is there twice has more.
    """
    # Without a backslash, every quotation mark begins or ends a string.
    if "\\" in text:
        return False
    try:
        parsed = from_json(text, allow_inf_nan=False)
    except (TypeError, ValueError):  # the first for half a character
        return False
    if not isinstance(parsed, dict):
        return False
    return text.count('"') == 2 * (len(parsed) + [*map(type, parsed.values())].count(str))


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds.

    :raises PydanticCustomError: it holds something else, a name twice, or half a character.
    """
    try:
        parsed = _DECODER.decode(text.strip())
        text.encode()  # half a character as it is: JSON's decoder does not mind
        if "\\u" in text:
            # An escaped half of a character passes for JSON, and no one can show it.
            json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise PydanticCustomError("json_object", "must be a JSON object")
    return parsed


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice: which value counts is up to the reader")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def dump_json(value: Any) -> str:
    """Return compact JSON with raw non-ASCII, as the platform wants it.

    Decimals, UUIDs and times become text, datetimes ``yyyy-MM-dd HH:mm:ss`` at China's time, other dates ISO text,
    and what stands for NULL ``null``.
    """
    try:
        try:
            text = _ENCODER.encode(value)
        except ValueError:
            # Not-a-number is NULL; the encoder knows no way to say so.
            text = _ENCODER.encode(_without_nan(value))
        text.encode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise PydanticCustomError("json_object", "holds a value that JSON cannot hold") from None
    return text


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if type(value).__name__ == "ndarray":
        return _without_nan(value.tolist())
    return None if is_null(value) else value


def _json_default(value: Any) -> Any:
    value = plain_value(value)
    if isinstance(value, datetime):
        return date_text(value)
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= _MAX_DIGITS:
        return format(value, "f")
    if isinstance(value, (date, time)):
        return str(value)
    if type(value).__name__ == "ndarray":
        return value.tolist()
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError("not JSON")


# Not json.dumps, which makes such an encoder for each value.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_json_default)


def to_date(value: Any) -> Any:
    """Return a datetime in China's time from a datetime or a platform date; None stays None.

    :raises PydanticCustomError: it is neither.
    """
    value = plain_value(value)
    if value is None:
        return None
    try:
        if isinstance(value, datetime):
            return in_china(value)
        if isinstance(value, str):
            return parse_date(value.strip())
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError("date", "must be a date with a time, such as 2024-03-12 14:05:56")


def to_start_time(value: Any) -> Any:
    """Return a datetime as :func:`to_date` does, where a call may start then.

    :raises PydanticCustomError: it is none, or outside of the years 2000 to 2099.
    """
    moment = to_date(value)
    if moment is not None and not _FIRST_START <= moment < _END_OF_STARTS:
        raise PydanticCustomError("date", "must be a date within the years 2000 to 2099")
    return moment


def _to_phone(value: Any, info: ValidationInfo) -> Any:
    text = to_text(value)
    if text is None:
        return None
    try:
        number = canonical_phone(text)
        # In its one spelling, another country's number begins so.
        if number.startswith("00") and not (info.context or {}).get(ALLOW_INTERNATIONAL):
            raise PhoneNumberError(
                "is another country's number (to allow them: international_numbers of the connection)"
            )
    except PhoneNumberError as error:
        raise PydanticCustomError("phone", "{reason}", {"reason": str(error)}) from None
    return number


def _to_email(value: Any) -> Any:
    text = to_text(value)
    if text is None:
        return None
    text = text.strip().strip(INVISIBLE).strip()
    if not re.fullmatch(r"[^@\s\ud800-\udfff]+@[^@\s\ud800-\udfff]+", text):
        raise PydanticCustomError("email", "is not an email address")
    return text


_STRIPPED = StringConstraints(strip_whitespace=True, min_length=1)

Text = Annotated[str, _STRIPPED, BeforeValidator(to_text)]
Number = Annotated[int, BeforeValidator(_to_number)]
JsonObject = Annotated[str, BeforeValidator(_to_json_object)]
Date = Annotated[
    datetime,
    BeforeValidator(to_start_time),
    PlainSerializer(date_text, return_type=str),
]
Phone = Annotated[str, BeforeValidator(_to_phone)]
Email = Annotated[str, BeforeValidator(_to_email)]
OrBlank = Annotated[T | None, BeforeValidator(lambda value: None if is_blank(value) else value)]
"""Any of these types, where a blank value is as good as none."""
