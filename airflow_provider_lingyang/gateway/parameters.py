"""Business parameters of any method as the platform takes them: text. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway.errors import RequestInvalidError
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.values import plain_value

_NO_TIMES = ("NaTType", "datetime64")
"""Types of values that may be no time: these are left out, unlike no number."""


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
            # JSON puts a date or a Decimal between quotation marks.
            texts[name] = text = plain if isinstance(plain, str) else dump_json(plain).strip('"')
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
    """Return a value in types that :func:`dump_json` takes, where all of it has one meaning."""
    plain, kind = plain_value(value), type(value).__name__
    if isinstance(plain, dict):
        named = {_name(name): _plain(item) for name, item in plain.items()}
        if len(named) < len(plain):
            raise _NotPlainError("a name twice")
        return named
    if isinstance(plain, (list, tuple)):
        return [_plain(item) for item in plain]
    is_number = isinstance(plain, (float, Decimal))
    if (is_number and not math.isfinite(plain)) or (
        plain is None and value is not None and kind not in _NO_TIMES
    ):
        raise _NotPlainError("NaN, infinite, or too large")
    if not isinstance(plain, (str, int, float, Decimal, date, time, type(None))):
        raise _NotPlainError(kind)
    if isinstance(value, timedelta) or kind == "timedelta64":
        # A row's is a time of day, as MySQL gives it; of a parameter nothing says so.
        raise _NotPlainError(kind)
    return plain


def _name(name: Any) -> str:
    name = plain_value(name)
    if isinstance(name, int) and not isinstance(name, bool):
        return int.__repr__(name)
    if not isinstance(name, str):
        raise _NotPlainError("a key that is not text")
    return name
