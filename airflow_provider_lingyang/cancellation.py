"""Cancellation of a running task: whether it was requested, and waits that end with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

GRACE_PERIOD = 4.0
"""Seconds from SIGTERM on. Airflow sends SIGKILL 5 seconds after it."""
SIGNAL_POLL_INTERVAL = 0.2
"""Seconds between two looks at what a signal handler has noted."""


class Cancellation:
    """Whether a task shall stop, and waits that end then.

    :param requested_at: returns when that was requested, in monotonic seconds, or None: reads what a signal handler
        notes.
    """

    def __init__(
        self,
        requested_at: Callable[[], float | None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requested_at = requested_at
        self._monotonic = monotonic
        self._sleep = sleep

    def requested(self) -> bool:
        """Whether the task shall stop."""
        return self._requested_at() is not None

    def grace_expired(self) -> bool:
        """Whether the task shall stop, and no answer can be waited for any more."""
        requested_at = self._requested_at()
        return requested_at is not None and self._monotonic() - requested_at >= GRACE_PERIOD

    def sleep(self, seconds: float) -> bool:
        """Wait until the seconds have passed; return False where the task shall stop."""
        self._wait(seconds, self.requested)
        return not self.requested()

    def sleep_until(self, moment: float, why: str) -> bool:
        """Wait until a moment, in monotonic seconds; return False where the task shall stop.

        :param why: what is waited for, for the log.
        """
        if (seconds := moment - self._monotonic()) > 0:
            log.info("%s; waiting %.0f s", why, seconds)
            self.sleep(seconds)
        return not self.requested()

    def linger(self, seconds: float) -> None:
        """Wait until the seconds or the grace period have passed."""
        self._wait(seconds, self.grace_expired)

    def _wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        until = self._monotonic() + seconds
        # In slices: a signal handler sets a flag, and must not touch a lock that this thread may hold.
        while not is_over() and (left := until - self._monotonic()) > 0:
            self._sleep(min(left, SIGNAL_POLL_INTERVAL))
