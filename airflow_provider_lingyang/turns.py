"""The state of a rate limit: moments that one process keeps, and turns that processes share through a pace."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

LATE = 0.25
"""Seconds for which a turn may be used after its moment. Later it is lost: turns are not saved up."""
LAST_LATE = 5.0
"""The same for the last one, from its grant on at least: else a slow machine or database would never be in time."""
FRESH = 1.0
"""Seconds after which a ban that another process has met is looked for again, before the next request is sent."""


class Ask(NamedTuple):
    """What is asked of a shared pace.

    :param turns: how many to reserve; 0: only read until when a ban lasts.
    :param interval: seconds between two turns.
    :param ban: seconds of a ban to note; 0: none.
    :param submits_ban: the same, of a ban of the API that submits.
    """

    turns: int
    interval: float
    ban: float = 0.0
    submits_ban: float = 0.0


class Grant(NamedTuple):
    """What a shared pace has granted, in this process's monotonic seconds.

    :param starts_at: the moment of the first turn; the others follow at the interval that was asked for.
    :param banned_until: when the latest ban ends.
    :param submits_banned_until: the same, of a ban of the API that submits.
    """

    starts_at: float
    banned_until: float
    submits_banned_until: float = 0.0


class Pace(Protocol):
    """A rate limit that processes share."""

    patience: float
    """Seconds for which a pace that is away is waited for."""

    def exchange(self, ask: Ask) -> Grant:
        """Note a ban, reserve turns and read until when a ban lasts. Blocks.

        :raises LedgerError: it is away; nothing is reserved.
        """


class Track:
    """When the requests of this process to one host with one App key may be sent. Guarded by its lock."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self.lock = threading.Lock()
        self.next = self.paused_until = self.submits_paused_until = monotonic()
        self.waiting = 0
        """Callers that wait for their turn."""


class Turns:
    """The turns that this process has reserved of one shared pace. Guarded by the track's lock."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.exchanging = threading.Lock()
        """Held during an exchange: one caller reserves for all."""
        self.moments: deque[float] = deque()
        self.size = 0
        """How many to reserve next: twice as many each time while all are used, up to a second's worth."""
        self.is_wasteful = False
        """Whether a turn was lost since the last grant."""
        self.granted_at = self.end = 0.0
        """When the last turns were granted, and the moment after them."""
        self.read_at = -FRESH
        self.unshared_ban = self.unshared_submits_ban = 0.0
        """Until when a ban lasts that is not noted yet."""

    def to_reserve(self, lacking: int, most: int, now: float) -> int:
        """Return how many turns to reserve: no more than are lacking, where some were lost, or none was for a while."""
        steady = not self.is_wasteful and now <= self.end + LATE
        return min(most, max(lacking, self.size if steady else 0))

    def expire(self, now: float) -> None:
        """Forget turns that were not used in time."""
        while self.moments:
            is_last = len(self.moments) == 1
            usable = max(self.moments[0], self.granted_at) + LAST_LATE if is_last else self.moments[0] + LATE
            if now <= usable:
                return
            self.moments.popleft()
            self.is_wasteful = True
