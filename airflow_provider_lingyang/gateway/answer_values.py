"""Values in an answer, in the shapes that the platform gives them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_DECODER = json.JSONDecoder(strict=False)
_MEMBER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def is_plain_name(name: str) -> bool:
    """Whether a member's name may be shown: any other may be data, such as a phone number."""
    return _MEMBER_NAME.fullmatch(name) is not None


def decoded_json(node: Any) -> Any:
    """Return a value, decoded where it is the JSON text of a struct or a list."""
    if isinstance(node, str) and node.lstrip()[:1] in ("{", "["):
        try:
            return _DECODER.decode(node.strip())
        except (ValueError, RecursionError):
            pass
    return node


def as_list(value: Any) -> list[Any]:
    """Return a list of the platform in any of its spellings: absent, null, ``{}``, wrapped once, or plain."""
    if value is None or value == {} or value == "":
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        (inner,) = value.values()
        if isinstance(inner, list):
            return inner
        if not inner and not isinstance(inner, (bool, int)):
            return []
        if isinstance(inner, Mapping):
            return [inner]
    return [value]


def plain_text(value: Any) -> str | None:
    """Return a value of an answer as text; None for null, a list or a struct."""
    if value is None or isinstance(value, str):
        return value
    # Not Mapping, a check that takes ten times as long: JSON's structs are dicts.
    return None if isinstance(value, (dict, list)) else str(value)


def names_in(node: Mapping[str, Any]) -> str:
    """Return the names in a struct of an answer; those that may be data, such as a phone number, as "…"."""
    names = [name for name in node if is_plain_name(name)][:20]
    return ", ".join(sorted(names) + ["…"] * (len(names) < len(node))) or "nothing"
