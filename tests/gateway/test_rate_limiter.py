"""Rate limit and pauses, on a clock of the test's own."""

from __future__ import annotations

import pytest

from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.turns import LATE, Track
from tests.gateway.conftest import Time


def limiter(time: Time, rate: float | None = None) -> RateLimiter:
    return RateLimiter(rate, monotonic=lambda: time.seconds)


def test_no_rate_limit_lets_every_request_pass(time_machine: Time) -> None:
    unlimited = limiter(time_machine)
    assert [unlimited.acquire() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_rate_limit_spaces_requests(time_machine: Time) -> None:
    limited = limiter(time_machine, 4)
    assert limited.acquire() == 0.0
    assert limited.acquire() == 0.25
    time_machine.seconds = 0.1
    assert limited.acquire() == pytest.approx(0.15)
    time_machine.seconds = 0.25
    assert limited.acquire() == 0.0


def test_rate_limit_saves_no_requests_up(time_machine: Time) -> None:
    limited = limiter(time_machine, 4)
    time_machine.seconds = 100
    assert limited.acquire() == 0.0
    assert limited.acquire() == 0.25


def test_delay_counts_no_request(time_machine: Time) -> None:
    limited = limiter(time_machine, 4)
    assert limited.delay() <= 0
    assert limited.delay() <= 0
    limited.record_dispatch()
    limited.record_dispatch()
    assert limited.delay() == 0.5


@pytest.mark.parametrize("rate", [None, 4])
def test_pause_holds_every_request_back(time_machine: Time, rate: float | None) -> None:
    paused = limiter(time_machine, rate)
    paused.pause(10)
    paused.pause(3)
    assert paused.pause_left > 0
    assert paused.acquire() == 10.0
    time_machine.seconds = 10
    assert paused.pause_left <= 0
    assert paused.acquire() == 0.0


def test_limiters_of_a_process_share_what_concerns_one_host_and_app_key() -> None:
    first, second = (RateLimiter.of_process("https://a.test", "app", rate) for rate in (1, 2))
    others = (
        RateLimiter.of_process("https://a.test", "other", 1),
        RateLimiter.of_process("https://b.test", "app", 1),
    )
    assert first.acquire() == 0.0
    # Each waits at its own interval after what the other has sent.
    assert 0.5 < second.acquire() <= 1.0
    first.pause(1000)
    assert second.pause_left > 0
    assert not any(other.pause_left > 0 for other in others)


@pytest.mark.parametrize(("rate", "callers"), [(5, 4), (5, 400), (0.1, 400)])
def test_many_who_wait_do_not_wake_all_at_once(time_machine: Time, rate: float, callers: int) -> None:
    track = Track(monotonic=lambda: time_machine.seconds)
    limit = RateLimiter(rate, track=track)
    assert limit.acquire() == 0.0
    track.waiting = callers
    waits = [limit.acquire() for _ in range(callers)]
    assert min(waits) >= 1 / rate
    soon = sum(wait <= 1 / rate + min(LATE, 1 / rate) for wait in waits)
    # Enough that one of them takes the turn in time.
    assert 1 <= soon <= 40


def test_a_late_caller_delays_no_other(time_machine: Time) -> None:
    track = Track(monotonic=lambda: time_machine.seconds)
    limit = RateLimiter(10, track=track)
    track.waiting = 5
    sent = 0
    while time_machine.seconds < 20:
        sent += limit.acquire() <= 0
        time_machine.seconds += 0.03
    assert 195 <= sent <= 201
