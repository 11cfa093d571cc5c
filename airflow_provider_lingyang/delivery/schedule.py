"""When the next request may be sent: rate limit, throttle ban, send window, deadline."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import time as day_time
from typing import Self

from airflow_provider_lingyang.config.arguments import check_window
from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.attempts import LONGEST_WAIT, Ban
from airflow_provider_lingyang.gateway.dates import CHINA, in_china
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter


class DeferSending(Exception):
    """No request may be sent before a moment that is too far off to be waited for: the task is to be deferred.

    :param until: that moment, aware.
    :param why: the reason.
    """

    def __init__(self, until: datetime, why: str) -> None:
        super().__init__(f"{why}; sending goes on at {in_china(until):%Y-%m-%d %H:%M:%S} (Asia/Shanghai)")
        self.until = until
        self.why = why


class DeadlinePassed(Exception):
    """The deadline ``send_until`` has passed."""


@dataclass(frozen=True, slots=True)
class SendWindow:
    """Hours of the day, in China's time, for sending; over midnight where it closes before it opens."""

    opens: day_time
    closes: day_time

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Return the window that ``"09:00-20:30"`` means; None for None.

        :raises ArgumentError: it is none.
        """
        check_window("send_window", text)
        if text is None:
            return None
        opens, closes = (day_time.fromisoformat(part.strip()) for part in text.split("-"))
        return cls(opens, closes)

    def opens_at(self, now: datetime) -> datetime | None:
        """Return when it opens next, or None while it is open."""
        now = in_china(now)
        moment = now.time()
        if self.opens < self.closes:
            is_open = self.opens <= moment < self.closes
        else:
            is_open = moment >= self.opens or moment < self.closes
        if is_open:
            return None
        opening = datetime.combine(now.date(), self.opens, CHINA)
        return opening if opening > now else opening + timedelta(days=1)

    def opened_at(self, now: datetime) -> datetime:
        """Return when it opened last, also where it is closed by now."""
        now = in_china(now)
        opening = datetime.combine(now.date(), self.opens, CHINA)
        return opening if opening <= now else opening - timedelta(days=1)

    def after(self, start: datetime, seconds: float) -> datetime:
        """Return the moment when it will have been open for so long since a start.

        :raises OverflowError: the calendar ends before.
        """
        opens = self.opens_at(start) or in_china(start)
        closes = datetime.combine(opens.date(), self.closes, CHINA)
        closes += timedelta(days=closes <= opens)
        if seconds <= (room := (closes - opens).total_seconds()):
            return opens + timedelta(seconds=seconds)
        opens = datetime.combine(closes.date(), self.opens, CHINA)
        opens += timedelta(days=opens < closes)
        length = (closes - datetime.combine(closes.date(), self.opens, CHINA)).total_seconds() % 86_400
        left = seconds - room
        days = math.ceil(left / length) - 1
        return opens + timedelta(days=days, seconds=left - days * length)

    def __str__(self) -> str:
        return f"{self.opens:%H:%M}-{self.closes:%H:%M}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendSchedule:
    """Rate limit, throttle bans, send window and deadline of one campaign.

    :param limiter: shared with look-ups; learns of requests and pauses. Default: as fast as requests are answered.
    :param window: hours of the day; None: any.
    :param until: deadline, after which nothing is sent; None: no deadline.
    :param clock: returns the present moment, aware.
    """

    limiter: RateLimiter = field(default_factory=RateLimiter)
    window: SendWindow | None = None
    until: datetime | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(CHINA)

    def is_open(self) -> bool:
        """Whether a request that :meth:`delay` has let pass may still be sent. Thread-safe."""
        return self._allows() and self.limiter.submits_pause_left <= 0

    def is_due(self) -> bool:
        """Whether the rate limit must be synchronised before the next request may be sent."""
        # Turns that are reserved while none may be sent would be lost, to look-ups and to others, too.
        if self.limiter.submits_pause_left > 0:
            return self._allows() and self.limiter.has_unshared_ban
        return self._allows() and self.limiter.is_due

    def synchronise(self, requests: int) -> None:
        """Synchronise the rate limit; reserve turns only where requests may be sent. Blocks.

        :param requests: how many are about to be sent.
        :raises LedgerError: the shared limit's database is away.
        """
        self.limiter.synchronise(requests if self.is_open() else 0)

    def _allows(self) -> bool:
        now = self.clock()
        closed = self.window is not None and self.window.opens_at(now) is not None
        return not closed and not self.is_too_late(now)

    def delay(self) -> float:
        """Return the seconds until the next request may be sent; 0 or less: now.

        :raises DeferSending: that is longer than a task should sleep.
        :raises DeadlinePassed: no request may be sent any more.
        """
        now = self.clock()
        opening = self.window.opens_at(now) if self.window else None
        if self.until is not None and (opening or now) >= self.until:
            raise DeadlinePassed(f"send_until ({self.until:%Y-%m-%d %H:%M:%S}, Asia/Shanghai) has passed")
        if opening is not None:
            wait = (opening - now).total_seconds()
            if wait > LONGEST_WAIT:
                raise DeferSending(opening, f"send_window {self.window} is closed")
            return wait
        if (left := self.limiter.submits_pause_left) > LONGEST_WAIT + 1:
            raise self.defer_for(left, "the App key is throttled, as an earlier request was answered")
        return max(left, self.limiter.delay())

    def ban(self, ban: Ban) -> None:
        """Pause for a throttle, and let all processes know at once that share the rate limit."""
        self.limiter.ban(ban.seconds, submits_only=ban.is_of_one_api)
        # Else it is written later: before a request leaves.
        with suppress(LedgerError):
            self.limiter.synchronise(0)

    def open_since(self) -> float:
        """Return since when requests may be sent, in epoch seconds; the present moment while they may not."""
        now = self.clock()
        if self.window is None:
            return 0.0
        return (self.window.opened_at(now) if self.window.opens_at(now) is None else now).timestamp()

    def seconds(self, requests: int) -> float | None:
        """Return the seconds that so many requests take at the rate limit; None: there is no rate limit."""
        return requests * self.limiter.interval or None

    def ends(self, requests: int) -> datetime | None:
        """Return when so many requests will have been sent at the earliest, the first of them now.

        :return: aware; None: there is no rate limit, or that is years away.
        """
        seconds = self.seconds(requests)
        if seconds is None:
            return None
        try:
            now = self.clock()
            return self.window.after(now, seconds) if self.window else now + timedelta(seconds=seconds)
        except OverflowError:
            return None

    def is_too_late(self, moment: datetime) -> bool:
        """Whether the deadline will have passed at a moment."""
        return self.until is not None and moment >= self.until

    def defer_for(self, seconds: float, why: str) -> DeferSending:
        """Return the error for a pause of some seconds, which is too long to be slept."""
        return DeferSending(self.clock() + timedelta(seconds=seconds), why)
