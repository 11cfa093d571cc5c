"""When the next request may leave: not too fast, not into a ban, not at night, not too late."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as day_time
from typing import Any, Self

from airflow_provider_lingyang.config.arguments import ArgumentError, check_window, shown
from airflow_provider_lingyang.gateway.dates import CHINA, in_china, parse_date
from airflow_provider_lingyang.gateway.retry import LONGEST_WAIT


class Later(Exception):
    """No request may leave before a moment that is too far off to be waited for.

    :param until: that moment, aware.
    :param why: what holds them back.
    """

    def __init__(self, until: datetime, why: str) -> None:
        super().__init__(f"{why}; sending goes on at {in_china(until):%Y-%m-%d %H:%M:%S} (Asia/Shanghai)")
        self.until = until
        self.why = why


class TooLate(Exception):
    """``send_until`` has passed."""


@dataclass(frozen=True, slots=True)
class SendWindow:
    """Hours of the day, at China's time, in which requests may leave; over midnight where they begin after they end."""

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


def parse_until(value: Any) -> datetime | None:
    """Return the moment that ``send_until`` means; None for None.

    :param value: a datetime, or text of one; without a time zone it is China's time.
    :raises ArgumentError: it is none.
    """
    if value is None:
        return None
    try:
        return in_china(value) if isinstance(value, datetime) else parse_date(str(value).strip())
    except (ValueError, OverflowError):
        # The second for a moment that is in no year from 1 to 9999 in China.
        raise ArgumentError(
            f"send_until must be a date with a time, such as '2026-01-31 20:00:00'; it is {shown(value)}"
        ) from None


class Gate:
    """Says how long the next request has to wait.

    :param max_requests_per_second: None: as fast as they are answered.
    :param window: hours of the day; None: any.
    :param until: nothing leaves after it; None: no end.
    :param clock: returns the present moment, aware.
    """

    def __init__(
        self,
        *,
        max_requests_per_second: float | None = None,
        window: SendWindow | None = None,
        until: datetime | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(CHINA),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1 / max_requests_per_second if max_requests_per_second else 0.0
        self._window = window
        self._until = until
        self._clock = clock
        self._monotonic = monotonic
        self._next = self._held = monotonic()

    @property
    def is_paced(self) -> bool:
        """Whether requests leave at a pace."""
        return self._interval > 0

    def is_open(self) -> bool:
        """Whether what was let through a moment ago may still leave. For any thread."""
        now = self._clock()
        closed = self._window is not None and self._window.opens_at(now) is not None
        return not closed and not self.is_too_late(now) and self._monotonic() >= self._held

    def delay(self) -> float:
        """Return the seconds until the next request may leave; 0 or less: now.

        :raises Later: it is longer than a task should sleep.
        :raises TooLate: never.
        """
        now = self._clock()
        opening = self._window.opens_at(now) if self._window else None
        if self._until is not None and (opening or now) >= self._until:
            raise TooLate(f"send_until ({self._until:%Y-%m-%d %H:%M:%S}, Asia/Shanghai) has passed")
        if opening is not None:
            wait = (opening - now).total_seconds()
            if wait > LONGEST_WAIT:
                raise Later(opening, f"send_window {self._window} is closed")
            return wait
        return self._next - self._monotonic()

    def seconds(self, requests: int) -> float | None:
        """Return how long so many requests take at least while they may leave; None: nothing holds them back."""
        return requests * self._interval or None

    def ends(self, requests: int) -> datetime | None:
        """Return when so many requests, of which the first leaves now, will have left at the earliest.

        :return: aware; None: nothing says how fast they leave, or that is years away.
        """
        seconds = self.seconds(requests)
        if seconds is None:
            return None
        try:
            now = self._clock()
            return self._window.after(now, seconds) if self._window else now + timedelta(seconds=seconds)
        except OverflowError:
            return None

    def is_too_late(self, moment: datetime) -> bool:
        """Whether ``send_until`` will have passed then."""
        return self._until is not None and moment >= self._until

    def hold(self, seconds: float) -> None:
        """Let nothing leave for so long."""
        self._held = max(self._held, self._monotonic() + seconds)
        self._next = max(self._next, self._held)

    def passed(self) -> None:
        """Note that a request leaves."""
        self._next = max(self._next, self._monotonic()) + self._interval

    def later(self, seconds: float, why: str) -> Later:
        """Return that nothing may leave for so long, which is too long to be slept."""
        return Later(self._clock() + timedelta(seconds=seconds), why)
