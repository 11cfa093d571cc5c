"""Rate limit and throttle bans: how long the next request has to wait. Sans-I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """Limits requests per second, and pauses all of them after a throttle. Never sleeps. Thread-safe.

    One thread may use :meth:`delay`, then :meth:`record_dispatch`. Several callers use :meth:`acquire`, which does both
    at once: wait as long as it says and ask again, until it returns 0.

    :param max_requests_per_second: rate limit. Default None: no limit.
    :param monotonic: seconds that only grow.
    """

    def __init__(
        self,
        max_requests_per_second: float | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = 1 / max_requests_per_second if max_requests_per_second else 0.0
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._next = self._paused_until = monotonic()

    @property
    def is_paused(self) -> bool:
        """Whether a pause lasts: then a request that :meth:`delay` has let pass should not be sent any more."""
        return self._monotonic() < self._paused_until

    def delay(self) -> float:
        """Return the seconds until the next request may be sent; 0 or less: now."""
        return max(self._next, self._paused_until) - self._monotonic()

    def record_dispatch(self) -> None:
        """Count a request that is sent now."""
        with self._lock:
            self._count_one()

    def acquire(self) -> float:
        """Count a request where one may be sent now.

        :return: 0: it is counted, send it; else the seconds to wait before asking again.
        """
        with self._lock:
            if (wait := self.delay()) > 0:
                return wait
            self._count_one()
            return 0.0

    def pause(self, seconds: float) -> None:
        """Let no request pass for so long; a longer pause that lasts already stays."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._monotonic() + seconds)

    def _count_one(self) -> None:
        self._next = max(self._next, self._monotonic()) + self.interval
