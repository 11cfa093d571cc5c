"""The rate limit of a submission: its requests and its look-ups take the same one."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter, forget_limiters
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import LOST, Campaign, all_reached_once, connect, recipients
from tests.helpers.clock import SkippingClock


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


def in_the_ledger(statement: str) -> list[Any]:
    with closing(sqlite3.connect(BaseHook.get_connection("ledger").host)) as db:
        rows = db.execute(statement).fetchall()
        db.commit()
    return rows


Runs = Callable[[str], Campaign]


def test_a_long_throttle_defers_the_tasks_that_have_not_met_it(
    without_lookup: SandboxProcess, shared: Runs, clock: SkippingClock
) -> None:
    without_lookup.add_fault(kind="throttle", seconds=7200)
    shared("one").next_try("waits", audience=recipients(2), campaign_key="one")
    assert len(without_lookup.record()["requests"]) == 1
    forget_limiters()  # as in another process
    other = shared("two")
    other.next_try("waits", audience=recipients(2), campaign_key="two")
    assert len(without_lookup.record()["requests"]) == 1
    assert other.run.counts() == {"audience": 2, "not_sent": 2}
    without_lookup.clear_faults()
    clock.skipped += 7201
    forget_limiters()
    other.next_try(audience=recipients(2), campaign_key="two")
    assert all_reached_once(without_lookup, 2)


def test_a_short_throttle_is_waited_out_by_tasks_that_have_not_met_it(
    without_lookup: SandboxProcess, shared: Runs, clock: SkippingClock
) -> None:
    without_lookup.add_fault(kind="throttle", seconds=50, method="submit", times=1)
    first = shared("one").operator(audience=recipients(2), campaign_key="one")
    clock.at_sleep = first.on_kill
    shared("one").next_try("stops", operator=first)
    without_lookup.clear_faults()
    forget_limiters()
    clock.at_sleep, clock.skipped = lambda: None, 0.0
    shared("two").next_try(audience=recipients(2), campaign_key="two")
    assert 40 < clock.skipped < 60
    assert len(without_lookup.record()["requests"]) == 2


@pytest.mark.parametrize("rate", [None, 100])
def test_a_submission_sends_nothing_without_the_row_of_its_rate_limit(
    without_lookup: SandboxProcess, shared: Runs, monkeypatch: pytest.MonkeyPatch, rate: float | None
) -> None:
    connect(without_lookup, monkeypatch, result_query=None, max_requests_per_second=rate)
    monkeypatch.setenv("AIRFLOW__LINGYANG__LEDGER_PATIENCE", "0")
    campaign = shared("one")
    campaign.next_try(audience=recipients(1))
    in_the_ledger("DROP TABLE lingyang_ledger_pace")
    forget_limiters()
    before = len(without_lookup.record()["requests"])
    message = campaign.next_try("stops", audience=recipients(3))
    assert "the ledger's database (connection 'ledger') failed" in message
    assert len(without_lookup.record()["requests"]) == before


def test_the_log_says_how_far_a_rate_limit_reaches(
    without_lookup: SandboxProcess,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    connect(without_lookup, monkeypatch, result_query=None, max_requests_per_second=50)
    campaign.next_try(audience=recipients(2))
    alone = [each for each in caplog.messages if "hold for this process alone" in each]
    assert len(alone) == (not campaign.ledger)
    if campaign.ledger:
        assert in_the_ledger("SELECT next_at > 0 FROM lingyang_ledger_pace") == [(1,)]
