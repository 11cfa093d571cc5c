"""When a recipient is finished, and when enough recipients are; slot values that can be stored. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lingyang.gateway.answer_values import names_in
from airflow_provider_lingyang.lookup.result import TaskResult
from airflow_provider_lingyang.lookup.slots import shape_of

ANSWERED, NOT_REACHED = FINISHED = ("answered", "not_reached")
WAITING, UNKNOWN, FOREIGN = "waiting", "unknown", "foreign"
STATES = (*FINISHED, WAITING, UNKNOWN, FOREIGN)
"""States of a recipient. ``foreign``: the only result belongs to another task, so to another campaign."""
TABLE_BYTES = 65_535
"""Limit of one value in a table, in UTF-8: the smallest text column of any supported database."""
XCOM_BYTES = 4_096
"""Limit of one value in XCom, which may hold a thousand recipients with some slots each."""
NAME_BYTES = 255
"""Limit of a slot's name that no argument gives."""


class PollError(Exception):
    """A wait broke off. No AirflowException: ``soft_fail`` treats those differently.

    :param retryable: whether another try of the task may succeed. Default False.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class CompletionCriteria:
    """When a recipient is finished.

    :param required_slots: slots that must be filled; decisive only for results without a status.
    :param done_values: statuses that mean ``answered``.
    :param failed_values: statuses that mean ``not_reached``.
    """

    required_slots: Sequence[str]
    done_values: Collection[str] = ()
    failed_values: Collection[str] = ()


def state_of(
    result: TaskResult | None, criteria: CompletionCriteria, platform_task_id: str | None = None
) -> str:
    """Return the state of one recipient, one of :data:`STATES`.

    A status decides alone: in ``done_values``, in ``failed_values``, or neither (``waiting``). Without a status every
    required slot must be filled; without required slots the recipient stays ``waiting``.

    :param result: None: the gateway or the table has no result.
    :param platform_task_id: of the accepted task, where known. A result of another task is ``foreign``.
    """
    if result is None:
        return UNKNOWN
    if platform_task_id is not None and result.task_id is not None and result.task_id != platform_task_id:
        return FOREIGN
    if result.status is not None:
        if result.status in criteria.failed_values:
            return NOT_REACHED
        return ANSWERED if result.status in criteria.done_values else WAITING
    return ANSWERED if criteria.required_slots and not empty_slots(result, criteria) else WAITING


def empty_slots(result: TaskResult, criteria: CompletionCriteria) -> list[str]:
    """Return the required slots that are not filled."""
    return [slot for slot in criteria.required_slots if not is_filled(result.output_params.get(slot))]


def unreadable_slots(result: TaskResult) -> str:
    """Describe an unreadable ``output_params`` for a message: its type and keys, never its values."""
    shape = shape_of(result.raw_output_params)
    if shape is None:
        holds = "text that is no JSON"
    elif isinstance(shape, Mapping):
        holds = f"an object with {names_in(shape)}"
    elif isinstance(shape, list) and shape and isinstance(shape[0], Mapping):
        holds = f"a list of objects with {names_in(shape[0])}"
    else:
        holds = f"a {type(shape).__name__}"
    return (
        f"the slots of a result cannot be read: {holds} is no object slot → value, no list of slots, and no message "
        "that holds one. Check output_params_field of the result_query, or the column output_params"
    )


def is_filled(value: Any) -> bool:
    """Whether a slot is filled: present, not null, not blank."""
    return bool(value.strip()) if isinstance(value, str) else value is not None


def storable(text: str) -> str:
    """Replace what databases refuse, NUL and lone surrogates, by U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_text(value: Any) -> str:
    """Return a slot's value as text; blank where it is not filled."""
    if not is_filled(value):
        return ""
    return value if isinstance(value, str) else json.dumps(_clean(value), ensure_ascii=False)


def cut(text: str, limit: int) -> str:
    """Return storable text of at most ``limit`` bytes of UTF-8; a longer one is cut, and ends with its length."""
    text = storable(text)
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    mark = f"… [cut, {len(encoded)} bytes]"
    return encoded[: limit - len(mark.encode())].decode(errors="ignore") + mark


def cut_slots(slots: Mapping[str, Any], limit: int) -> tuple[dict[str, Any], bool]:
    """Return slots with storable names and values, and whether a name or a value was cut.

    :param limit: bytes of one value; a longer one that is no text becomes the beginning of its JSON.
    """
    kept: dict[str, Any] = {}
    was_cut = False
    for name, value in slots.items():
        value = _clean(value)
        text = value if isinstance(value, str) else as_text(value)
        shown, shown_name = cut(text, limit), cut(name, NAME_BYTES)
        was_cut |= shown != text or shown_name != storable(name)
        kept[shown_name] = value if shown == text else shown
    return kept, was_cut


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(name)): _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, slots=True)
class WaitProgress:
    """How far a wait has come.

    :param counts: recipients, finished (answered + not_reached), and one count per state.
    :param needed: number of recipients that must be finished.
    :param empty: required slot → number of results in which it is not filled yet.
    :param unreadable: number of results whose slots cannot be read: no JSON, or a message without slots.
    :param statuses: status in neither ``done_values`` nor ``failed_values`` → number of recipients; each stays
        ``waiting`` until it changes.
    :param first: the ``biz_id`` of some unfinished recipients.
    """

    counts: Mapping[str, int]
    needed: int
    empty: Mapping[str, int] = field(default_factory=dict)
    unreadable: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    first: Sequence[str] = ()

    @classmethod
    def of(cls, states: Mapping[str, int], complete_ratio: float, **details: Any) -> WaitProgress:
        """Return the progress for some states.

        :param states: state → number of recipients.
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
        """Whether the wait cannot complete, unless unknown recipients become known."""
        return self.counts["finished"] + self.counts[WAITING] < self.needed

    def __str__(self) -> str:
        counts = self.counts
        text = (
            f"{counts['finished']} of {counts['recipients']} finished: {counts[ANSWERED]} answered, "
            f"{counts[NOT_REACHED]} not reached; {counts[WAITING]} waiting, {counts[UNKNOWN]} unknown to the gateway"
        )
        if counts[FOREIGN]:
            text += f", {counts[FOREIGN]} with a result of another task only"
        if self.empty:
            text += f"; not filled yet: {_listed(f'{slot} {count}' for slot, count in self.empty.items())}"
        if self.statuses:
            text += f"; status in neither done_values nor failed_values: {self.listed_statuses}"
        if self.unreadable:
            text += f"; {self.unreadable} with slots that cannot be read"
        return text

    @property
    def listed_statuses(self) -> str:
        """The statuses in neither list, for a message, the most frequent first."""
        by_count = sorted(self.statuses.items(), key=lambda item: -item[1])
        return _listed(f"{_shown_status(status)} {count}" for status, count in by_count)

    def unfinished_ids(self) -> str:
        """Return some unfinished recipients, for a message."""
        left = self.counts["recipients"] - self.counts["finished"]
        return _listed(map(_shown_id, self.first)) + (
            f" and {left - len(self.first)} more" if left > len(self.first) else ""
        )


def _shown_id(biz_id: str) -> str:
    return biz_id if biz_id.isprintable() and len(biz_id) <= 64 else repr(biz_id[:64])


def _shown_status(status: str) -> str:
    # A status of the platform is a short word; anything else may be data, which a message must not show.
    return repr(status) if len(status) <= 32 and status.isprintable() else "…"


def _listed(words: Iterable[str]) -> str:
    items = list(words)
    return ", ".join(items[:20]) + (", …" if len(items) > 20 else "")
