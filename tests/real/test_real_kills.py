"""A campaign whose processes are killed with SIGKILL, again and again, at any moment while it sends."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.real.conftest import Campaign

SEED = 20260131
PERIOD = 0.25
"""Seconds from one request to the next, about."""
LANES, CAMPAIGNS, KILLS, SUPERVISOR_KILLS = 2, 2, 6, 1
"""Campaigns run one after the other in each lane; the kills are those of one campaign."""


def kill_again_and_again(campaign: Any, rng: random.Random) -> Counter[str]:
    """Kill a campaign's processes at random moments of its sending, and let the scheduler bring it to its end."""
    moments = sorted(rng.sample(range(1, campaign.requests), KILLS + SUPERVISOR_KILLS))
    victims = ["task"] * KILLS + ["supervisor"] * SUPERVISOR_KILLS
    rng.shuffle(victims)
    killed, at = [], []
    for count, victim in zip(moments, victims, strict=True):
        while True:
            process = campaign.next_try()
            campaign.wait_for_submits(count)
            time.sleep(rng.random() * PERIOD)
            # A try may also end by itself, and leave the rest to the next one.
            if not process.gone():
                break
        before = time.time()
        getattr(process, victim).kill()
        at.append((before, time.time()))
        killed.append(process)
    state, tries = campaign.wait_for_end(patience=120), campaign.tries()
    assert state == "success"
    assert tries > len(killed)
    # A task whose supervisor was killed ends at its next write.
    campaign.airflow.until(
        lambda: all(process.gone() for process in killed), "the end of what was killed", 60
    )
    wrong = campaign.judge()
    in_flight = sum(bool(campaign.in_flight(before) and campaign.in_flight(after)) for before, after in at)
    found = {"campaigns": 1, "tries": tries, "requests": len(campaign.submits()), "in flight": in_flight}
    return Counter(victims) + Counter(found) + wrong


def test_kill_contacts_each_recipient_exactly_once(
    campaigns: Callable[..., Campaign], summary: Callable[[str], None]
) -> None:
    def lane(number: int) -> Counter[str]:
        rng = random.Random(SEED + number)
        plans = range(1 + number, 1 + LANES * CAMPAIGNS, LANES)
        found = [kill_again_and_again(campaigns(number, plan_id), rng) for plan_id in plans]
        return sum(found, Counter())

    began = time.monotonic()
    with ThreadPoolExecutor(LANES) as lanes:
        found = sum(lanes.map(lane, range(LANES)), Counter())
    kills = found["task"] + found["supervisor"]
    summary(
        f"kill -9: {kills} ({found['task']} of the task, {found['supervisor']} of its supervisor), {found['in flight']} "
        f"while a request was in flight; {found['campaigns']} campaigns, {found['tries']} tries, {found['requests']} "
        f"requests; duplicates {found['duplicates']}, lost {found['lost']}, order violations "
        f"{found['order violations']}; seed {SEED}, {time.monotonic() - began:.0f} s"
    )
    assert found["duplicates"] == found["lost"] == found["order violations"] == 0
    assert found["task"] >= 20
    assert found["in flight"] >= 0.75 * kills


def test_without_a_look_up_a_kill_stops_the_campaign_until_its_doubts_are_settled(
    campaigns: Callable[..., Campaign], summary: Callable[[str], None]
) -> None:
    campaign = campaigns(0, plan_id=10, gateway="mute")
    doubts = 0
    for count in (8, 20):
        process = campaign.next_try()
        campaign.wait_for_submits(count)
        killed_at = time.time()
        process.task.kill()
        assert campaign.wait_for_end() == "failed"

        submits = campaign.submits()
        (cut_off,) = campaign.in_flight(killed_at)
        assert cut_off["executed"]
        assert max(request["received_at"] for request in submits) < killed_at, "the retry sent something"
        manifest = campaign.manifest()
        in_doubt = [doubt["task_unique_code"] for doubt in manifest["in_doubt"]]
        assert cut_off["task_unique_code"] in in_doubt
        assert len(in_doubt) <= 2
        assert manifest["counts"]["in_doubt"] == sum(doubt["tasks"] for doubt in manifest["in_doubt"])
        assert manifest["counts"]["already_accepted"] == sum(
            len(request["biz_ids"]) for request in submits if request["task_unique_code"] not in in_doubt
        )
        log = campaign.log(process.try_number + 1)
        assert all(
            f'"{code}": "accepted"' in log or f'\\"{code}\\": \\"accepted\\"' in log for code in in_doubt
        )

        doubts += len(in_doubt)
        executed = {request["task_unique_code"] for request in submits if request["executed"]}
        campaign.clear({code: "accepted" if code in executed else "not_executed" for code in in_doubt})
    assert campaign.wait_for_end() == "success"
    wrong = campaign.judge()
    summary(
        f"kill -9 without a look-up: 2 kills, {doubts} requests in doubt and settled by hand; duplicates "
        f"{wrong['duplicates']}, lost {wrong['lost']}, order violations {wrong['order violations']}"
    )
    assert not wrong.total()
