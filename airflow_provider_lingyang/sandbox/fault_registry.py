"""What a kind of fault is: a function, registered under its name, whose signature says what it takes."""

from __future__ import annotations

import inspect
import json
import math
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from airflow_provider_lingyang.sandbox.answers import Answer
    from airflow_provider_lingyang.sandbox.exchange import Raw


WHEN = ("times", "after", "every", "rate", "seed", "method", "match")
"""What every rule takes, whatever its kind."""


class RuleError(ValueError):
    """A rule that cannot be understood; the message says why."""


@dataclass(frozen=True)
class Kind:
    """One way to go wrong."""

    name: str
    function: Callable[..., Awaitable[Answer | Raw]]
    switch: bool
    """It is on from the moment it is added and does not fire on requests."""
    submits_only: bool
    """It makes sense for submits only, so its rules are about submits unless they say otherwise."""

    def check(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return all arguments of the function, with its defaults.

        :raises RuleError: for an unknown argument, a missing one or one of the wrong type.
        """
        wanted = [
            item for item in inspect.signature(self.function).parameters.values() if item.name != "call"
        ]
        types_ = get_type_hints(self.function)
        names = [item.name for item in wanted]
        if unknown := sorted(set(arguments) - set(names)):
            raise RuleError(
                f"{self.name}: unknown {', '.join(unknown)}; it takes {', '.join(names) or 'nothing'} of its own, and "
                f"like every rule {', '.join(WHEN)}"
            )
        found: dict[str, Any] = {}
        for item in wanted:
            if item.name not in arguments and item.default is item.empty:
                raise RuleError(f"{self.name}: {item.name} is required")
            found[item.name] = arguments.get(item.name, item.default)
            if item.name in arguments and not _is_a(found[item.name], types_[item.name]):
                hint = types_[item.name]
                text = getattr(hint, "__name__", None) or str(hint)
                if get_origin(hint) is Literal:
                    text = f"one of {', '.join(map(str, get_args(hint)))}"
                raise RuleError(f"{self.name}: {item.name} must be {text}")
            if item.name == "seconds" and abs(found["seconds"]) > 10 * 365 * 86_400:
                raise RuleError(f"{self.name}: seconds must be less than ten years")
            if item.name == "seconds" and self.name != "clock" and found["seconds"] < 0:
                raise RuleError(f"{self.name}: seconds must not be negative")
        return found


KINDS: dict[str, Kind] = {}
"""Name → kind."""

Function = Callable[..., "Awaitable[Answer | Raw]"]


def kind(*, switch: bool = False, submits_only: bool = False) -> Callable[[Function], Function]:
    """Register a function as a kind under its own name."""

    def register(function: Function) -> Function:
        name = function.__name__
        KINDS[name] = Kind(name, function, switch, submits_only)
        return function

    return register


def catalogue() -> str:
    """Return every kind with its arguments and first line, for people (``GET /sandbox/kinds``)."""
    found = {}
    for name, item in KINDS.items():
        arguments = list(inspect.signature(item.function).parameters.values())[1:]
        found[name] = {
            "arguments": {
                each.name: "required" if each.default is each.empty else each.default for each in arguments
            },
            "what": (inspect.getdoc(item.function) or "").splitlines()[0],
        }
    return json.dumps(found, ensure_ascii=False, indent=2)


def _is_a(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(hint, types.UnionType):
        return any(_is_a(value, option) for option in get_args(hint))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint is None:
        return value is None
    return type(value) is hint
