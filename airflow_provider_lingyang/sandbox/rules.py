"""When a fault fires: rules with times, every, rate, after, method and match, or a seeded schedule of kinds.

A rule is a JSON object (``POST /sandbox/faults``):

``kind``
    a function of ``faults.py``; the kind's own arguments stand beside it.
``times``
    fires at most so often; null: for ever. Default 1, or null where ``every`` or ``rate`` is given.
``after``
    lets so many matching requests through first. Default 0.
``every``
    fires on every k-th matching request. Default 1.
``rate``, ``seed``
    fires on a matching request with this probability (0 to 1), the same ones for the same ``seed`` (default 0).
``method``
    only for this method (``submit`` and ``lookup`` are short names). Default: submits, for kinds that make sense
    for nothing else, or any method.
``match``
    only where these fields of the request have these values, e.g. ``{"batch_num": "3"}``; of ``batch_num``,
    ``plan_id``, ``task_unique_code`` and ``biz_id`` (any of the request's).

or ``{"schedule": {"kinds": [kind or {"kind": ..., arguments}, ...], "rate": 0.3, "seed": 7, ...}}``: fires as a rule
with that rate does, each time with one of the kinds. Only one fault fires per request, that of the oldest rule
which wants it, and only after the protocol's checks were passed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import airflow_provider_lingyang.sandbox.faults  # noqa: F401 - fills KINDS
from airflow_provider_lingyang.sandbox import SUBMIT
from airflow_provider_lingyang.sandbox.answers import Answer
from airflow_provider_lingyang.sandbox.checks import BUSINESS_PARAMETERS
from airflow_provider_lingyang.sandbox.exchange import Call, Raw, method_named
from airflow_provider_lingyang.sandbox.fault_registry import KINDS, WHEN, Kind, RuleError

if TYPE_CHECKING:
    from airflow_provider_lingyang.sandbox.record import Entry

_MATCHABLE = ("batch_num", "plan_id", "task_unique_code", "biz_id")


@dataclass(frozen=True)
class Fault:
    """A kind and the arguments it was given."""

    kind: Kind
    arguments: dict[str, Any]

    async def apply(self, call: Call) -> Answer | Raw:
        """Let it happen to a request."""
        return await self.kind.function(call, **self.arguments)


@dataclass
class Rule:
    """One rule, and how often it fired."""

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
    seen: int = 0
    """Requests it was about."""
    fired: int = 0
    """How often it went off; what ``times`` limits."""
    affected: int = 0
    """Requests that felt it: more than it fired for a ban, or for a switch."""

    def pick(self, entry: Entry) -> Fault | None:
        """Return what happens to this request, or None; counts the request if it matches."""
        if self.faults[0].kind.switch or not self.concerns(entry.method):
            return None
        if not all(_has(entry, name, value) for name, value in self.match.items()):
            return None
        self.seen += 1
        turn = self.seen - self.after
        if turn <= 0 or (self.times is not None and self.fired >= self.times) or turn % self.every:
            return None
        chance = random.Random(f"{self.seed}:{turn}")
        if chance.random() >= self.rate:
            return None
        self.fired += 1
        self.affected += 1
        return chance.choice(self.faults)

    def concerns(self, method: str) -> bool:
        """Whether the rule is about this method."""
        return self.method is None or method == self.method

    def shown(self) -> dict[str, Any]:
        """Return the rule as ``GET /sandbox/faults`` shows it."""
        return {"id": self.number, "fired": self.fired, "affected": self.affected, "rule": self.source}


class Rules:
    """All rules in force. They, and a ban, end with the process: a store does not keep them."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self._number = 0
        self._ban_until = -math.inf
        self._ban: tuple[Rule, Fault] | None = None

    def add(self, source: object) -> Rule:
        """Add a rule.

        :param source: the JSON of a rule.
        :raises RuleError: says what is wrong with it.
        """
        rule = _read(source, self._number + 1)
        self._number += 1
        self.rules.append(rule)
        return rule

    def clear(self, *, keep_clock: bool = False) -> None:
        """Forget the rules and end a ban.

        :param keep_clock: the ``clock`` switch stays: it is a property of the machine, not of a test's faults.
        """
        self.rules = [rule for rule in self.rules if keep_clock and rule.faults[0].kind.name == "clock"]
        self._ban = None

    def switch(self, kind: str) -> dict[str, Any] | None:
        """Return the arguments of the newest rule of a kind that is a switch, or None; counts the request."""
        for rule in reversed(self.rules):
            if rule.faults[0].kind.name == kind and rule.faults[0].kind.switch:
                rule.affected += 1
                return rule.faults[0].arguments
        return None

    def pick(self, entry: Entry, now: float) -> Fault | None:
        """Return what happens to a request, or None.

        :param entry: what is known of the request.
        :param now: epoch seconds.
        """
        if self._ban and now < self._ban_until and self._ban[0].concerns(entry.method):
            self._ban[0].affected += 1
            left = {"seconds": self._ban_until - now}
            return Fault(self._ban[1].kind, {**self._ban[1].arguments, **left})
        for rule in self.rules:
            fault = rule.pick(entry)
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
        if unknown := sorted(set(when) - set(WHEN)):
            raise RuleError(f"schedule: unknown keys {', '.join(unknown)}")
    else:
        when = {name: source[name] for name in WHEN if name in source}
        faults = [_fault({name: value for name, value in source.items() if name not in WHEN})]
        if faults[0].kind.switch and when:
            raise RuleError(
                f"{faults[0].kind.name} is on until it is cleared; it takes none of {', '.join(when)}"
            )
    method = when.get("method")
    if method is None and all(fault.kind.submits_only for fault in faults):
        method = SUBMIT
    for_ever = "every" in when or "rate" in when
    return Rule(
        number=number,
        source=source,
        faults=faults,
        times=_whole(when, "times", None if for_ever else 1, least=1, nullable=True),
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
    kind = KINDS.get(source["kind"])
    if kind is None:
        raise RuleError(f"unknown kind {source['kind']!r}; there are {', '.join(KINDS)}")
    return Fault(kind, kind.check(arguments))


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
    if not isinstance(value, str) or method_named(value) not in BUSINESS_PARAMETERS:
        raise RuleError(f"method must be submit, lookup or one of {', '.join(BUSINESS_PARAMETERS)}")
    return method_named(value)


def _match(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not set(value) <= set(_MATCHABLE):
        raise RuleError(f"match must be an object with keys of {', '.join(_MATCHABLE)}")
    return {name: str(wanted) for name, wanted in value.items()}


def _has(entry: Entry, name: str, value: str) -> bool:
    if name == "biz_id":
        return value in entry.biz_ids
    return str(getattr(entry, name)) == value
