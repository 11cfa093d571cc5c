"""Rate limit and pauses, on a clock of the test's own."""

from __future__ import annotations

import pytest

from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
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
    assert paused.is_paused
    assert paused.acquire() == 10.0
    time_machine.seconds = 10
    assert not paused.is_paused
    assert paused.acquire() == 0.0
