"""What people answered, as rows of a table: which columns it has, what a row holds, how many there are of each kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_provider_lingyang.config import arguments
from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import FOREIGN, NOT_REACHED, UNKNOWN, Rules, state_of
from airflow_provider_lingyang.results.recipient_store import Person, as_text, storable
from airflow_provider_lingyang.storage.private_sqlite import open_private, written

OWN_COLUMNS = ("biz_id", "task_id", "plan_id", "campaign_key", "status", "output_params", "fetched_at")
"""Columns that every table of answers has."""
FILLED, EMPTY = "filled", "empty"
WRITTEN = (FILLED, EMPTY, NOT_REACHED)
"""Kinds of people who have a row."""
_COLUMN_BYTES = 63
"""PostgreSQL cuts longer names; MySQL takes 64 characters."""
_NOT_IN_A_COLUMN = re.compile(r"[?%\x00-\x1f\x7f]")
_TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*){0,2}")
_WHAT = "the private count of who was written"


def slot_columns(slots: Sequence[str] | Mapping[str, str], *, argument: str = "slots") -> dict[str, str]:
    """Return slot → column, from a mapping or from a list of slots whose columns are named like them.

    :param argument: where they were given, for errors.
    :raises ArgumentError: a column cannot be named so, is one of the table's own, or is there twice.
    """
    if isinstance(slots, Mapping):
        arguments.check_names(argument, list(slots))
        arguments.check_columns(argument, slots)
        columns = dict(slots)
    else:
        arguments.check_names(argument, slots)
        columns = {slot: slot for slot in slots}
    before: dict[str, str] = {}
    for slot, column in columns.items():
        _check_column(argument, slot, column)
        # Databases differ in whether case tells columns apart; names that differ by it are trouble in all of them.
        other = before.setdefault(column.lower(), slot)
        if other != slot:
            raise ArgumentError(
                f"{argument}: {other!r} and {slot!r} would both be column {column!r}: {_another(slot)}"
            )
    return columns


def _check_column(argument: str, slot: str, column: str) -> None:
    if column.lower() in OWN_COLUMNS:
        raise ArgumentError(
            f"{argument}: {slot!r} would be column {column!r}, which the table has for itself: {_another(slot)}"
        )
    if column != column.strip() or _NOT_IN_A_COLUMN.search(column):
        raise ArgumentError(
            f"{argument}: {column!r} cannot name a column (a question mark, a percent sign, a control character, or a "
            f"blank at its ends): {_another(slot)}"
        )
    if len(column.encode(errors="replace")) > _COLUMN_BYTES:
        raise ArgumentError(
            f"{argument}: {column!r} is longer than the {_COLUMN_BYTES} bytes that a column's name may have: "
            f"{_another(slot)}"
        )


def _another(slot: str) -> str:
    return f"name another column, slots={{{slot!r}: '…'}}"


def check_table(table: object) -> None:
    """Raise unless the argument is a table's name: plain identifiers, separated by dots where there are several."""
    if not isinstance(table, str) or not _TABLE.fullmatch(table):
        raise ArgumentError(
            f"table must be a plain name such as 'answers' or 'dw.answers'; it is {str(table)[:40]!r}"
        )


class AnswerRow(NamedTuple):
    """What a row holds of one person.

    :param number: of the person.
    :param kind: one of :data:`WRITTEN`.
    :param output_params: the slots as JSON text; None where they cannot be read.
    :param slots: text or None, in the order of the columns.
    :param holds_slots: whether the answer holds any slot: one that holds none says nothing about them.
    :param readable: whether the slots could be read.
    """

    number: int
    kind: str
    biz_id: str
    task_id: str | None
    status: str | None
    output_params: str | None
    slots: Sequence[str | None]
    holds_slots: bool
    readable: bool


def row_of(person: Person, result: TaskResult | None, rules: Rules, slots: Sequence[str]) -> AnswerRow | str:
    """Return somebody's row, or why they have none: ``unknown`` or ``foreign``.

    :param result: what was told; None: nothing.
    :param slots: those that have a column.
    """
    state = state_of(result, rules, person.task_id)
    if result is None or state == FOREIGN:
        return UNKNOWN if result is None else FOREIGN
    told = result.output_params
    texts = [storable(as_text(told.get(slot))) or None for slot in slots]
    if state == NOT_REACHED:
        kind = NOT_REACHED
    elif slots:
        kind = FILLED if all(texts) else EMPTY
    else:
        kind = FILLED if any(map(as_text, told.values())) else EMPTY
    return AnswerRow(
        person.number,
        kind,
        person.biz_id,
        person.task_id if result.task_id is None else storable(result.task_id),
        None if result.status is None else storable(result.status),
        storable(json.dumps(dict(told), ensure_ascii=False)) if result.readable else None,
        texts,
        result.readable and bool(told),
        result.readable,
    )


class Tally:
    """Counts people, each once however often they come: on disk, because there may be a million of them.

    :param folder: where its file lies; empty: the system's folder for temporary files.
    :raises SpoolError: the file cannot be made.
    """

    def __init__(self, folder: str = "") -> None:
        self._db = open_private(folder, _SCHEMA, _WHAT)

    def close(self) -> None:
        """Give the file's space back."""
        self._db.close()

    def note(self, told: Iterable[tuple[Person, AnswerRow | str]], new: set[int]) -> None:
        """Count people.

        :param told: what became of them, as :func:`row_of` says.
        :param new: numbers of those who had no row before.
        :raises SpoolError: the disk is full.
        """
        rows: list[tuple[Any, ...]] = [
            (person.number, row, 0, 0)
            if isinstance(row, str)
            else (row.number, row.kind, not row.readable, row.number in new)
            for person, row in told
        ]
        with written(_WHAT):
            self._db.execute("BEGIN")
            self._db.executemany(_NOTE, rows)
            self._db.execute("COMMIT")

    def counts(self) -> dict[str, int]:
        """Return how many people there are of each kind, who of them has a row, and since when."""
        found = self._db.execute(
            "SELECT kind, count(*), sum(unreadable), sum(is_new) FROM told GROUP BY kind"
        )
        kinds, unreadable, inserted = {}, 0, 0
        for kind, people, some_unreadable, some_new in found:
            kinds[kind] = people
            unreadable += some_unreadable
            inserted += some_new
        rows = sum(kinds.get(kind, 0) for kind in WRITTEN)
        return {
            "rows": rows,
            "inserted": inserted,
            "updated": rows - inserted,
            **{kind: kinds.get(kind, 0) for kind in (*WRITTEN, UNKNOWN, FOREIGN)},
            "unreadable": unreadable,
        }


_SCHEMA = """
CREATE TABLE told (number INTEGER PRIMARY KEY, kind TEXT NOT NULL, unreadable INTEGER NOT NULL, is_new INTEGER NOT NULL)
"""
# Who has a row keeps it, whatever comes after.
_NOTE = f"""
INSERT INTO told VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    kind = excluded.kind, unreadable = excluded.unreadable, is_new = max(is_new, excluded.is_new)
WHERE excluded.kind NOT IN ('{UNKNOWN}', '{FOREIGN}')
"""
