"""Keep a request's values out of texts: gateways like to quote what they were sent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

_KEPT = frozenset(("biz_id", "biz_ids", "task_unique_code", "batch_num", "task_id", "plan_id"))
"""Identifiers may appear in texts; every other value of a request may not."""
_MAX_TEXT = 500


class Scrubber:
    """Replaces every value of one request by its field's name.

    Costs nothing until a text has to be scrubbed, which is only once something went wrong.

    :param params: the request's business parameters, structs as JSON text.
    :param credentials: what else no text may hold: value → name.
    """

    def __init__(self, params: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        self._params = params
        self._credentials = credentials

    def __call__(self, text: str | None) -> str | None:
        """Return the text without the request's values, shortened to 500 characters."""
        if not text:
            return text
        # A pattern of the few that occur: one of all values costs more than the call itself.
        names = {spelling: name for spelling, name in self._names.items() if spelling in text}
        if names:
            longest_first = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
            text = re.sub(longest_first, lambda found: f"<{names[found[0]]}>", text)
        # Only after that: a cut could leave half a value that no longer matches.
        return text[:_MAX_TEXT]

    @cached_property
    def _names(self) -> dict[str, str]:
        leaves = [*self._credentials.items()]
        for name, text in self._params.items():
            leaves.extend((value, where) for where, value in _leaves(name, text))
        # Raw, and as the two ways JSON escapes it: gateways quote the struct they were sent.
        return {
            spelling: name
            for value, name in leaves
            for spelling in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
            if len(value) > 1
        }


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if name in _KEPT:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(name, inner)
    elif isinstance(value, str):
        if value not in ("{}", "[]"):
            yield name, value
        if value[:1] in ("{", "["):
            try:
                yield from _leaves(name, json.loads(value, strict=False))
            except (ValueError, RecursionError):
                return
    elif isinstance(value, int) and abs(value) > 9999:
        yield name, str(value)
