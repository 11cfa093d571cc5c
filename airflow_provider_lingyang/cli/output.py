"""What a command prints, in the formats of Airflow's own commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import Any

Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Result:
    """What a command has found or done.

    :param rows: as plain JSON.
    :param tables: the same to read; each is printed by itself. Default: the rows.
    :param notes: sentences for a person, which are no result.
    :param failed: whether the command ends with an error.
    """

    rows: Rows
    tables: Sequence[Rows] | None = None
    notes: list[str] = field(default_factory=list)
    failed: bool = False


def show(result: Result, output: str) -> None:
    """Print a result to stdout, and its notes to stderr.

    :param output: ``table``, ``json``, ``yaml`` or ``plain``.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal without Chinese.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if output == "json":
            # Not by Airflow's console: it makes every value text, and a long one costs seconds.
            print(json.dumps(result.rows, indent=2))
        elif output == "yaml":
            from airflow.utils import yaml

            print(yaml.dump(result.rows, sort_keys=False), end="")
        else:
            _show_tables([result.rows] if result.tables is None else result.tables, output)
        sys.stdout.flush()
    except BrokenPipeError:
        # Its reader has seen enough, as "head" does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for note in result.notes:
        print(note, file=sys.stderr)


def _show_tables(tables: Sequence[Rows], output: str) -> None:
    from airflow.cli.simple_table import AirflowConsole

    # An id may hold what a console takes for its own signs.
    console = AirflowConsole(markup=False, emoji=False, highlight=False)
    for number, rows in enumerate(tables):
        if number and not rows:
            continue
        if number:
            print()
        console.print_as([{name: _cell(value) for name, value in row.items()} for row in rows], output)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = ", ".join(map(_cell, value)) if isinstance(value, list) else str(value)
    # Blanks at its ends count, control characters are harmless.
    return text if text.isprintable() and text == text.strip() else json.dumps(text, ensure_ascii=False)
