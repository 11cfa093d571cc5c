"""Slots in the shapes in which the platform hands them over. Pure.

Source of the pushed message's shape: open.fliggy.com/docs/api.htm?apiId=68994.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_DECODER = json.JSONDecoder(strict=False)
"""Made once: ``json.loads`` makes one for each text where it is not to be strict."""
_LEVELS = ("call_result", "data", "output", "output_params", "slots")
"""Names on the way to the slots of a pushed message, from the outermost."""
_MESSAGE = frozenset((*_LEVELS, "call_result_key_info", "intentions", "info"))
"""Names that only a message has, where their value is no text."""
_DEPTH = 8
_OF_A_SLOT = frozenset(("name", "action", "value", "required", "task_completed"))


def read_slots(value: Any) -> tuple[Mapping[str, Any], bool]:
    """Return slot → value, and whether the value could be read.

    :param value: an object, slot → value; a list of ``{"name", "value", …}``, also inside an object with one key (the
        platform's lists); an object that holds such a list as ``slots``; the whole pushed message from any level
        (``call_result``, ``data``, ``output``); or the JSON text of any of these, also in the middle and also encoded
        twice. Nothing, or blank text, is no slots. A message without slots cannot be read.
    """
    decoded, is_json = _decoded(value)
    if not is_json:
        return {}, False
    if decoded is None:
        return {}, True
    if isinstance(decoded, dict) and not (decoded.keys() & _MESSAGE or len(decoded) == 1):
        # Nearly all: slot → value.
        return decoded, True
    found = _slots_in(decoded, 0)
    if found is not None:
        return found, True
    if isinstance(decoded, dict) and not _is_message(decoded):
        return decoded, True
    return {}, False


def shape_of(value: Any) -> Any:
    """Return the decoded value of the slots field, for a message that names its keys."""
    return _decoded(value)[0]


def _decoded(value: Any) -> tuple[Any, bool]:
    """Return the value of a JSON text, encoded any number of times, and whether it is JSON. Blank text is None."""
    for _ in range(_DEPTH):
        if not isinstance(value, str):
            return value, True
        if not value.strip():
            return None, True
        try:
            value = _DECODER.decode(value)
        except (ValueError, RecursionError):
            return None, False
    return None, False


def _opened(node: Any) -> Any:
    """Return a value, decoded where it is the JSON text of a struct or a list: a slot may be called "output"."""
    if isinstance(node, str) and node.lstrip().startswith(("{", "[", '"')):
        decoded, is_json = _decoded(node)
        return decoded if is_json else node
    return node


def _slots_in(node: Any, depth: int) -> Mapping[str, Any] | None:
    """Return the slots of a list, or of a message; None where nothing is recognised."""
    if depth > _DEPTH:
        return None
    node = _opened(node)
    if isinstance(node, list):
        named = all(isinstance(slot, dict) and "name" in slot for slot in node)
        return {str(slot["name"]): slot.get("value") for slot in node} if named else None
    if not isinstance(node, dict):
        return None
    for name in _LEVELS:
        if name not in node:
            continue
        inner = node[name]
        found = _listed(inner, depth + 1) if name == "slots" else _slots_in(inner, depth + 1)
        if found is not None:
            return found
    if len(node) == 1 and not node.keys() & _MESSAGE:
        # The platform's lists are wrapped one level deeper. An empty one is none of a plain slot → value.
        (inner,) = node.values()
        if isinstance(inner, list) and inner:
            return _slots_in(inner, depth + 1)
    return None


def _listed(node: Any, depth: int) -> Mapping[str, Any] | None:
    """Return the slots of a member ``slots``: a list in any spelling, or slot → value."""
    node = _opened(node)
    if node is None or node == {}:
        return {}
    if isinstance(node, dict):
        if len(node) == 1:
            (inner,) = node.values()
            if inner is None or inner == {} or inner == []:
                return {}
            if _is_slot(inner):
                return _slots_in([inner], depth)
            if isinstance(inner, str) and (found := _slots_in(inner, depth + 1)) is not None:
                return found
        if _is_slot(node):
            return _slots_in([node], depth)
        found = _slots_in(node, depth)
        return node if found is None and not _is_message(node) else found
    return _slots_in(node, depth)


def _is_slot(node: Any) -> bool:
    return isinstance(node, dict) and "name" in node and "value" in node and node.keys() <= _OF_A_SLOT


def _is_message(node: Mapping[str, Any]) -> bool:
    """Whether an object is a message, or a part of one, rather than slot → value."""
    # A list is no part of one: a plan may put anything under a name like "slots".
    return any(
        name == "intentions" or isinstance(_opened(node[name]), dict) for name in node.keys() & _MESSAGE
    )
