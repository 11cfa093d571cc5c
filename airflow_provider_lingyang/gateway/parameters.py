"""Business parameters of any method as the platform takes them: text. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway.dates import date_text
from airflow_provider_lingyang.gateway.errors import RequestInvalidError
from airflow_provider_lingyang.gateway.field_types import dump_json

_MAX_EXPONENT = 100
"""Of a Decimal: one with a large exponent would fill the memory with zeros."""


class _NotPlainError(Exception):
    """JSON cannot hold a value; says of which kind it is, and never the value."""


def parameter_texts(method: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a call as text; those that are None are left out.

    Text stays as it is. Numbers and Booleans are written as JSON writes them, a ``Decimal`` in digits, a ``datetime``
    as ``yyyy-MM-dd HH:mm:ss`` in China's time (a naive one already is), other dates and times and UUIDs as ISO text,
    an enum's member as its value, numpy's scalars as Python's; dicts, lists and tuples as compact JSON, with the same
    inside. NaT is None.

    :param method: the platform's method name, for the message.
    :raises RequestInvalidError: names the parameter that holds something else: bytes, a set, NaN, infinity, an object.
    """
    texts = {}
    for name, value in params.items():
        try:
            plain = _plain(value)
            if plain is None:
                continue
            texts[name] = text = plain if isinstance(plain, str) else dump_json(plain)
            text.encode()
        except _NotPlainError as error:
            kind = f" ({error})"
        except (PydanticCustomError, RecursionError, OverflowError, ValueError):
            kind = ""
        else:
            continue
        # from None: the original may repeat the value.
        raise RequestInvalidError(
            f"the parameter {name[:60]!r} of {method} holds a value that JSON cannot hold{kind}; nothing was sent"
        ) from None
    return texts


def _plain(value: Any) -> Any:
    """Return a value in types that JSON has."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _NotPlainError("NaN or infinite")
        return float(value)
    if isinstance(value, Decimal):
        if not value.is_finite() or abs(value.adjusted()) > _MAX_EXPONENT:
            raise _NotPlainError("NaN, infinite, or too large")
        return format(value, "f")
    if isinstance(value, (date, time, UUID)):
        return _date(value)
    if isinstance(value, dict):
        named = {_name(name): _plain(item) for name, item in value.items()}
        if len(named) < len(value):
            raise _NotPlainError("a name twice")
        return named
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return _plain(_scalar(value))
    raise _NotPlainError(type(value).__name__)


def _date(value: Any) -> str | None:
    if value != value:  # pandas' NaT, which is a datetime
        return None
    return date_text(value) if isinstance(value, datetime) else str(value)


def _scalar(value: Any) -> Any:
    if value.dtype.kind == "M":
        # Of nanoseconds, item() would make a number.
        return value.astype("datetime64[us]").item()
    item = value.item()
    if isinstance(item, type(value)) or value.dtype.kind not in "biufUO":
        raise _NotPlainError(type(value).__name__)
    return item


def _name(name: Any) -> str:
    if isinstance(name, Enum):
        name = name.value
    if isinstance(name, int) and not isinstance(name, bool):
        return int.__repr__(name)
    if not isinstance(name, str):
        raise _NotPlainError("a key that is not text")
    return name
