"""What an answer means, and what many mean together: who is finished, who is waited for, when that is enough. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lingyang.lookup.query import TaskResult

ANSWERED, NOT_REACHED = FINISHED = ("answered", "not_reached")
WAITING, UNKNOWN, FOREIGN = "waiting", "unknown", "foreign"
STATES = (*FINISHED, WAITING, UNKNOWN, FOREIGN)
"""Of a recipient; ``foreign``: there is an answer, but another task's, so another campaign's."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When a recipient is finished.

    :param required_slots: what must be filled where there is no status.
    :param done_values: statuses that mean: answered.
    :param failed_values: statuses that mean: it will not be answered.
    """

    required_slots: Sequence[str]
    done_values: Sequence[str] = ()
    failed_values: Sequence[str] = ()

    @property
    def can_tell(self) -> bool:
        """Whether anybody can ever be finished."""
        return bool(self.required_slots or self.done_values or self.failed_values)


def state_of(result: TaskResult | None, rules: Rules, task_id: str | None = None) -> str:
    """Return how far one recipient is.

    With a status, it decides: in ``done_values`` or ``failed_values``, or still waiting. Without one,
    every required slot must be filled; without required slots too, nothing can say "finished".

    :param result: what was told; None: nothing.
    :param task_id: the task that was accepted, where it is known: an answer with another one is not this campaign's.
    """
    if result is None:
        return UNKNOWN
    if task_id is not None and result.task_id is not None and result.task_id != task_id:
        return FOREIGN
    if result.status is not None:
        if result.status in rules.failed_values:
            return NOT_REACHED
        return ANSWERED if result.status in rules.done_values else WAITING
    return ANSWERED if rules.required_slots and not empty_slots(result, rules) else WAITING


def empty_slots(result: TaskResult, rules: Rules) -> list[str]:
    """Return the required slots that hold no answer."""
    return [slot for slot in rules.required_slots if not is_filled(result.output_params.get(slot))]


def is_filled(value: Any) -> bool:
    """Whether a slot holds an answer: present, not null, not blank."""
    return bool(value.strip()) if isinstance(value, str) else value is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the answers so far mean.

    :param counts: recipients, finished (answered + not_reached), waiting, unknown, foreign.
    :param empty: required slot → how many of those with an answer have not filled it yet.
    :param unreadable: how many answers hold slots that are no JSON.
    :param first: some of those who are waited for.
    :param needed: how many must be finished.
    """

    counts: Mapping[str, int]
    needed: int
    empty: Mapping[str, int] = field(default_factory=dict)
    unreadable: int = 0
    first: Sequence[str] = ()

    @classmethod
    def of(cls, states: Mapping[str, int], complete_ratio: float, **details: Any) -> Verdict:
        """Return what some states mean.

        :param states: state → how many recipients are in it.
        :param complete_ratio: share of the recipients that must be finished, in (0, 1].
        """
        total = sum(states.values())
        counts = {"recipients": total, "finished": sum(states.get(state, 0) for state in FINISHED)}
        counts |= {state: states.get(state, 0) for state in STATES}
        # The tolerance is for 0.07 * 100 being a little more than 7.
        return cls(counts, math.ceil(complete_ratio * total - 1e-9), **details)

    @property
    def complete(self) -> bool:
        """Whether enough recipients are finished."""
        return self.counts["finished"] >= self.needed

    @property
    def out_of_reach(self) -> bool:
        """Whether waiting longer cannot be enough: unless people become known of whom nothing is."""
        return self.counts["finished"] + self.counts[WAITING] < self.needed

    def __str__(self) -> str:
        count = self.counts
        text = (
            f"{count['finished']} of {count['recipients']} finished: {count[ANSWERED]} answered, "
            f"{count[NOT_REACHED]} not reached; {count[WAITING]} waiting, {count[UNKNOWN]} unknown to the gateway"
        )
        if count[FOREIGN]:
            text += f", {count[FOREIGN]} with an answer of another task only"
        if self.empty:
            text += f"; not filled yet: {_listed(f'{slot} {people}' for slot, people in self.empty.items())}"
        if self.unreadable:
            text += f"; {self.unreadable} with slots that are no JSON"
        return text

    def who(self) -> str:
        """Return some of those who are waited for, in words."""
        left = self.counts["recipients"] - self.counts["finished"]
        return _listed(map(_shown_id, self.first)) + (
            f" and {left - len(self.first)} more" if left > len(self.first) else ""
        )


def _shown_id(biz_id: str) -> str:
    return biz_id if biz_id.isprintable() and len(biz_id) <= 64 else repr(biz_id[:64])


def _listed(words: Iterable[str]) -> str:
    some = list(words)
    return ", ".join(some[:20]) + (", …" if len(some) > 20 else "")
