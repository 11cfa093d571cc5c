"""The result of one recipient, and which of several results of one counts for a wait. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from airflow_provider_lingyang.gateway.dates import placed
from airflow_provider_lingyang.lookup.slots import read_slots


@dataclass(slots=True, eq=False)
class TaskResult:
    """The result of one recipient.

    :param biz_id: the recipient's id.
    :param raw_output_params: the slots as they came, see :func:`~airflow_provider_lingyang.lookup.slots.read_slots`;
        read on first use, because of many recipients only the status matters. Not in the repr: personal data belongs
        into no log.
    :param status: the platform's word for how far it is, if the query names a ``status_field``.
    :param task_id: the platform's task, if the query names a ``task_id_field``.
    :param created_at: the platform's text, if the query names a ``created_at_field``.
    """

    biz_id: str
    raw_output_params: Any = field(default=None, repr=False)
    status: str | None = None
    task_id: str | None = None
    created_at: str | None = field(default=None, repr=False)
    _read: tuple[Mapping[str, Any], bool] | None = field(default=None, init=False, repr=False)

    @property
    def output_params(self) -> Mapping[str, Any]:
        """The slots, as a dict; empty where the answer held none."""
        return self._slots[0]

    @property
    def readable(self) -> bool:
        """Whether the slots could be read: nothing at all can; no JSON, or a message without slots, cannot."""
        return self._slots[1]

    @property
    def _slots(self) -> tuple[Mapping[str, Any], bool]:
        if self._read is None:
            self._read = read_slots(self.raw_output_params)
        return self._read

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskResult) and self._facts == other._facts

    @property
    def _facts(self) -> tuple[Any, ...]:
        return self.biz_id, *self._slots, self.status, self.task_id, self.created_at


def standing(
    result: TaskResult, task_id: str | None, progress: int, zone: tzinfo | None = None
) -> tuple[int, float, int]:
    """Return the rank of a result among those of one recipient: the highest counts for a wait.

    Our own task first, then the newest, then the one that is furthest: in whatever order they came.

    :param task_id: the task that was accepted, where it is known.
    :param progress: higher: further; done is further than failed.
    :param zone: of a ``created_at`` that names none; None: China's.
    """
    own = 1 if task_id is None or result.task_id is None else 2 if result.task_id == task_id else 0
    moment = None if result.created_at is None else placed(result.created_at, zone)
    return own, -math.inf if moment is None else moment, progress


def preferred(
    results: Sequence[TaskResult],
    task_id: str | None,
    progress: Callable[[TaskResult], int],
    zone: tzinfo | None = None,
) -> TaskResult:
    """Return the result that counts for a wait; of equal ones the one with most slots, then the last.

    :param results: of one recipient, one at least.
    :param progress: see :func:`standing`.
    """

    def rank(numbered: tuple[int, TaskResult]) -> tuple[Any, ...]:
        number, result = numbered
        filled = sum(value not in (None, "") for value in result.output_params.values())
        return *standing(result, task_id, progress(result), zone), filled, number

    return max(enumerate(results), key=rank)[1]


def spellings(statuses: Sequence[str]) -> tuple[str, ...]:
    """Return statuses, and every spelling of those that are Booleans.

    A Boolean is "true" to JSON, and "True" to Python and to databases.
    """
    found: list[str] = []
    for status in statuses:
        of_boolean = status.casefold() in ("true", "false")
        found += (status.lower(), status.capitalize(), status.upper()) if of_boolean else (status,)
    return tuple(found)
