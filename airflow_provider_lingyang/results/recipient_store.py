"""The recipients of a wait, their states, and their results so far: a private file, for up to a million recipients."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import (
    ANSWERED,
    FINISHED,
    FOREIGN,
    NAME_BYTES,
    STATES,
    UNKNOWN,
    WAITING,
    XCOM_BYTES,
    CompletionCriteria,
    WaitProgress,
    as_text,
    cut,
    cut_slots,
    empty_slots,
    state_of,
    storable,
    unreadable_slots,
)
from airflow_provider_lingyang.storage.private_sqlite import insert, open_private, written

log = logging.getLogger(__name__)

PAGE = 1000
_MAX_VALUES = 50
"""Distinct values counted per slot, and slots counted; free text has as many values as recipients."""
_EXAMPLES = 10
_WHAT = "the private list of recipients to wait for"
_CODES = {state: code for code, state in enumerate(STATES)}
_FIRST_UNFINISHED = len(FINISHED)
"""The codes of the finished states come first."""

RecipientRow = tuple[int, str, str | None]
"""A recipient: its number, from 1 in the order of the source; its ``biz_id``; the id of the accepted task, where known.
A plain tuple, because the garbage collector untracks those: named tuples by the million make every collection slow."""


@dataclass(slots=True)
class PendingWrites:
    """What some results add to the store, until it is written.

    :param looked_up: number of recipients looked up.
    :param values: slot and value → number of recipients.
    :param recipients: for ``on_results``.
    :param results: for ``on_results``.
    """

    looked_up: int = 0
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    recipients: list[RecipientRow] = field(default_factory=list)
    results: dict[str, TaskResult] = field(default_factory=dict)


OnResults = Callable[[Sequence[RecipientRow], Mapping[str, TaskResult]], None]
"""Called with recipients that were looked up, and their results by ``biz_id``."""


class RecipientStore:
    """Holds the recipients of a wait until each is finished. For one thread at a time.

    Their states are one byte each, in memory: as a column of the table they would cost 1.5 µs of CPU per recipient and
    poll, beyond the bound of ``benchmarks/lookups.py``.

    :param criteria: when a recipient is finished.
    :param folder: for its file; empty: the system's folder for temporary files.
    :param count_values: whether to count slot values and keep single results.
    :param max_results_kept: keep single results of at most so many recipients; of more, none.
    :param state_if_unknown: the state of recipients without a result.
    :param on_results: called with all results that are written.
    :raises SpoolError: the file cannot be created.
    """

    def __init__(
        self,
        criteria: CompletionCriteria,
        folder: str = "",
        *,
        count_values: bool = True,
        max_results_kept: int = 0,
        state_if_unknown: str = UNKNOWN,
        on_results: OnResults | None = None,
    ) -> None:
        self.criteria = criteria
        self.folder = folder
        self._count_values = count_values
        self._max_results_kept = max_results_kept
        self._takes_results = count_values or on_results is not None
        self._code_if_unknown = _CODES[state_if_unknown]
        self._on_results = on_results
        # A small cache: a triggerer may hold many stores.
        self._db = open_private(folder, _SCHEMA, _WHAT, cache_kb=1024)
        self._release = weakref.finalize(self, self._db.close)
        self._states = bytearray()
        self._empty: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._unreadable = 0
        self._slots: dict[str, None] = dict.fromkeys(criteria.required_slots)
        self._results: dict[int, tuple[str, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self._states)

    def close(self) -> None:
        """Release the file. Where a sensor is poked and not executed, it is released with the store instead."""
        self._release()

    def add(self, recipients: Iterable[tuple[str, str | None]]) -> int:
        """Add recipients; of duplicates the first stays.

        :param recipients: ``biz_id`` and, where known, the id of the accepted task.
        :return: the number of duplicates.
        :raises SpoolError: the disk is full.
        """
        recipients = iter(recipients)
        return self._insert("biz_id, platform_task_id", iter(lambda: list(islice(recipients, PAGE)), []))

    def add_ids(self, pages: Iterable[Sequence[str]]) -> int:
        """Add recipients whose accepted task is not known; see :meth:`add`.

        :param pages: their ``biz_id``, a page at a time.
        """
        return self._insert("biz_id", ([(biz_id,) for biz_id in page] for page in pages))

    def _insert(self, columns: str, pages: Iterable[Sequence[Sequence[object]]]) -> int:
        duplicates = 0
        for page in pages:
            before = self._db.total_changes
            with written(_WHAT):
                insert(self._db, f"INSERT OR IGNORE INTO recipient ({columns})", page)
            added = self._db.total_changes - before
            self._states.extend(bytes((self._code_if_unknown,)) * added)
            duplicates += len(page) - added
        return duplicates

    def digest(self) -> int:
        """Return a number that identifies a set of recipients, whatever their order."""
        digest = 0
        for biz_id in self.biz_ids():
            digest ^= int.from_bytes(recipient_hash(biz_id))
        return digest

    def clear(self) -> None:
        """Delete all recipients; call it before the first poll only."""
        self._db.execute("DELETE FROM recipient")
        self._states.clear()

    def biz_ids(self) -> Iterator[str]:
        """Return the ``biz_id`` of all recipients, in the order of the source."""
        return (biz_id for (biz_id,) in self._db.execute("SELECT biz_id FROM recipient ORDER BY number"))

    def start_poll(self) -> None:
        """Reset what is counted anew in each poll: empty slots, undefined statuses, unreadable results."""
        self._empty.clear()
        self._statuses.clear()
        self._unreadable = 0

    def unfinished(self, after: int = 0, size: int = PAGE) -> list[RecipientRow]:
        """Return a page of unfinished recipients, in the order of their numbers.

        :param after: only recipients with a higher number.
        :param size: number of recipients, at most.
        """
        rows = self._db.execute(f"{_SELECT} WHERE number > ? ORDER BY number", (after,))
        found: list[RecipientRow] = []
        while len(found) < size and (page := rows.fetchmany(size)):
            found += self._still_unfinished(page)
        return found[:size]

    def _still_unfinished(self, rows: list[RecipientRow]) -> list[RecipientRow]:
        states = self._states
        return [row for row in rows if states[row[0] - 1] >= _FIRST_UNFINISHED]

    def find_unfinished(self, biz_ids: Sequence[str]) -> list[RecipientRow]:
        """Return the unfinished recipients among some ids, in the order of their numbers; :data:`PAGE` ids at most."""
        marks = ",".join("?" * len(biz_ids))
        rows = self._db.execute(f"{_SELECT} WHERE biz_id IN ({marks}) ORDER BY number", tuple(biz_ids))
        return self._still_unfinished(rows.fetchall())

    def update_states(
        self, recipients: Sequence[RecipientRow], results: Mapping[str, TaskResult], pending: PendingWrites
    ) -> None:
        """Update states from results. In memory only: :meth:`write` writes the rest.

        :param recipients: unfinished ones.
        :param results: by ``biz_id``; recipients without a result become ``state_if_unknown``.
        :param pending: receives what is to be written.
        """
        pending.looked_up += len(recipients)
        if self._on_results is not None:
            pending.recipients += recipients
            pending.results |= results
        states, criteria = self._states, self.criteria
        for number, biz_id, platform_task_id in recipients:
            result = results.get(biz_id)
            if result is None:
                states[number - 1] = self._code_if_unknown
                continue
            state = state_of(result, criteria, platform_task_id)
            states[number - 1] = _CODES[state]
            if state in FINISHED:
                if not self._takes_results:
                    continue
                if len(self) <= self._max_results_kept:
                    self._results[number] = biz_id, _shown(result, state)
                if self._count_values and state == ANSWERED:
                    pending.values.update(self._values(result))
            else:
                if state == WAITING and result.status is not None:
                    self._count_status(result.status)
                self._empty.update(empty_slots(result, criteria))
            if not result.readable:
                # Of the first in each poll, the log has the shape.
                if not self._unreadable:
                    log.warning("%s", unreadable_slots(result))
                self._unreadable += 1

    def _count_status(self, status: str) -> None:
        """Count a status that is in neither list; from the 51st distinct one on, all together as "…"."""
        known = status in self._statuses or len(self._statuses) < _MAX_VALUES
        self._statuses[status if known else "…"] += 1

    def write(self, pending: PendingWrites) -> None:
        """Write what some results add, and call ``on_results``.

        :raises SpoolError: the disk is full.
        """
        with written(_WHAT):
            self._db.execute("BEGIN")
            self._db.executemany(
                "INSERT INTO value_count VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET recipients = recipients + excluded.recipients",
                [(slot, value, count) for (slot, value), count in pending.values.items()],
            )
            self._db.execute("COMMIT")
        if self._on_results is not None:
            self._on_results(pending.recipients, pending.results)

    def record(self, recipients: Sequence[RecipientRow], results: Mapping[str, TaskResult]) -> None:
        """:meth:`update_states` and :meth:`write` in one."""
        pending = PendingWrites()
        self.update_states(recipients, results, pending)
        self.write(pending)

    def progress(self, complete_ratio: float) -> WaitProgress:
        """Return how far the wait has come.

        :param complete_ratio: share of the recipients that must be finished, in (0, 1].
        """
        examples = self._examples(_EXAMPLES, UNKNOWN, FOREIGN)
        examples += self._examples(_EXAMPLES - len(examples), WAITING)
        return WaitProgress.of(
            {state: self._states.count(code) for state, code in _CODES.items()},
            complete_ratio,
            empty=dict(self._empty),
            unreadable=self._unreadable,
            statuses=dict(self._statuses),
            first=examples,
        )

    def _examples(self, size: int, *states: str) -> list[str]:
        codes = bytes(code for state in states if (code := _CODES[state]) in self._states)
        if not codes:
            return []
        numbers = islice((number for number, code in enumerate(self._states, 1) if code in codes), size)
        return [
            self._db.execute(f"{_SELECT} WHERE number = ?", (number,)).fetchone()[1] for number in numbers
        ]

    def value_counts(self) -> dict[str, dict[str, int]]:
        """Return slot → value → number of recipients; of more than 50 values the rarest together as "…"."""
        counts: dict[str, dict[str, int]] = {storable(slot): {} for slot in self._slots}
        # By frequency, then by first occurrence.
        rows = "SELECT slot, value, recipients FROM value_count ORDER BY recipients DESC, rowid"
        for slot, value, recipients in self._db.execute(rows):
            values = counts[slot]
            shown = value if len(values) < _MAX_VALUES else "…"
            values[shown] = values.get(shown, 0) + recipients
        return counts

    def results(self) -> dict[str, dict[str, Any]] | None:
        """Return ``biz_id`` → state, status, task_id and slots of each finished recipient; None: there are too many."""
        if len(self) > self._max_results_kept:
            return None
        return dict(found for _, found in sorted(self._results.items()))

    def _values(self, result: TaskResult) -> Iterator[tuple[str, str]]:
        values = result.output_params
        if not self.criteria.required_slots:
            for slot in values:
                if len(self._slots) < _MAX_VALUES and len(slot.encode(errors="replace")) <= NAME_BYTES:
                    self._slots.setdefault(slot)
        return ((storable(slot), cut(as_text(values.get(slot)), XCOM_BYTES)) for slot in self._slots)


def _shown(result: TaskResult, state: str) -> dict[str, Any]:
    status, task_id = (text and cut(text, XCOM_BYTES) for text in (result.status, result.task_id))
    slots, _ = cut_slots(result.output_params, XCOM_BYTES)
    return {"state": state, "status": status, "task_id": task_id, "slots": slots}


_SCHEMA = """
CREATE TABLE recipient (number INTEGER PRIMARY KEY, biz_id TEXT NOT NULL UNIQUE, platform_task_id TEXT);
CREATE TABLE value_count (
    slot TEXT NOT NULL, value TEXT NOT NULL, recipients INTEGER NOT NULL, UNIQUE (slot, value)
);
"""
_SELECT = "SELECT number, biz_id, platform_task_id FROM recipient"
