"""What a set of answers means: who is finished, who is waited for, what people answered. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lingyang.gateway.result_query import ResultQuery, TaskResult

ANSWERED, NOT_REACHED, WAITING, UNKNOWN = "answered", "not_reached", "waiting", "unknown"
_MAX_VALUES = 50
"""Different values of one slot that are told apart; free text has as many as people."""


def state_of(result: TaskResult | None, query: ResultQuery, required_slots: Collection[str]) -> str:
    """Return how far one recipient is.

    With a status, it decides: in ``done_values`` or ``failed_values``, or still waiting. Without one,
    every required slot must be filled; without required slots too, nothing can say "finished".
    """
    if result is None:
        return UNKNOWN
    if result.status is not None:
        if result.status in query.failed_values:
            return NOT_REACHED
        return ANSWERED if result.status in query.done_values else WAITING
    filled = required_slots and all(is_filled(result.output_params.get(slot)) for slot in required_slots)
    return ANSWERED if filled else WAITING


def is_filled(value: Any) -> bool:
    """Whether a slot holds an answer: present, not null, not blank."""
    return bool(value.strip()) if isinstance(value, str) else value is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the answers so far mean.

    :param counts: recipients, finished (answered + not_reached), waiting, unknown.
    :param slots: slot → value → how many people answered so.
    :param complete: whether enough recipients are finished.
    """

    counts: dict[str, int]
    slots: dict[str, dict[str, int]]
    complete: bool

    def __str__(self) -> str:
        count = self.counts
        return (
            f"{count['finished']} of {count['recipients']} finished: {count[ANSWERED]} answered, "
            f"{count[NOT_REACHED]} not reached; {count[WAITING]} waiting, {count[UNKNOWN]} unknown to the gateway"
        )


@dataclass(slots=True)
class Answers:
    """The answers of a campaign's recipients, as they come in.

    :param biz_ids: whose answers are waited for; each once.
    :param query: how statuses are read.
    :param required_slots: what must be filled where there is no status.
    """

    biz_ids: Sequence[str]
    query: ResultQuery
    required_slots: Sequence[str]
    _finished: dict[str, tuple[str, TaskResult]] = field(default_factory=dict)
    _states: Counter[str] = field(default_factory=Counter)

    def pending(self) -> list[str]:
        """Return whose answers are still waited for."""
        return [biz_id for biz_id in self.biz_ids if biz_id not in self._finished]

    def update(self, results: Mapping[str, TaskResult]) -> None:
        """Take the answers to a look-up of all that were pending."""
        self._states.clear()
        for biz_id in self.pending():
            result = results.get(biz_id)
            state = state_of(result, self.query, self.required_slots)
            if result is not None and state in (ANSWERED, NOT_REACHED):
                self._finished[biz_id] = (state, result)
            else:
                self._states[state] += 1

    def verdict(self, complete_ratio: float) -> Verdict:
        """Return what the answers mean.

        :param complete_ratio: share of recipients that must be finished, in (0, 1].
        """
        finished = Counter(state for state, _ in self._finished.values())
        total = len(self.biz_ids)
        return Verdict(
            {
                "recipients": total,
                "finished": len(self._finished),
                ANSWERED: finished[ANSWERED],
                NOT_REACHED: finished[NOT_REACHED],
                WAITING: self._states[WAITING],
                UNKNOWN: self._states[UNKNOWN],
            },
            {
                slot: _tally(result.output_params.get(slot) for result in self._answered())
                for slot in self._slots()
            },
            # The tolerance is for 0.07 * 100 being a little more than 7.
            len(self._finished) >= math.ceil(complete_ratio * total - 1e-9),
        )

    def results(self) -> dict[str, dict[str, Any]]:
        """Return each finished recipient's state and slots."""
        return {
            biz_id: {
                "state": state,
                "status": result.status,
                "task_id": result.task_id,
                "slots": dict(result.output_params),
            }
            for biz_id, (state, result) in self._finished.items()
        }

    def _answered(self) -> Iterable[TaskResult]:
        return (result for state, result in self._finished.values() if state == ANSWERED)

    def _slots(self) -> list[str]:
        if self.required_slots:
            return list(self.required_slots)
        return list(dict.fromkeys(slot for result in self._answered() for slot in result.output_params))[
            :_MAX_VALUES
        ]


def _tally(values: Iterable[Any]) -> dict[str, int]:
    """Count values; beyond 50 different ones the rarest are summed up as "…"."""
    texts = (_as_text(value) for value in values)
    counted = Counter(texts).most_common()
    tally = dict(counted[:_MAX_VALUES])
    if rest := sum(count for _, count in counted[_MAX_VALUES:]):
        tally["…"] = rest
    return tally


def _as_text(value: Any) -> str:
    if not is_filled(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
