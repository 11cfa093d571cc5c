"""Retry policy of one call, for both clients. Pure.

A write is repeated only when it provably was not executed; a look-up also when that is unknown.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from airflow_provider_lingyang.gateway.errors import LingyangError, Replay, ThrottledError

LONGEST_WAIT = 60.0
"""Seconds. A longer throttle is the caller's to wait out: sleeping through it occupies a worker slot."""
_BASE, _CAP = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How many attempts one call has, and how long apart.

    :param max_attempts: at most, the first included.
    :param rng: source of jitter.
    """

    max_attempts: int
    rng: random.Random

    def delay(self, error: LingyangError, attempt: int, *, idempotent: bool) -> float | None:
        """Return the seconds to wait before the next attempt, or None when there must be none.

        :param attempt: how many attempts were made, from 1.
        :param idempotent: whether executing it twice does no harm (a look-up).
        """
        may = error.replay is Replay.SAFE or (idempotent and error.replay is Replay.AMBIGUOUS)
        if not may or attempt >= self.max_attempts:
            return None
        if isinstance(error, ThrottledError):
            # One second more than announced: the gateway counts a ban in whole seconds.
            wait = 1.0 + (error.retry_after or 1.0)
            return wait if wait <= LONGEST_WAIT + 1 else None
        backoff: float = min(_CAP, _BASE * 2 ** (attempt - 1))
        return self.rng.uniform(0.5, 1.0) * backoff
