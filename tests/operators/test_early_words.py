"""A person's word counts only where no process could send any more when it was given. The gateway's record judges."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import (
    LOST,
    NOT_DONE,
    Campaign,
    all_reached_once,
    connect,
    executions,
    recipients,
    sent,
)
from tests.helpers.clock import SkippingClock

Begin = Callable[[Campaign], threading.Thread]


@pytest.fixture
def gateway(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> SandboxProcess:
    """A gateway without a look-up. An intent lives 5 seconds: longer than the first attempt is throttled."""
    connect(sandbox, monkeypatch, result_query=None, timeout=5, lookup_settle=10)
    return sandbox


@pytest.fixture
def begin(gateway: SandboxProcess, clock: SkippingClock) -> Begin:
    """Begins a try in a thread, and returns once its first attempt was throttled: it waits until another try does."""

    def begin(campaign: Campaign) -> threading.Thread:
        def run() -> None:
            # However it ends: it was replaced.
            with suppress(Exception):
                campaign.next_try(audience=recipients(2))

        thread, other_waits = threading.Thread(target=run), threading.Event()

        def take_turns() -> None:
            if threading.current_thread() is thread:
                assert other_waits.wait(120)
            elif threading.current_thread() is threading.main_thread():
                other_waits.set()
                thread.join()

        clock.at_sleep = take_turns
        if campaign.store is not None:
            campaign.store.fails = lambda key: (
                campaign.try_number > 1 and threading.current_thread() is thread
            )
        gateway.add_fault(kind="throttle", seconds=0, times=1)
        thread.start()
        while not sent(gateway):
            time.sleep(0.01)
        return thread

    return begin


@pytest.fixture
def paused(gateway: SandboxProcess, campaign: Campaign, begin: Begin) -> Callable[[], threading.Thread]:
    """Begins a try that is throttled with a fresh intent, then sends although it was replaced; its answer is lost."""

    def paused() -> threading.Thread:
        thread = begin(campaign)
        gateway.add_fault(**LOST, times=1)
        return thread

    return paused


def key(campaign: Campaign) -> str:
    (doubt,) = campaign.run.manifest()["in_doubt"]
    return str(doubt.get("settle", doubt["task_unique_code"]))


def test_settle_is_asked_for_once_the_replaced_process_cannot_send(
    gateway: SandboxProcess, campaign: Campaign, paused: Callable[[], threading.Thread]
) -> None:
    thread = paused()
    message = campaign.next_try("fails", audience=recipients(2))
    # What a person finds out now stays true.
    assert executions(gateway) == {"B1": 1, "B2": 1}
    assert key(campaign) in message
    campaign.next_try(audience=recipients(2), settle={key(campaign): "accepted"})
    thread.join()
    assert all_reached_once(gateway, 2)


@pytest.mark.parametrize("told_to_stop", [False, True])
def test_settle_given_while_another_process_may_send_is_not_applied(
    gateway: SandboxProcess, campaign: Campaign, paused: Callable[[], threading.Thread], told_to_stop: bool
) -> None:
    thread = paused()
    # True at this moment: the only attempt was throttled.
    settle = {gateway.record()["requests"][0]["task_unique_code"]: "not_executed"}
    operator = campaign.operator(audience=recipients(2), settle=settle)
    if told_to_stop:
        operator.on_kill()
        campaign.next_try("stops", operator=operator)
        operator = campaign.operator(audience=recipients(2), settle=settle)
    message = campaign.next_try("fails", operator=operator)
    assert "when settle was given, another process could still send what it names" in message
    assert executions(gateway) == {"B1": 1, "B2": 1}
    campaign.next_try(audience=recipients(2), settle={key(campaign): "accepted"})
    thread.join()
    assert all_reached_once(gateway, 2)


@pytest.mark.parametrize("then", ["a retry", "another run"])
def test_settle_given_too_early_is_never_applied(
    gateway: SandboxProcess,
    begin: Begin,
    shared: Callable[[str], Campaign],
    then: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever reads the same Variable later, and although the campaign may go on without what is in doubt."""
    own, other = shared("own"), shared("other")
    thread = begin(own)
    gateway.add_fault(**LOST, times=1)
    settle = {gateway.record()["requests"][0]["task_unique_code"]: "not_executed"}
    how: dict[str, Any] = {"audience": recipients(2), "settle": settle, "on_in_doubt": "continue"}
    with caplog.at_level(logging.WARNING):
        own.next_try(**how)
    assert "when settle was given, another process could still send what it names" in caplog.text
    assert key(own).endswith("#2")
    (own if then == "a retry" else other).next_try(**how)
    thread.join()
    assert all_reached_once(gateway, 2)


def test_settle_for_a_lost_ledger_is_not_asked_for_while_another_process_may_send(
    without_lookup: SandboxProcess, campaign: Campaign, clock: SkippingClock
) -> None:
    campaign.try_number = 1
    operator = campaign.operator(audience=recipients(2))
    clock.at_sleep = operator.on_kill
    message = campaign.next_try("stops", operator=operator)
    assert "asked to stop" in message
    assert "*#" not in message + json.dumps(campaign.run.manifest())


def test_outcome_recorded_by_a_replaced_process_needs_no_settle(
    gateway: SandboxProcess, campaign: Campaign, begin: Begin
) -> None:
    if campaign.store is not None:
        pytest.skip("what a replaced try writes, Airflow's task state store refuses")
    thread = begin(campaign)
    campaign.next_try(audience=recipients(2))
    thread.join()
    assert campaign.run.counts() == {"audience": 2, "already_accepted": 2}
    assert all_reached_once(gateway, 2)


def test_settle_for_a_request_of_the_last_process_is_applied_at_once(
    gateway: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a code was sent again: whoever sent it has ended, and said so."""
    gateway.add_fault(**NOT_DONE, times=2)
    campaign.next_try("fails", audience=recipients(2))
    campaign.next_try("fails", audience=recipients(2), settle={key(campaign): "not_executed"})

    def wait_until(self: Cancellation, moment: float, why: str) -> bool:
        assert moment == 0.0, "it waits for a process that has ended"
        return True

    monkeypatch.setattr(Cancellation, "sleep_until", wait_until)
    campaign.next_try(audience=recipients(2), settle={key(campaign): "not_executed"})
    assert all_reached_once(gateway, 2)
