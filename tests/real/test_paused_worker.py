"""A worker that was paused, given up and replaced, and then wakes up in the middle of its campaign."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.helpers.airflow_processes import AirflowProcesses
from tests.real.conftest import Campaign


def first_of_its_batch_is_in_flight(campaign: Any) -> bool:
    """The worker holds the second one ready then, its intent written: the one that must not leave."""
    *earlier, last = campaign.submits()
    return last["ended_at"] is None and last["batch_num"] not in {request["batch_num"] for request in earlier}


def test_a_paused_worker_sends_nothing_more_once_it_was_replaced(
    airflow: AirflowProcesses, campaigns: Callable[..., Campaign], summary: Callable[[str], None]
) -> None:
    campaign = campaigns(0, plan_id=11)
    paused = campaign.next_try()
    by_ledger = by_airflow = 0
    for count in (5, 20):
        campaign.wait_for_submits(count)
        airflow.until(
            lambda: first_of_its_batch_is_in_flight(campaign), "a request in flight", 10, every=0.01
        )
        paused.pause()
        (cut_off,) = campaign.in_flight(time.time())
        assert cut_off["executed"]
        assert paused.talks_to(campaign.sandbox), "it was not the process that sends"
        sent = campaign.totals()["submits"]

        replacement = campaign.next_try()
        assert replacement.try_number == paused.try_number + 1
        campaign.wait_for_submits(sent + 3)
        assert paused.paused()
        assert not replacement.gone()
        assert replacement.talks_to(campaign.sandbox)

        paused.wake()
        airflow.until(paused.gone, "the end of the worker that was replaced", 20, every=0.01)
        assert not replacement.gone(), "the campaign ended before the paused worker did"
        assert campaign.task()["id"] == replacement.ti_id
        log = campaign.log(paused.try_number)
        fenced = "the task state store cannot be written" in log
        told_to_end = "Server indicated the task shouldn't be running anymore" in log
        assert fenced or told_to_end, log[-3000:]
        by_ledger += fenced
        by_airflow += told_to_end
        paused = replacement
    assert campaign.wait_for_end() == "success"
    assert campaign.tries() == 3
    wrong = campaign.judge()
    summary(
        f"SIGSTOP: 2 workers paused while a request was in flight, replaced and woken; fenced by the ledger {by_ledger}, "
        f"told to end by Airflow {by_airflow}; duplicates {wrong['duplicates']}, lost {wrong['lost']}, order violations "
        f"{wrong['order violations']}"
    )
    requested = [biz_id for request in campaign.submits() for biz_id in request["biz_ids"]]
    assert len(requested) == len(set(requested)), "somebody was in two requests"
    assert not wrong.total()
