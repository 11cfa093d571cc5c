"""Read the platform's JSON, and find a name that one object holds twice: parsers take the last one in silence. Pure."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json, to_json


class DuplicateKeyError(ValueError):
    """An object holds a name twice, with different values: two readings are possible."""


def parse_json(body: bytes) -> Any:
    """Return a JSON document.

    :raises DuplicateKeyError: an object in it holds a name twice, with different values.
    :raises ValueError: it is no JSON.
    :raises RecursionError: it is nested too deeply.
    """
    try:
        # Together in half of the other's time. Of a name that was there twice, one is missing in the text.
        document = from_json(body, cache_strings="keys")
        if to_json(document) == body:
            return document
    except ValueError:
        pass
    return _DECODER.decode(body.decode())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) and any(_differ(found[name], value) for name, value in pairs):
        raise DuplicateKeyError
    return found


def _differ(one: Any, other: Any) -> bool:
    # 1 and true are equal to Python, and not the same answer.
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_object)
