"""The verdict on a fleet must be able to fail: each way in which a campaign can go wrong is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fleet.verdict import CampaignFacts, Request, judge

SHARDS = {f"order-{n}": n % 2 for n in range(8)}


def request(n: int, *, batch_num: int, at: float, until: float) -> Request:
    return Request([f"order-{n}", f"order-{n + 2}"], batch_num, at, until)


GOOD = CampaignFacts(
    name="campaign",
    shards=SHARDS,
    executed=[(biz_id, f"phone of {biz_id}") for biz_id in SHARDS],
    # Two shards, side by side; "10" comes after "9".
    requests=[
        request(0, batch_num=9, at=1.0, until=2.0),
        request(1, batch_num=9, at=1.0, until=4.0),
        request(4, batch_num=10, at=2.5, until=3.0),
        request(5, batch_num=10, at=4.5, until=5.0),
    ],
    ledger=[(biz_id, "accepted") for biz_id in SHARDS],
    warehouse=[(biz_id, "ANSWERED") for biz_id in SHARDS],
    manifests=[
        {"accepted": 1, "already_accepted": 3, "in_doubt": 0},
        {"accepted": 4, "already_accepted": 0, "in_doubt": 0},
    ],
    states={"submit[0]": "success", "submit[1]": "success"},
    tries={"submit[0]": 2, "submit[1]": 1},
)


def test_verdict_on_a_campaign_without_fault() -> None:
    verdict = judge(GOOD)
    assert verdict.problems == []
    figures = (verdict.duplicates, verdict.lost, verdict.in_doubt, verdict.disorder)
    assert figures == (0, 0, 0, 0)
    assert verdict.rate == 2.0
    assert verdict.retried == {"submit[0]": 2}
    assert verdict.by_hand == []


Broken = Callable[[CampaignFacts], CampaignFacts]
FAULTS: dict[str, tuple[Broken, str]] = {
    "a request executed twice": (
        lambda good: replace(good, executed=[*good.executed, good.executed[0]]),
        "1 contacts were repetitions",
    ),
    "a contact under two biz_ids": (
        lambda good: replace(good, executed=[*good.executed[:-1], ("order-7", "phone of order-0")]),
        "1 contacts were repetitions",
    ),
    "a recipient never sent": (
        lambda good: replace(good, executed=good.executed[1:]),
        "the gateway lacks 1 recipients, such as ['order-0']",
    ),
    "a recipient of no audience": (
        lambda good: replace(good, executed=[*good.executed, ("stranger", "phone")]),
        "the gateway holds 1 strangers, such as ['stranger']",
    ),
    "a row that the ledger lost": (
        lambda good: replace(good, ledger=good.ledger[1:]),
        "the ledger lacks 1 recipients, such as ['order-0']",
    ),
    "a recipient in doubt": (
        lambda good: replace(good, ledger=[("order-0", "in_doubt"), *good.ledger[1:]]),
        "1 recipients are in doubt",
    ),
    "a recipient in doubt for the manifest": (
        lambda good: replace(good, manifests=[{**good.manifests[0], "in_doubt": 1}, good.manifests[1]]),
        "1 recipients are in doubt",
    ),
    "a recipient rejected": (
        lambda good: replace(good, ledger=[("order-0", "rejected"), *good.ledger[1:]]),
        "recipients of the ledger are neither accepted nor in doubt: {'rejected': 1}",
    ),
    "a manifest that counts one too few": (
        lambda good: replace(good, manifests=[{**good.manifests[0], "accepted": 0}, good.manifests[1]]),
        "the manifests count 7 accepted recipients of 8",
    ),
    "a row that the warehouse lost": (
        lambda good: replace(good, warehouse=good.warehouse[1:]),
        "the warehouse lacks 1 recipients, such as ['order-0']",
    ),
    "a row twice in the warehouse": (
        lambda good: replace(good, warehouse=[*good.warehouse, good.warehouse[0]]),
        "the warehouse holds 1 recipients again",
    ),
    "a row without a final status": (
        lambda good: replace(good, warehouse=[("order-0", "WAITING"), *good.warehouse[1:]]),
        "the warehouse lacks 1 recipients, such as ['order-0']",
    ),
    "a batch before the earlier one was answered": (
        lambda good: replace(
            good, requests=[*good.requests[:3], request(5, batch_num=10, at=3.5, until=5.0)]
        ),
        "1 requests came before those of an earlier batch_num were answered",
    ),
    "a batch after a later one": (
        lambda good: replace(good, requests=[*good.requests, request(0, batch_num=9, at=6.0, until=7.0)]),
        "1 requests came before those of an earlier batch_num were answered",
    ),
    "a task that failed": (
        lambda good: replace(good, states={**good.states, "submit[1]": "failed"}),
        "a person has to do something: clear submit[1]",
    ),
    "a task that has not ended": (
        lambda good: replace(good, states={**good.states, "submit[1]": "running"}),
        "task instances did not succeed: {'submit[1]': 'running'}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_verdict_finds_each_fault(fault: str) -> None:
    broken, problem = FAULTS[fault]
    assert f"campaign: {problem}" in judge(broken(GOOD)).problems
