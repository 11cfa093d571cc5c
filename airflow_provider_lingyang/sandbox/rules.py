"""Conditions on which a fault fires: rules with times, every, rate, after, method and match, or a seeded schedule.

A rule is a JSON object (``POST /sandbox/faults``):

``kind``
    a function of ``faults.py`` or ``lookup_styles.py``; its arguments are keys of the rule.
``times``
    fires at most this often; null: without limit. Default 1, or null with ``every`` or ``rate``.
``after``
    lets this many matching requests pass first. Default 0.
``every``
    fires on every k-th matching request. Default 1.
``rate``, ``seed``
    fires on a matching request with this probability (0 to 1), reproducibly by ``seed`` (default 0).
``method``
    only for this method (``submit`` and ``lookup`` are short names). Default: any method, or the only one that the
    kind makes sense for.
``match``
    only for requests with these values, e.g. ``{"batch_num": "3"}``; of ``batch_num``,
    ``plan_id``, ``task_unique_code`` and ``biz_id`` (any of the request's).

or ``{"schedule": {"kinds": [kind or {"kind": ..., arguments}, ...], "rate": 0.3, "seed": 7, ...}}``: fires like a rule
with that rate, each time with one of the kinds. One fault fires per request: that of the oldest matching rule, after
the protocol's checks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_lingyang.sandbox import LOOKUP, SUBMIT
from airflow_provider_lingyang.sandbox.checks import BUSINESS_PARAMETERS
from airflow_provider_lingyang.sandbox.fault_registry import FAULT_KINDS, RULE_KEYS, FaultKind, RuleError
from airflow_provider_lingyang.sandbox.record import Entry

_MATCHABLE = ("batch_num", "plan_id", "task_unique_code", "biz_id")


@dataclass(frozen=True)
class Fault:
    """A kind with its arguments."""

    kind: FaultKind
    arguments: dict[str, Any]


@dataclass
class Rule:
    """One rule and its counts."""

    number: int
    source: dict[str, Any]
    faults: list[Fault]
    times: int | None
    after: int
    every: int
    rate: float
    seed: int
    method: str | None
    match: dict[str, str]
    matched: int = 0
    """Matching requests."""
    fired: int = 0
    """Number of times it fired; ``times`` limits it."""
    affected: int = 0
    """Requests that it affected: for a ban or a switch more than ``fired``."""

    def fault_for(self, entry: Entry) -> Fault | None:
        """Return the fault for this request, or None. Counts the request if it matches."""
        if self.faults[0].kind.switch or not self.applies_to(entry.method):
            return None
        if not all(_has(entry, name, value) for name, value in self.match.items()):
            return None
        self.matched += 1
        turn = self.matched - self.after
        if turn <= 0 or (self.times is not None and self.fired >= self.times) or turn % self.every:
            return None
        generator = random.Random(f"{self.seed}:{turn}")
        if generator.random() >= self.rate:
            return None
        self.fired += 1
        self.affected += 1
        return generator.choice(self.faults)

    def applies_to(self, method: str) -> bool:
        """Whether the rule is for this method."""
        return self.method is None or method == self.method

    def as_json(self) -> dict[str, Any]:
        """Return the rule as ``GET /sandbox/faults`` shows it."""
        return {"id": self.number, "fired": self.fired, "affected": self.affected, "rule": self.source}


class Rules:
    """All rules in force. They and a ban end with the process: no store keeps them."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self._number = 0
        self._ban_until = -math.inf
        self._ban: tuple[Rule, Fault] | None = None

    def add(self, source: object) -> Rule:
        """Add a rule.

        :param source: the JSON of a rule.
        :raises RuleError: the message names the error.
        """
        rule = _read(source, self._number + 1)
        self._number += 1
        self.rules.append(rule)
        return rule

    def clear(self, *, keep_clock: bool = False) -> None:
        """Delete the rules and end a ban.

        :param keep_clock: keep the ``clock`` switch: it belongs to the machine, not to a test's faults.
        """
        self.rules = [rule for rule in self.rules if keep_clock and rule.faults[0].kind.name == "clock"]
        self._ban = None

    def active_switch(self, kind: str) -> dict[str, Any] | None:
        """Return the arguments of the newest rule of a switch, or None. Counts as affecting a request."""
        for rule in reversed(self.rules):
            if rule.faults[0].kind.name == kind and rule.faults[0].kind.switch:
                rule.affected += 1
                return rule.faults[0].arguments
        return None

    def fault_for(self, entry: Entry, now: float) -> Fault | None:
        """Return the fault for a request, or None.

        :param entry: the request.
        :param now: epoch seconds.
        """
        if self._ban and now < self._ban_until and self._ban[0].applies_to(entry.method):
            self._ban[0].affected += 1
            left = {"seconds": self._ban_until - now}
            return Fault(self._ban[1].kind, {**self._ban[1].arguments, **left})
        for rule in self.rules:
            fault = rule.fault_for(entry)
            if fault is None:
                continue
            if fault.kind.name == "throttle":
                self._ban, self._ban_until = (rule, fault), now + fault.arguments["seconds"]
            return fault
        return None


