"""Slot values that databases and XCom can store: clean text of a limited size. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_lingyang.results.completion import is_filled

TABLE_BYTES = 65_535
"""Limit of one value in a table, in UTF-8: the smallest text column of any supported database."""
XCOM_BYTES = 4_096
"""Limit of one value in XCom, which may hold a thousand recipients with some slots each."""
NAME_BYTES = 255
"""Limit of a slot's name that no argument gives."""


def storable(text: str) -> str:
    """Replace what databases refuse, NUL and lone surrogates, by U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_text(value: Any) -> str:
    """Return a slot's value as text; blank where it is not filled."""
    if not is_filled(value):
        return ""
    return value if isinstance(value, str) else json.dumps(_clean(value), ensure_ascii=False)


def cut(text: str, limit: int) -> str:
    """Return storable text of at most ``limit`` bytes of UTF-8; a longer one is cut, and ends with its length."""
    text = storable(text)
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    mark = f"… [cut, {len(encoded)} bytes]"
    return encoded[: limit - len(mark.encode())].decode(errors="ignore") + mark


def cut_slots(slots: Mapping[str, Any], limit: int) -> tuple[dict[str, Any], bool]:
    """Return slots with storable names and values, and whether a name or a value was cut.

    :param limit: bytes of one value; a longer one that is no text becomes the beginning of its JSON.
    """
    kept: dict[str, Any] = {}
    was_cut = False
    for name, value in slots.items():
        value = _clean(value)
        text = value if isinstance(value, str) else as_text(value)
        shown, shown_name = cut(text, limit), cut(name, NAME_BYTES)
        was_cut |= shown != text or shown_name != storable(name)
        kept[shown_name] = value if shown == text else shown
    return kept, was_cut


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(name)): _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, (list, tuple)) else value
