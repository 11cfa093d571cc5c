"""Results as rows of a table: its columns, and what a row holds. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from airflow_provider_lingyang.config.arguments import ArgumentError, named_columns
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import (
    FOREIGN,
    NOT_REACHED,
    UNKNOWN,
    CompletionCriteria,
    state_of,
)
from airflow_provider_lingyang.results.recipient_store import RecipientRow
from airflow_provider_lingyang.results.slot_values import TABLE_BYTES, as_text, cut, cut_slots

OWN_COLUMNS = ("biz_id", "task_id", "plan_id", "campaign_key", "status", "output_params", "fetched_at")
"""Columns that every table of results has."""
FILLED, EMPTY = "filled", "empty"
WRITTEN = (FILLED, EMPTY, NOT_REACHED)
"""Kinds of recipients that have a row."""
_COLUMN_BYTES = 63
"""PostgreSQL cuts longer names; MySQL takes 64 characters."""
_NOT_IN_A_COLUMN = re.compile(r"[?%\x00-\x1f\x7f]")
_TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*){0,2}")


def slot_columns(slots: Sequence[str] | Mapping[str, str], *, argument: str = "slots") -> dict[str, str]:
    """Return slot → column.

    :param slots: a mapping, or a list of slots whose columns have the same names.
    :param argument: the argument that holds them, for errors.
    :raises ArgumentError: a column's name is impossible, one of the table's own, or there twice.
    """
    columns = named_columns(argument, slots)
    before: dict[str, str] = {}
    for slot, column in columns.items():
        _check_column(argument, slot, column)
        # Databases differ in whether names that differ by case only are one column.
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


class ResultRow(NamedTuple):
    """What a row holds of one recipient.

    :param kind: one of :data:`WRITTEN`.
    :param output_params: the slots as JSON text; None where they cannot be read.
    :param slots: text or None, in the order of the columns.
    :param holds_slots: whether the result holds any slot; without, the slots of an existing row stay as they are.
    :param is_cut: whether a value was longer than :data:`~airflow_provider_lingyang.results.slot_values.TABLE_BYTES`.
    """

    kind: str
    biz_id: str
    platform_task_id: str | None
    status: str | None
    output_params: str | None
    slots: Sequence[str | None]
    holds_slots: bool
    is_cut: bool = False


def result_row(
    recipient: RecipientRow,
    result: TaskResult | None,
    criteria: CompletionCriteria,
    slots: Sequence[str],
) -> ResultRow | str:
    """Return the row of a recipient, or why there is none: ``unknown`` or ``foreign``.

    :param result: None: there is no result.
    :param slots: those that have a column.
    """
    _, biz_id, platform_task_id = recipient
    state = state_of(result, criteria, platform_task_id)
    if result is None or state == FOREIGN:
        return UNKNOWN if result is None else FOREIGN
    values = result.output_params
    texts = [cut(as_text(values.get(slot)), TABLE_BYTES) or None for slot in slots]
    kept, is_cut = cut_slots(values, TABLE_BYTES)
    if state == NOT_REACHED:
        kind = NOT_REACHED
    elif slots:
        kind = FILLED if all(texts) else EMPTY
    else:
        kind = FILLED if any(map(as_text, values.values())) else EMPTY
    return ResultRow(
        kind,
        biz_id,
        platform_task_id if result.task_id is None else cut(result.task_id, TABLE_BYTES),
        None if result.status is None else cut(result.status, TABLE_BYTES),
        json.dumps(kept, ensure_ascii=False) if result.readable else None,
        texts,
        bool(values),
        is_cut,
    )
