"""Output of the demo on any terminal: without colour, without UTF-8, with wide characters."""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from comparison import Comparison

GREEN, RED, FAINT = "32", "31", "2"
_BAR = 30


class Screen:
    """Standard output of the demo."""

    def __init__(self) -> None:
        encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
        self.unicode = encoding.startswith("utf")
        if hasattr(sys.stdout, "reconfigure"):
            # A terminal without a character must not end the run.
            sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
        dumb = os.environ.get("TERM", "dumb") == "dumb" or "NO_COLOR" in os.environ
        self._colour = sys.stdout.isatty() and not dumb
        self.dot, self.line, self.block = ("·", "│", "█") if self.unicode else ("-", "|", "#")

    def colour(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text

    def say(self, text: str = "") -> None:
        try:
            print(text, flush=True)
        except OSError:
            # Standard output is closed (`make demo | head`, a closed terminal). The exit status still counts.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @contextmanager
    def stage(self, number: int, name: str, doing: str) -> Iterator[list[str]]:
        """Print a numbered stage, then the notes in the yielded list and the duration."""
        notes: list[str] = []
        started = time.monotonic()
        self.say(f"{number}/5 {name:<12}{doing}")
        yield notes
        seconds = f"{time.monotonic() - started:6.1f} s"
        self.say(f"{'':16}{pad(f' {self.dot} '.join(notes), 60)}{seconds}")

    def batches(self, comparison: Comparison) -> None:
        """Print one line per batch: the manifest's numbers beside the gateway's."""
        line = self.line
        self.say(f"{'':13}{'manifest':^27}  {line} {'gateway received':^28}")
        manifest = f"{'batch_num':>11}  {'sent':>7}{'accepted':>10}{'rejected':>10}"
        self.say(f"{manifest}  {line} {'requests':>8}{'tasks':>8}{'accepted':>10}")
        for batch in comparison.batches:
            sent = f"{batch.batch_num:>11}  {batch.sent:>7}{batch.accepted:>10}{batch.rejected:>10}"
            recorded = f"{batch.recorded_requests:>8}{batch.recorded_tasks:>8}{batch.recorded_accepted:>10}"
            self.say(f"{sent}  {line} {recorded}")

    def slot_values(self, result: dict[str, Any]) -> None:
        """Print one bar per value of each slot, all to one scale."""
        counts: dict[str, int] = result["counts"]
        self.say(", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count))
        values = [(slot, *pair) for slot, tally in result["slots"].items() for pair in tally.items()]
        if not values:
            return
        longest, largest = max(width(value) for _, value, _ in values), max(count for *_, count in values)
        slots = max(width(slot) for slot, *_ in values)
        shown = None
        for slot, value, count in values:
            name = pad("" if slot == shown else slot, slots)
            bar = self.block * max(1, round(_BAR * count / largest))
            self.say(f"  {name}  {pad(value, longest)}  {bar:<{_BAR}} {count:>5}")
            shown = slot


def width(text: str) -> int:
    """Return the columns of a text: Chinese characters and emoji take two, combining accents none."""
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in "WF" else 1
        for sign in text
    )


def pad(text: str, columns: int) -> str:
    return text + " " * max(0, columns - width(text))


def tail(text: Sequence[str], lines: int = 15) -> list[str]:
    """Return the end of a log, without repeated warnings."""
    return [line.rstrip() for line in text if line.strip() and not line.startswith("WARNING:")][-lines:]
