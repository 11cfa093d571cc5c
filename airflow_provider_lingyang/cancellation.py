"""A task that is told to stop: what may still be waited for, and how long."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 4.0
"""Seconds. Airflow kills a task's process 5 seconds after it told it to stop."""


class Stop:
    """Whether the task was told to stop, and waits that end then.

    :param told_at: when it was, in monotonic seconds, or None: reads what a signal handler notes.
    """

    def __init__(
        self,
        told_at: Callable[[], float | None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._told_at = told_at
        self._monotonic = monotonic
        self._sleep = sleep

    def told(self) -> bool:
        """Whether the task was told to stop."""
        return self._told_at() is not None

    def out_of_time(self) -> bool:
        """Whether it was, so long ago that no answer can be waited for any more."""
        told_at = self._told_at()
        return told_at is not None and self._monotonic() - told_at >= PATIENCE

    def sleep(self, seconds: float) -> None:
        """Wait, but not on after the task was told to stop."""
        until = self._monotonic() + seconds
        # In slices: a signal handler sets a flag, and must not touch a lock that this thread may hold.
        while not self.told() and (left := until - self._monotonic()) > 0:
            self._sleep(min(left, 0.2))