def _read(source: object, number: int) -> Rule:
    if not isinstance(source, dict):
        raise RuleError("a rule is a JSON object")
    if "schedule" in source:
        if set(source) != {"schedule"} or not isinstance(source["schedule"], dict):
            raise RuleError(
                'a schedule is {"schedule": {"kinds": [...], "rate": ..., "seed": ...}} and nothing else'
            )
        when = dict(source["schedule"])
        kinds = when.pop("kinds", None)
        if not isinstance(kinds, list) or not kinds:
            raise RuleError("schedule: kinds must be a list of kinds")
        faults = [_fault({"kind": kind} if isinstance(kind, str) else kind) for kind in kinds]
        if any(fault.kind.switch for fault in faults):
            raise RuleError("schedule: clock and session_required are switches; they cannot be scheduled")
        if unknown := sorted(set(when) - set(RULE_KEYS)):
            raise RuleError(f"schedule: unknown keys {', '.join(unknown)}")
    else:
        when = {name: source[name] for name in RULE_KEYS if name in source}
        faults = [_fault({name: value for name, value in source.items() if name not in RULE_KEYS})]
        if faults[0].kind.switch and when:
            raise RuleError(
                f"{faults[0].kind.name} is on until it is cleared; it takes none of {', '.join(when)}"
            )
    method = when.get("method")
    if method is None and all(fault.kind.submits_only for fault in faults):
        method = SUBMIT
    elif method is None and all(fault.kind.lookups_only for fault in faults):
        method = LOOKUP
    unlimited = "every" in when or "rate" in when
    return Rule(
        number=number,
        source=source,
        faults=faults,
        times=_whole(when, "times", None if unlimited else 1, least=1, nullable=True),
        after=_whole(when, "after", 0, least=0) or 0,
        every=_whole(when, "every", 1, least=1) or 1,
        rate=_rate(when.get("rate", 1)),
        seed=_whole(when, "seed", 0, least=None) or 0,
        method=_method(method),
        match=_match(when.get("match", {})),
    )


def _fault(source: object) -> Fault:
    if not isinstance(source, dict) or not isinstance(source.get("kind"), str):
        raise RuleError("a rule needs a kind, or a schedule")
    arguments = {name: value for name, value in source.items() if name != "kind"}
    kind = FAULT_KINDS.get(source["kind"])
    if kind is None:
        raise RuleError(f"unknown kind {source['kind']!r}; there are {', '.join(FAULT_KINDS)}")
    return Fault(kind, kind.bind(arguments))


def _whole(
    when: Mapping[str, Any], name: str, default: int | None, *, least: int | None, nullable: bool = False
) -> int | None:
    value = when.get(name, default)
    if value is None and (nullable or name not in when):
        return None
    if type(value) is not int or (least is not None and value < least):
        raise RuleError(f"{name} must be a whole number" + ("" if least is None else f" of at least {least}"))
    return value


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RuleError("rate must be a number from 0 to 1")
    return float(value)


def _method(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or _full_name(value) not in BUSINESS_PARAMETERS:
        raise RuleError(f"method must be submit, lookup or one of {', '.join(BUSINESS_PARAMETERS)}")
    return _full_name(value)


def _full_name(name: str) -> str:
    return {"submit": SUBMIT, "lookup": LOOKUP}.get(name, name)


def _match(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not set(value) <= set(_MATCHABLE):
        raise RuleError(f"match must be an object with keys of {', '.join(_MATCHABLE)}")
    return {name: str(text) for name, text in value.items()}


def _has(entry: Entry, name: str, value: str) -> bool:
    if name == "biz_id":
        return value in entry.biz_ids
    return str(getattr(entry, name)) == value
