"""The rate limit of a submission: its requests and its look-ups take the same one."""

from __future__ import annotations

import pytest

from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import LOST, Campaign, all_reached_once, connect, recipients


def test_requests_and_look_ups_take_one_rate_limit(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(with_lookup, monkeypatch, max_requests_per_second=20)
    taken: list[RateLimiter] = []
    count_one = RateLimiter._count_one

    def noting(self: RateLimiter) -> None:
        taken.append(self)
        count_one(self)

    monkeypatch.setattr(RateLimiter, "_count_one", noting)
    with_lookup.add_fault(**LOST)
    campaign.next_try(audience=recipients(2, 2))
    assert all_reached_once(with_lookup, 4)
    requests = with_lookup.record()["requests"]
    assert {each["method"] for each in requests} > {LOOKUP}
    assert len(taken) == len(requests)
    assert len({id(limiter._track) for limiter in taken}) == 1


def test_a_look_up_that_waits_for_the_rate_limit_ends_when_the_task_is_killed(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = campaign.operator(audience=recipients(2, 2))
    asked_again: list[float] = []
    pause, acquire = RateLimiter.pause, RateLimiter.acquire

    def killed(self: RateLimiter, seconds: float) -> None:
        pause(self, seconds)
        asked_again.clear()
        operator.on_kill()

    def noting(self: RateLimiter) -> float:
        wait = acquire(self)
        asked_again.append(wait)
        return wait

    monkeypatch.setattr(RateLimiter, "pause", killed)
    monkeypatch.setattr(RateLimiter, "acquire", noting)
    with_lookup.add_fault(**LOST)
    with_lookup.add_fault(kind="throttle", seconds=30, method=LOOKUP)
    message = campaign.next_try("stops", operator=operator)
    assert "asked to stop" in message
    # It has asked once how long the pause lasts, and has neither waited for its end nor asked over and over.
    assert len(asked_again) == 1
    assert asked_again[0] > 5
    assert campaign.run.counts() == {"audience": 4, "in_doubt": 2, "not_sent": 2}
