"""Schedules made to measure, in a package from which one safeguard was taken out: the judge must notice.

``python tests/chaos/broken.py SAFEGUARD [--whole]`` prints the report of the schedule, broken or whole, as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import campaigns
import schedules
from schedules import Schedule, Try


def no_write_ahead() -> None:
    """Requests leave before the ledger knows of them; only what is answered is written."""
    from airflow_provider_lingyang.ledger.task_state import TaskStateLedger

    write = TaskStateLedger.write

    def late(self: Any, outcomes: Any, intents: Any) -> None:
        write(self, outcomes, [])

    TaskStateLedger.write = late  # type: ignore[method-assign]


def nobody_is_skipped() -> None:
    """Whom earlier tries had accepted is forgotten."""
    from airflow_provider_lingyang.delivery.send_queue import History, SendQueue

    SendQueue.load_history = lambda self, requests: History()  # type: ignore[method-assign]


def look_ups_count_at_once() -> None:
    """What a look-up does not find counts as not executed, although it may not be visible yet."""
    from airflow_provider_lingyang.delivery.policy import Policy
    from airflow_provider_lingyang.hooks.lingyang import LingyangHook

    LingyangHook.lookup_settle = property(lambda self: 0.0)  # type: ignore[assignment, method-assign]
    Policy.open_for = property(lambda self: 0.0)  # type: ignore[assignment, method-assign]


def no_fence() -> None:
    """A try that was replaced may go on writing."""
    import store

    store.TaskStateStore.fenced = lambda self, current: False  # type: ignore[method-assign]


def no_fence_sql() -> None:
    """The same, in a database."""
    from airflow_provider_lingyang.ledger.sql import SqlLedger
    from airflow_provider_lingyang.ledger.sql_requests import RequestRows

    SqlLedger._has_token = lambda self, run: True  # type: ignore[method-assign]
    RequestRows.update_own = lambda self, code, changes, *values: (  # type: ignore[method-assign]
        self._update(code, changes, values) or True
    )


def _people(count: int) -> list[dict[str, Any]]:
    return [schedules.row(number, "1") for number in range(count)]


def _schedule(tries: list[Try], *, mode: str, ledger: str = "task state", seed: int = 0) -> Schedule:
    arguments = {"batch_size": 2, "max_in_flight": 1, "on_in_doubt": "stop", "on_invalid": "skip"}
    return Schedule(seed, ledger, mode, _people(12), arguments, tries)


SAFEGUARDS: dict[str, tuple[Callable[[], None], Schedule]] = {
    "write-ahead": (
        no_write_ahead,
        _schedule([Try([("reset after", 0)], [])], mode="blind"),
    ),
    "skip": (
        nobody_is_skipped,
        _schedule([Try([("permission", 2)], [])], mode="blind"),
    ),
    "lookup_settle": (
        look_ups_count_at_once,
        _schedule([Try([("late index", 0)], [("outcome not written", 0)])], mode="look up"),
    ),
    "fencing": (
        no_fence,
        _schedule([Try([], [("pause", 1)])], mode="look up"),
    ),
    "fencing sql": (
        no_fence_sql,
        # This seed pauses after the write: before it, the UNIQUE key would still refuse whom the retry has sent to. And
        # it is the last one: at the next, it would, perhaps before the request has left.
        _schedule([Try([], [("pause", 4)])], mode="look up", ledger="sql", seed=1),
    ),
}


def main() -> int:
    safeguard, *whole = sys.argv[1:]
    patch, schedule = SAFEGUARDS[safeguard]
    if safeguard == "lookup_settle":
        # Longer than a slow machine needs from one try to the next.
        schedules.GATEWAY["late index"]["seconds"], campaigns.SETTLE = 4.0, 4.5
    with (
        tempfile.TemporaryDirectory(prefix="lingyang-chaos-") as folder,
        campaigns.world(Path(folder)) as world,
    ):
        report = campaigns.Run(schedule, world, () if whole else (patch,)).run()
    print(json.dumps(vars(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
