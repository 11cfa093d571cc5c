"""Keep a request's values out of texts: gateways like to quote what they were sent."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus

_KEPT = frozenset(("biz_id", "biz_ids", "task_unique_code", "batch_num", "task_id", "plan_id"))
"""Identifiers may appear in texts; every other value of a request may not."""
_MAX_TEXT = 500
_MAX_READ = 256 * 1024
"""Characters. No gateway writes more than it was sent; looking for values in more would take too long."""
_CALL_ID = re.compile(r"[0-9A-Za-z._:-]{1,64}")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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
        """Return the text as one line without the request's values, shortened to 500 characters."""
        if not text:
            return text
        if len(text) > _MAX_READ:
            return f"<a text of {len(text)} characters>"
        pieces: list[str] = []
        done = 0
        for start, end, name in _merged(self._found(text)):
            pieces += text[done:start], f"<{name}>"
            done = end
        text = "".join(pieces) + text[done:]
        # Only after that: a cut could leave half a value that no longer matches.
        return _UNPRINTABLE.sub(" ", text[:_MAX_TEXT])

    def call_id(self, text: str | None) -> str | None:
        """Return the gateway's id of a call; like a text, but at no cost for one that is none of the request's."""
        held = (*self._params.values(), *self._credentials)
        if text and _CALL_ID.fullmatch(text) and not any(text in value for value in held):
            return text
        return self(text)

    def _found(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield where values stand in the text; they may overlap."""
        for value, name in self._values:
            if len(value) > len(text):
                continue
            for spelling in _spellings(value):
                if spelling not in text:
                    continue
                # "15" and "no" stand inside other words, where they are not the request's.
                short = len(spelling) < 4 and spelling.isascii()
                word = re.escape(spelling)
                if short:
                    word = rf"(?<![0-9A-Za-z]){word}(?![0-9A-Za-z])"
                # As a lookahead it finds a value that overlaps itself, too.
                for found in re.finditer(f"(?={word})", text):
                    yield found.start(), found.start() + len(spelling), name

    @cached_property
    def _values(self) -> list[tuple[str, str]]:
        found = dict(self._credentials)
        for name, text in self._params.items():
            for value, where in _leaves(name, text):
                found.setdefault(value, where)
        # A single letter or digit is everywhere; a single Chinese character may be a name.
        return [(value, name) for value, name in found.items() if len(value) > 1 or not value.isascii()]


def _merged(spans: Iterator[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """Join spans that overlap, so that no end of a value is left over; the earliest, longest one gives the name."""
    current: tuple[int, int, str] | None = None
    for start, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        if current is not None and start < current[1]:
            current = (current[0], max(current[1], end), current[2])
            continue
        if current is not None:
            yield current
        current = (start, end, name)
    if current is not None:
        yield current


def _spellings(value: str) -> set[str]:
    """Return a value raw and as it looks inside JSON, inside JSON inside JSON, and inside a form."""
    found = {value}
    if value.isascii() and value.isalnum():
        return found
    for ascii_only in (True, False):
        escaped = value
        for _ in range(2):
            escaped = json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]
            # Java writes \u5F20 where Python writes \u5f20.
            found |= {escaped, re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda code: code[0].upper(), escaped)}
    return found | {quote(value, safe="", errors="replace"), quote_plus(value, errors="replace")}


def _leaves(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield (value, name of its field) for all that a parameter holds. Without recursion: it may be deep."""
    pending: deque[tuple[str, Any, bool]] = deque([(name, text, True)])
    while pending:
        name, value, ours = pending.popleft()
        # Inside input_params and the like, a variable may be called as it pleases.
        if ours and name in _KEPT:
            continue
        if isinstance(value, dict):
            pending += ((str(key), inner, ours) for key, inner in value.items())
        elif isinstance(value, list):
            pending += ((name, inner, ours) for inner in value)
        elif isinstance(value, str):
            if value not in ("{}", "[]"):
                yield value, name
            if value.lstrip()[:1] in ("{", "["):
                try:
                    inside = json.loads(value, strict=False)
                except (ValueError, RecursionError):
                    continue
                pending.append((name, inside, value is text))
        elif isinstance(value, (int, float)) and abs(value) > 9999:
            yield json.dumps(value), name
