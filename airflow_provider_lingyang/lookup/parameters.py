"""The rules of a look-up's description that concern several keys at once, and its parameters as text. Pure.

Imported while DAG files are parsed, so nothing heavy is imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

ANY = "*"
"""Of ``success_values``: the field is there, and not null."""
_TODAY = re.compile(r"\{today:([^{}]+)\}")
_PLACE = re.compile(r"\{\s*\w+\s*(?:[!:][^{}\"]*)?\}")
_DIRECTIVE = re.compile(r"%[YymdHMSjUWuwBbAaGgVCDFTRheIp%]")
"""Those that every platform's ``strftime`` knows."""


def contradiction(value: Mapping[str, Any]) -> str | None:
    """Return which rule about several keys a ``result_query`` breaks; None: none.

    :param value: the keys, unchecked. Types of values are checked elsewhere.
    """

    def given(name: str) -> bool:
        return value.get(name) not in (None, "", [], (), {})

    if given("success_field") != given("success_values"):
        return "success_field and success_values belong together"
    if isinstance(words := value.get("success_values"), (list, tuple)):
        if any(isinstance(word, str) and not word.strip() for word in words):
            return "success_values holds a blank value"
        if ANY in words and len(words) > 1:
            return f"success_values: {ANY!r} means any value, so it stands alone"
    if given("created_at_zone") and not given("created_at_field"):
        return "created_at_zone needs a created_at_field"
    if given("page_size_field") and not given("page_size"):
        return "page_size_field needs a page_size"
    if (given("done_values") or given("failed_values")) and not given("status_field"):
        return "done_values and failed_values need a status_field"
    fixed = value.get("fixed_params")
    names = [value.get(name) for name in ("biz_ids_field", "page_field", "page_size_field")]
    return _clash([*names, *(fixed if isinstance(fixed, Mapping) else ())]) or _strange_place(fixed)


def _clash(names: Iterable[Any]) -> str | None:
    seen: list[str] = []
    for name in names:
        if not isinstance(name, str) or not name:
            continue
        for other in seen:
            if name == other or name.startswith(f"{other}.") or other.startswith(f"{name}."):
                return f"{name!r} is twice among biz_ids_field, page_field, page_size_field and fixed_params"
        seen.append(name)
    return None


def _strange_place(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return next(filter(None, map(_strange_place, value.values())), None)
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(_strange_place, value)), None)
    if not isinstance(value, str):
        return None
    for form in _TODAY.findall(value):
        if not _DIRECTIVE.search(form) or "%" in _DIRECTIVE.sub("", form):
            return "fixed_params: a date is written as {today:%Y%m%d}, with directives of strftime"
    if found := _PLACE.search(_TODAY.sub("", value)):
        return (
            f"fixed_params: {found[0][:40]} is unknown; only a date, such as {{today:%Y%m%d}}, is filled in"
        )
    return None


def filled(value: Any, now: datetime) -> Any:
    """Return a value of ``fixed_params`` with its dates filled in.

    :param now: the moment of the call, in China's time.
    """
    if isinstance(value, Mapping):
        return {name: filled(inner, now) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [filled(inner, now) for inner in value]
    return _TODAY.sub(lambda found: now.strftime(found[1]), value) if isinstance(value, str) else value


def put(struct: dict[str, Any], path: str, value: Any) -> None:
    """Set a field of a struct; one with dots in its name is a field of a struct within."""
    *within, last = path.split(".")
    for name in within:
        struct = struct.setdefault(name, {})
    struct[last] = value


def as_parameter(value: Any) -> str:
    """Return a value as the text of a flat parameter."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
