"""Kinds of faults: functions registered by name. The signature of each defines its arguments."""

from __future__ import annotations

import inspect
import json
import math
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from airflow_provider_lingyang.sandbox.answers import Answer, RawAnswer

RULE_KEYS = ("times", "after", "every", "rate", "seed", "method", "match")
"""Keys that every rule may have, whatever its kind."""


FaultFunction = Callable[..., Awaitable[Answer | RawAnswer]]
"""Takes an exchange and, by name, its own arguments; returns what the client gets."""


class RuleError(ValueError):
    """A rule is not valid; the message says why."""


@dataclass(frozen=True)
class FaultKind:
    """One way to fail."""

    name: str
    function: FaultFunction
    switch: bool
    """On from the moment it is added; it does not fire on requests."""
    submits_only: bool
    """Makes sense for submits only: its rules are for submits unless they name a method."""
    lookups_only: bool = False
    """The same for look-ups."""

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return all arguments of the function, with its defaults.

        :param arguments: by name, as a rule gives them.
        :raises RuleError: for an unknown argument, a missing one or one of the wrong type.
        """
        _, *parameters = inspect.signature(self.function).parameters.values()
        hints = get_type_hints(self.function)
        names = [item.name for item in parameters]
        if unknown := sorted(set(arguments) - set(names)):
            raise RuleError(
                f"{self.name}: unknown {', '.join(unknown)}; it takes {', '.join(names) or 'nothing'} of its own, and "
                f"like every rule {', '.join(RULE_KEYS)}"
            )
        found: dict[str, Any] = {}
        for item in parameters:
            if item.name not in arguments and item.default is item.empty:
                raise RuleError(f"{self.name}: {item.name} is required")
            found[item.name] = arguments.get(item.name, item.default)
            if item.name in arguments and not _is_a(found[item.name], hints[item.name]):
                hint = hints[item.name]
                text = getattr(hint, "__name__", None) or str(hint)
                if get_origin(hint) is Literal:
                    text = f"one of {', '.join(map(str, get_args(hint)))}"
                raise RuleError(f"{self.name}: {item.name} must be {text}")
            if item.name == "seconds" and abs(found["seconds"]) > 10 * 365 * 86_400:
                raise RuleError(f"{self.name}: seconds must be less than ten years")
            if item.name == "seconds" and self.name != "clock" and found["seconds"] < 0:
                raise RuleError(f"{self.name}: seconds must not be negative")
        return found


FAULT_KINDS: dict[str, FaultKind] = {}
"""Name → kind."""


def fault_kind(
    *, switch: bool = False, submits_only: bool = False, lookups_only: bool = False
) -> Callable[[FaultFunction], FaultFunction]:
    """Register a function as a kind under its own name."""

    def register(function: FaultFunction) -> FaultFunction:
        name = function.__name__
        FAULT_KINDS[name] = FaultKind(name, function, switch, submits_only, lookups_only)
        return function

    return register


def catalogue() -> str:
    """Return every kind with its arguments and first line, as JSON for readers (``GET /sandbox/kinds``)."""
    found = {}
    for name, item in FAULT_KINDS.items():
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
