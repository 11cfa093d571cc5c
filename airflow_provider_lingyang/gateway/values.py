"""Values of drivers, data frames and XCom → plain values of Python. Imports none of these libraries."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

_PLAIN = frozenset((str, int, bool, dict, list, tuple, bytes, datetime, date, time))
"""Types whose values are plain already, and never NULL."""
_NULLS = frozenset(("NAType", "NaTType", "MaskedConstant"))
"""Types of ``pandas.NA``, ``pandas.NaT`` and ``numpy.ma.masked``, which equal nothing or claim to be a datetime."""
_DAY, _MIDNIGHT = timedelta(days=1), datetime(2000, 1, 1, tzinfo=UTC)


def is_null(value: Any) -> bool:
    """Whether a value stands for NULL: None, not-a-number and not-a-time of any type."""
    kind = type(value)
    if value is None:
        return True
    if kind in _PLAIN:
        return False
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, Decimal):
        return value.is_nan()
    if kind.__name__ in _NULLS:
        return True
    # Arrays, and other values with several elements, compare element by element.
    return _is_numpy_scalar(value) and bool(value != value)


def is_blank(value: Any) -> bool:
    """Whether a value is NULL, or text of white space alone."""
    return not value.strip() if isinstance(value, str) else is_null(value)


def plain_value(value: Any) -> Any:
    """Return a single value as one of Python's own types, None for NULL; a value without such a form as it is.

    An enum's member is its value. A UUID becomes text, and so does a time span within a day, as drivers of MySQL give
    times of day.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if is_null(value):
        return None
    if isinstance(value, Enum):
        return plain_value(value.value)
    if isinstance(value, datetime):
        # Classes derived from it write themselves differently.
        return datetime.combine(value.date(), value.time(), value.tzinfo).replace(fold=value.fold)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, timedelta):
        return str((_MIDNIGHT + value).time()) if timedelta() <= value < _DAY else value
    return _of_numpy(value) if _is_numpy_scalar(value) else value


def _is_numpy_scalar(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "ndim", 0)


def _of_numpy(value: Any) -> Any:
    kind = type(value).__name__
    if kind in ("datetime64", "timedelta64"):
        # In nanoseconds, which Python has not, it would be a number. Of days it is a date.
        unit = str(value.dtype)
        item = value.item() if unit.endswith("[D]") else value.astype(f"{kind}[us]").item()
        return plain_value(item)
    if kind.startswith(("float", "longdouble")) and not isinstance(value, float):
        # Its own digits: as a float of twice the size, 0.1 has sixteen more.
        return float(str(value))
    item = value.item()
    # Some have no counterpart, and return themselves.
    return item if type(item).__module__ != "numpy" else value
