"""Read the platform's JSON, and find a name that one object holds twice: parsers take the last one in silence. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json

_SPACED_COLON = re.compile(rb'"[ \t\r\n]+:')


class DuplicateKeyError(ValueError):
    """An object holds a name twice, with different values: two readings are possible."""


def parse_json(body: bytes) -> Any:
    """Return a JSON document.

    :raises DuplicateKeyError: an object in it holds a name twice, with different values.
    :raises ValueError: it is no JSON.
    :raises RecursionError: it is nested too deeply.
    """
    try:
        # In less than half of the other's time.
        document = from_json(body, cache_strings="keys")
    except ValueError:
        # The platform writes control characters into its texts as they are, which only this one takes.
        return _DECODER.decode(body.decode())
    # As many colons after a name as there are names: then no name was there twice. Where that cannot be counted so
    # simply, or the numbers differ, every object is looked at.
    plain = b'\\\\"' not in body and not _SPACED_COLON.search(body)
    if plain and body.count(b'":') - body.count(b'\\":') == _names(document):
        return document
    return _DECODER.decode(body.decode())


def _names(document: Any) -> int:
    count = 0
    pending = [document]
    # It grows while it is gone through.
    for value in pending:
        inner = value
        if type(value) is dict:
            count += len(value)
            inner = value.values()
        elif type(value) is not list:
            continue
        for each in inner:
            if type(each) is dict or type(each) is list:
                pending.append(each)  # noqa: PERF401  # a list of its own for each would take twice as long
    return count


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) and any(_differ(found[name], value) for name, value in pairs):
        raise DuplicateKeyError
    return found


def _differ(one: Any, other: Any) -> bool:
    # 1 and true are equal to Python, and not the same answer.
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_object)
