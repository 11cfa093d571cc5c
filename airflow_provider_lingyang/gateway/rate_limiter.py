"""Rate limit and throttle bans: how long the next request has to wait. Sans-I/O.

All limiters of a process with one host and App key share one *track*: when the next request may be sent, and how long a
pause lasts. Where processes share a database, each limiter also needs *turns*: moments that a :class:`Pace` reserves
for this process, about a second's worth at a time. Reserving is I/O, which the caller does:
:attr:`RateLimiter.is_due` says when, :meth:`RateLimiter.synchronise` does it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_lingyang.turns import FRESH, LATE, Ask, Grant, Pace, Track, Turns

_NOT_YET = 0.05
"""Seconds until a caller asks again that found turns used up by others."""
_ROUNDING = 0.001
"""Seconds: a pace counts in whole microseconds."""
_WAKING = 8
"""How many of many waiting callers ask in the time in which a turn is used."""

_LOCK = threading.Lock()
_TRACKS: dict[tuple[str, str], Track] = {}
_TURNS: dict[tuple[str, str, str], Turns] = {}


def forget_limiters() -> None:
    """Forget what this process knows of rate limits and bans: for tests."""
    with _LOCK:
        _TRACKS.clear()
        _TURNS.clear()


class RateLimiter:
    """Limits requests per second, and pauses all of them after a throttle. Never sleeps. Thread-safe.

    One thread may use :meth:`delay`, then :meth:`record_dispatch`. Several callers use :meth:`acquire`, which does both
    at once: wait as long as it says and ask again, until it returns 0. With a shared pace, both call
    :meth:`synchronise` before that while :attr:`is_due`.

    :param max_requests_per_second: rate limit. Default None: no limit.
    :param monotonic: seconds that only grow.
    :param track: shared with other limiters. Default None: its own.
    :param turns: reserved of a shared pace. Default None: nothing is shared with other processes.
    """

    def __init__(
        self,
        max_requests_per_second: float | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        track: Track | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.interval = 1 / max_requests_per_second if max_requests_per_second else 0.0
        self._most = max(1, round(max_requests_per_second or 1))
        self._track = track or Track(monotonic=monotonic)
        self._turns = turns

    @classmethod
    def of_process(
        cls,
        host: str,
        app_key: str,
        max_requests_per_second: float | None,
        *,
        ledger: str = "",
        pace: Callable[[], Pace] | None = None,
    ) -> RateLimiter:
        """Return a limiter that shares its track with all of this process for the same host and App key.

        :param ledger: the connection of the database in which processes share a pace.
        :param pace: makes the pace, where this process has none of that database yet. Default None: no pace is shared.
        """
        with _LOCK:
            track = _TRACKS.setdefault((host, app_key), Track())
            turns = None
            if pace is not None:
                key = host, app_key, ledger
                turns = _TURNS.get(key) or _TURNS.setdefault(key, Turns(pace()))
        return cls(max_requests_per_second, track=track, turns=turns)

    @property
    def pace(self) -> Pace | None:
        """What this limit is shared through with other processes; None: it is not."""
        return None if self._turns is None else self._turns.pace

    @property
    def pause_left(self) -> float:
        """Seconds until a pause ends; 0 or less: none lasts."""
        return self._track.paused_until - self._track.monotonic()

    @property
    def submits_pause_left(self) -> float:
        """The same for requests of the API that submits."""
        return max(self._track.paused_until, self._track.submits_paused_until) - self._track.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether :meth:`synchronise` must be called before the next request is sent."""
        with self._track.lock:
            now = self._track.monotonic()
            ask = self._ask(now, 1)
            # A ban that others have met matters only to a request that would leave now.
            return ask is not None and (any((ask.turns, ask.ban, ask.submits_ban)) or self._delay(now) <= 0)

    @property
    def has_unshared_ban(self) -> bool:
        """Whether :meth:`synchronise` must be called to note a ban for other processes."""
        with self._track.lock:
            ask = self._ask(self._track.monotonic(), 0)
            return ask is not None and (ask.ban > 0 or ask.submits_ban > 0)

    def synchronise(self, requests: int = 1) -> None:
        """Reserve turns where none is left, note a ban, and look for one, unless another caller just has. Blocks.

        :param requests: how many are about to be sent; 0: reserve nothing.
        :raises LedgerError: the shared pace is away.
        """
        if self._turns is None:
            return
        with self._turns.exchanging:
            with self._track.lock:
                ask = self._ask(self._track.monotonic(), requests)
            if ask is not None:
                self._take(ask, self._turns.pace.exchange(ask))

    def delay(self) -> float:
        """Return the seconds until the next request may be sent; 0 or less: now."""
        with self._track.lock:
            return self._delay(self._track.monotonic())

    def record_dispatch(self) -> None:
        """Count a request that is sent now."""
        with self._track.lock:
            self._count_one()

    def acquire(self) -> float:
        """Count a request where one may be sent now.

        :return: 0: it is counted, send it; else the seconds to wait before asking again.
        """
        with self._track.lock:
            if (wait := self._delay(self._track.monotonic())) > 0:
                # Else all who wait would wake for each turn, and all but one in vain.
                crowd = (self._track.waiting / _WAKING - 1) * min(self.interval, LATE)
                return wait + (random.uniform(0, crowd) if crowd > 0 else 0.0)
            self._count_one()
            return 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a caller that waits for its turn with :meth:`acquire`."""
        with self._track.lock:
            self._track.waiting += 1
        try:
            yield
        finally:
            with self._track.lock:
                self._track.waiting -= 1

    def pause(self, seconds: float) -> None:
        """Let no request of this process pass for so long; a longer pause that lasts already stays."""
        with self._track.lock:
            self._track.paused_until = max(self._track.paused_until, self._track.monotonic() + seconds)

    def ban(self, seconds: float, *, submits_only: bool = False) -> None:
        """Pause for a throttle, which holds for all processes: :meth:`synchronise` notes it for them.

        :param submits_only: it is of the API that submits, and look-ups go on.
        """
        track, turns = self._track, self._turns
        with track.lock:
            until = track.monotonic() + seconds
            if submits_only:
                track.submits_paused_until = max(track.submits_paused_until, until)
            else:
                track.paused_until = max(track.paused_until, until)
            if turns is not None and submits_only:
                turns.unshared_submits_ban = max(turns.unshared_submits_ban, until)
            elif turns is not None:
                turns.unshared_ban = max(turns.unshared_ban, until)

    def _ask(self, now: float, requests: int) -> Ask | None:
        turns = self._turns
        if turns is None:
            return None
        ban, submits_ban = (
            max(0.0, until - now) for until in (turns.unshared_ban, turns.unshared_submits_ban)
        )
        count = 0
        if self.interval and self._track.paused_until <= now:
            turns.expire(now)
            if (lacking := requests - len(turns.moments)) > 0:
                count = turns.to_reserve(lacking, self._most, now)
        ask = Ask(count, self.interval, ban, submits_ban)
        return ask if count or ban or submits_ban or now - turns.read_at >= FRESH else None

    def _take(self, ask: Ask, grant: Grant) -> None:
        """Note what the shared pace has granted, and what has been noted there."""
        assert self._turns is not None
        with self._track.lock:
            turns, now = self._turns, self._track.monotonic()
            turns.moments.extend(grant.starts_at + number * ask.interval for number in range(ask.turns))
            if ask.turns:
                turns.size, turns.is_wasteful = min(self._most, 2 * ask.turns), False
                turns.granted_at, turns.end = now, grant.starts_at + ask.turns * ask.interval
            turns.read_at = now
            track = self._track
            track.paused_until = max(track.paused_until, grant.banned_until)
            track.submits_paused_until = max(track.submits_paused_until, grant.submits_banned_until)
            if turns.unshared_ban <= grant.banned_until + _ROUNDING:
                turns.unshared_ban = 0.0
            if turns.unshared_submits_ban <= grant.submits_banned_until + _ROUNDING:
                turns.unshared_submits_ban = 0.0

    def _delay(self, now: float) -> float:
        wait = max(self._track.next, self._track.paused_until) - now
        if self._turns is None or not self.interval:
            return wait
        self._turns.expire(now)
        return max(wait, self._turns.moments[0] - now if self._turns.moments else _NOT_YET)

    def _count_one(self) -> None:
        track, now = self._track, self._track.monotonic()
        # A caller that wakes late loses no time of those after it; half an interval at most, so that it is no burst.
        latest = now - self.interval / 2
        if self._turns is not None and self._turns.moments:
            now = max(self._turns.moments.popleft(), latest)
        elif track.waiting > 1:
            now = latest
        track.next = max(track.next, now) + self.interval
