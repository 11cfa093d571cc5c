"""When the next request may leave."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_lingyang.config.arguments import ArgumentError, parse_deadline
from airflow_provider_lingyang.delivery.schedule import (
    DeadlinePassed,
    DeferSending,
    SendSchedule,
    SendWindow,
)
from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.attempts import Ban
from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.turns import Ask, Grant, Turns


class Clock:
    def __init__(self, text: str = "2026-01-31 12:00:00") -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=CHINA)
        self.started = self.now

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return (self.now - self.started).total_seconds()

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_pace_spreads_requests_and_does_not_catch_up_in_a_burst() -> None:
    clock = Clock()
    schedule = SendSchedule(limiter=RateLimiter(4, monotonic=clock.monotonic), clock=clock)
    assert schedule.delay() <= 0
    schedule.limiter.record_dispatch()
    assert schedule.delay() == 0.25
    clock.passes(10)
    assert schedule.delay() <= 0
    schedule.limiter.record_dispatch()
    assert schedule.delay() == 0.25


def test_pause_is_waited_out_once_by_all_senders() -> None:
    clock = Clock()
    schedule = SendSchedule(limiter=RateLimiter(monotonic=clock.monotonic), clock=clock)
    schedule.limiter.pause(7)
    schedule.limiter.pause(3)
    assert schedule.delay() == 7
    clock.passes(7)
    assert schedule.delay() <= 0


class Pace:
    """What processes share, in memory."""

    patience = 60.0

    def __init__(self, clock: Clock) -> None:
        self.clock, self.asked = clock, list[Ask]()
        self.bans: tuple[float, ...] = (0.0, 0.0)
        self.is_away = False

    def exchange(self, ask: Ask) -> Grant:
        if self.is_away:
            raise LedgerError("away")
        self.asked.append(ask)
        noted = (self.clock.monotonic() + seconds for seconds in (ask.ban, ask.submits_ban))
        self.bans = tuple(map(max, self.bans, noted))
        return Grant(self.clock.monotonic(), *self.bans)


def test_turns_are_reserved_only_while_requests_may_be_sent() -> None:
    clock = Clock("2026-01-31 20:29:50")
    pace = Pace(clock)
    limiter = RateLimiter(4, monotonic=clock.monotonic, turns=Turns(pace))
    schedule = SendSchedule(limiter=limiter, window=SendWindow.parse("09:00-20:30"), clock=clock)
    assert schedule.is_due()
    clock.passes(20)
    assert limiter.is_due
    assert not schedule.is_due()
    clock.passes(24 * 3600 - 60)
    limiter.pause(5)
    assert not schedule.is_due()
    clock.passes(5)
    assert schedule.is_due()
    limiter.synchronise()
    assert not schedule.is_due()
    assert schedule.delay() <= 0


def test_no_turns_are_reserved_while_the_api_that_submits_is_banned() -> None:
    clock = Clock()
    pace = Pace(clock)
    limiter = RateLimiter(4, monotonic=clock.monotonic, turns=Turns(pace))
    schedule = SendSchedule(limiter=limiter, clock=clock)
    for is_away in (True, False):
        pace.is_away = is_away
        schedule.ban(Ban(seconds=30.0, is_of_one_api=True))
        # What could not be noted for other processes still is.
        assert schedule.is_due() is is_away
    pace.asked.clear()
    while clock.monotonic() < 30:
        assert not schedule.is_due()
        clock.passes(0.25)
    assert schedule.is_due()
    schedule.synchronise(2)
    assert [ask.turns for ask in pace.asked] == [2]


def test_a_ban_is_noted_later_and_without_turns() -> None:
    clock = Clock()
    pace = Pace(clock)
    schedule = SendSchedule(limiter=RateLimiter(4, monotonic=clock.monotonic, turns=Turns(pace)), clock=clock)
    pace.is_away = True
    schedule.ban(Ban(seconds=30.0, is_of_one_api=True))
    pace.is_away = False
    clock.passes(10)
    assert schedule.is_due()
    schedule.synchronise(2)
    assert [(ask.turns, ask.submits_ban) for ask in pace.asked] == [(0, 20.0)]
    assert not schedule.is_due()


@pytest.mark.parametrize("ends_at", [lambda moment: (moment, 0.0), lambda moment: (0.0, moment)])
def test_a_long_ban_of_another_process_defers_the_task(
    ends_at: Callable[[float], tuple[float, float]],
) -> None:
    clock = Clock()
    pace = Pace(clock)
    limiter = RateLimiter(monotonic=clock.monotonic, turns=Turns(pace))
    schedule = SendSchedule(limiter=limiter, clock=clock)
    pace.bans = ends_at(60.0)
    limiter.synchronise()
    assert schedule.delay() == 60.0
    assert not schedule.is_open()
    clock.passes(61)
    pace.bans = ends_at(61.0 + 3600)
    limiter.synchronise()
    with pytest.raises(DeferSending, match="the App key is throttled") as caught:
        schedule.delay()
    assert caught.value.until == clock() + timedelta(seconds=3600)


def test_recorded_dispatch_may_be_sent_unless_paused_or_late() -> None:
    clock = Clock("2026-01-31 20:29:50")
    window, until = SendWindow.parse("09:00-20:30"), parse_deadline("2026-02-01 09:00:10")
    schedule = SendSchedule(
        limiter=RateLimiter(1, monotonic=clock.monotonic), window=window, until=until, clock=clock
    )
    schedule.limiter.record_dispatch()
    assert schedule.is_open()
    schedule.limiter.pause(2)
    assert not schedule.is_open()
    clock.passes(2)
    assert schedule.is_open()
    clock.passes(8)
    assert not schedule.is_open()  # 20:30
    clock.passes(12.5 * 3600)
    assert schedule.is_open()  # 09:00
    clock.passes(10)
    assert not schedule.is_open()


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        ("09:00-20:30", "2026-01-31 09:00:00", None),
        ("09:00-20:30", "2026-01-31 20:29:59", None),
        ("09:00-20:30", "2026-01-31 20:30:00", "2026-02-01 09:00:00"),
        ("09:00-20:30", "2026-01-31 08:00:00", "2026-01-31 09:00:00"),
        ("22:00-02:00", "2026-01-31 23:00:00", None),
        ("22:00-02:00", "2026-01-31 01:59:00", None),
        ("22:00-02:00", "2026-01-31 02:00:00", "2026-01-31 22:00:00"),
        (" 9:00 - 20:30", "", "error"),
        ("09:00 - 20:30", "2026-01-31 10:00:00", None),
    ],
)
def test_a_window_is_open_from_its_first_minute_to_before_its_last(
    window: str, now: str, opens: str | None
) -> None:
    if opens == "error":
        with pytest.raises(ArgumentError, match="send_window"):
            SendWindow.parse(window)
        return
    found = SendWindow.parse(window)
    assert found is not None
    moment = Clock(now).now.astimezone(UTC)
    assert found.opens_at(moment) == (Clock(opens).now if opens else None)


def test_closed_window_is_waited_for_when_near_and_deferred_otherwise() -> None:
    clock = Clock("2026-01-31 08:59:30")
    schedule = SendSchedule(window=SendWindow.parse("09:00-20:30"), clock=clock)
    assert schedule.delay() == 30
    clock.passes(-3600)
    with pytest.raises(
        DeferSending, match="send_window 09:00-20:30 is closed; sending goes on at 2026-01-31 09:00:00"
    ) as late:
        schedule.delay()
    assert late.value.until == Clock("2026-01-31 09:00:00").now


def test_no_request_is_sent_or_waits_after_send_until() -> None:
    clock = Clock("2026-01-31 20:00:00")
    until = parse_deadline("2026-01-31 20:31:00")
    schedule = SendSchedule(window=SendWindow.parse("09:00-20:30"), until=until, clock=clock)
    assert schedule.delay() <= 0
    clock.passes(1800)
    with pytest.raises(DeadlinePassed, match="2026-01-31 20:31:00"):
        schedule.delay()
    with pytest.raises(DeadlinePassed):
        SendSchedule(until=until, clock=Clock("2026-01-31 20:31:00")).delay()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("2026-01-31 20:00:00", "2026-01-31T20:00:00+08:00"),
        ("2026-01-31T12:00:00+00:00", "2026-01-31T20:00:00+08:00"),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T20:00:00+08:00"),
        (datetime(2026, 1, 31, 20), "2026-01-31T20:00:00+08:00"),
    ],
)
def test_send_until_without_a_time_zone_is_in_china(value: object, expected: str | None) -> None:
    found = parse_deadline(value)
    assert (found.isoformat() if found else None) == expected


@pytest.mark.parametrize(
    "value",
    [
        "tomorrow",
        "20:30",
        "2026-01-31",
        5,
        "{{ x }}",
        "",
        " ",
        "9999-12-31T23:59:59Z",
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_invalid_send_until_is_refused(value: object) -> None:
    with pytest.raises(ArgumentError, match="send_until must be a date with a time"):
        parse_deadline(value)


@pytest.mark.parametrize(
    ("window", "now", "seconds", "ends"),
    [
        ("09:00-20:30", "2026-01-31 12:00:00", 60, "2026-01-31 12:01:00"),
        ("09:00-20:30", "2026-01-31 08:00:00", 60, "2026-01-31 09:01:00"),
        ("09:00-20:30", "2026-01-31 21:00:00", 60, "2026-02-01 09:01:00"),
        ("09:00-20:30", "2026-01-31 20:00:00", 1800, "2026-01-31 20:30:00"),
        ("09:00-20:30", "2026-01-31 20:00:00", 1860, "2026-02-01 09:01:00"),
        ("09:00-20:30", "2026-01-31 20:00:00", 1800 + 2 * 41_400, "2026-02-02 20:30:00"),
        ("09:00-20:30", "2026-01-31 20:00:00", 1801 + 2 * 41_400, "2026-02-03 09:00:01"),
        ("22:00-02:00", "2026-01-31 23:00:00", 3 * 3600, "2026-02-01 02:00:00"),
        ("22:00-02:00", "2026-02-01 01:00:00", 3600 + 60, "2026-02-01 22:01:00"),
        ("22:00-02:00", "2026-02-01 12:00:00", 5 * 3600, "2026-02-02 23:00:00"),
    ],
)
def test_window_forecast_counts_open_seconds_only(window: str, now: str, seconds: float, ends: str) -> None:
    parsed = SendWindow.parse(window)
    assert parsed is not None
    assert f"{parsed.after(Clock(now)(), seconds):%Y-%m-%d %H:%M:%S}" == ends


def test_send_forecast_needs_a_pace_and_ends_with_the_calendar() -> None:
    window = SendWindow.parse("09:00-09:01")
    clock = Clock()
    assert SendSchedule(window=window, clock=clock).ends(10) is None
    assert SendSchedule(window=window, clock=clock, limiter=RateLimiter(2)).ends(10) == clock() + timedelta(
        hours=21, seconds=5
    )
    assert SendSchedule(window=window, clock=clock, limiter=RateLimiter(1 / 3600)).ends(10**9) is None
