"""``isv.BUSINESS_LIMIT_CONTROL``: a limit of one receiver, which never says whose. The gateway's record is the judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import LOST, Campaign, all_reached_once, connect, executions, recipients, sent

BAN = "This ban will last for 1 more seconds"


@pytest.fixture
def ceiling(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def set_(seconds: int) -> None:
        monkeypatch.setenv("AIRFLOW__LINGYANG__RECEIVER_LIMIT_PATIENCE", str(seconds))

    return set_


def limit(sandbox: SandboxProcess, biz_id: str | None = None, **how: Any) -> None:
    match = {"match": {"biz_id": biz_id}} if biz_id else {}
    base = {"times": None, "method": "submit", "sub_msg": BAN, "sub_code": "isv.BUSINESS_LIMIT_CONTROL"}
    sandbox.add_fault(**{"kind": "error", "code": 15} | base | match | how)


def test_waits_for_one_recipient_without_a_look_up(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    limit(without_lookup, "B2", times=2)
    campaign.next_try(audience=recipients(3), batch_size=1)
    assert sent(without_lookup) == [["B1"], ["B2"], ["B2"], ["B2"], ["B3"]]
    assert all_reached_once(without_lookup, 3)


def test_repeats_a_request_of_several_once_a_look_up_shows_that_none_was_executed(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    limit(with_lookup, "B2", times=3)
    campaign.next_try(audience=recipients(2, 2))
    assert sent(with_lookup) == [["B1", "B2"]] * 4 + [["B3", "B4"]]
    assert all_reached_once(with_lookup, 4)


def test_a_request_of_several_is_in_doubt_without_a_look_up(
    without_lookup: SandboxProcess, campaign: Campaign, ceiling: Callable[[int], None]
) -> None:
    for seconds in (1800, 0):
        ceiling(seconds)
        limit(without_lookup, "B2")
        message = campaign.next_try("fails", audience=recipients(2, 2))
        assert "only a look-up tells" in message or "earlier tries are in doubt" in message
        assert campaign.run.counts() == {"audience": 4, "in_doubt": 2, "not_sent": 2}
    assert sent(without_lookup) == [["B1", "B2"]]


def test_recipient_found_by_the_look_up_is_accepted(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    limit(with_lookup, "B2", executed=True, times=1)
    campaign.next_try(audience=recipients(2, 2))
    assert sent(with_lookup) == [["B1", "B2"], ["B3", "B4"]]
    assert campaign.run.counts() == {"audience": 4, "accepted": 4}
    assert all_reached_once(with_lookup, 4)


def test_is_in_doubt_after_an_ambiguous_attempt(
    sandbox: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(sandbox, monkeypatch, result_query=None, dedupes_by_code=True, max_attempts=5)
    sandbox.add_fault(**LOST)
    limit(sandbox, times=1)
    campaign.next_try("stops", audience=recipients(1), batch_size=1)
    assert campaign.run.counts() == {"audience": 1, "in_doubt": 1}
    assert sent(sandbox) == [["B1"], ["B1"]]


@pytest.mark.parametrize("in_flight", [1, 3])
def test_rejects_a_limited_recipient_after_a_later_acceptance(
    with_lookup: SandboxProcess, campaign: Campaign, ceiling: Callable[[int], None], in_flight: int
) -> None:
    ceiling(0)
    limit(with_lookup, "B1")
    manifest = campaign.next_try(audience=recipients(8, 2), batch_size=8, max_in_flight=in_flight)
    assert campaign.run.counts() == {"audience": 10, "accepted": 9, "rejected": 1}
    assert sent(with_lookup)[0] == [f"B{n}" for n in range(1, 9)]
    assert sorted(sent(with_lookup)[1:9]) == [[f"B{n}"] for n in range(1, 9)]
    ((reason, count),) = manifest["reasons"]["rejected"].items()
    assert "BUSINESS_LIMIT_CONTROL" in reason
    assert count == 1
    assert executions(with_lookup) == {f"B{n}": 1 for n in range(2, 11)}
    assert with_lookup.record()["order_violations"] == []
    # Finally: the next try leaves the rejected recipient alone.
    with_lookup.clear_faults()
    campaign.clear()
    campaign.next_try(audience=recipients(8, 2), batch_size=8)
    assert executions(with_lookup) == {f"B{n}": 1 for n in range(2, 11)}


def test_limit_that_refuses_all_recipients_is_the_accounts(
    with_lookup: SandboxProcess, campaign: Campaign, ceiling: Callable[[int], None]
) -> None:
    ceiling(0)
    limit(with_lookup)
    message = campaign.next_try("stops", audience=recipients(3, 3), batch_size=3)
    assert "account's" in message
    assert campaign.run.counts() == {"audience": 6, "not_sent": 6}
    assert sent(with_lookup) == [["B1", "B2", "B3"], ["B1"], ["B2"], ["B3"]]
    with_lookup.clear_faults()
    campaign.next_try(audience=recipients(3, 3), batch_size=3)
    assert all_reached_once(with_lookup, 6)


def test_no_recipient_is_rejected_without_a_later_acceptance(
    with_lookup: SandboxProcess, campaign: Campaign, ceiling: Callable[[int], None]
) -> None:
    ceiling(0)
    limit(with_lookup, "B3")
    message = campaign.next_try("stops", audience=recipients(3, 2), batch_size=3)
    assert "1 recipient(s) were refused for a limit" in message
    assert campaign.run.counts() == {"audience": 5, "accepted": 4, "not_sent": 1}
    with_lookup.clear_faults()
    campaign.next_try(audience=recipients(3, 2), batch_size=3)
    assert all_reached_once(with_lookup, 5)


def test_one_recipient_alone_is_not_sent_once_the_ceiling_is_reached(
    with_lookup: SandboxProcess, campaign: Campaign, ceiling: Callable[[int], None]
) -> None:
    ceiling(0)
    limit(with_lookup, "B2")
    message = campaign.next_try("stops", audience=recipients(3), batch_size=1)
    assert "receiver_limit_patience (0 s) has passed" in message
    assert campaign.run.counts() == {"audience": 3, "accepted": 1, "not_sent": 2}
    assert sent(with_lookup) == [["B1"], ["B2"]]


def test_the_ceiling_is_one_for_all_tries_of_a_campaign(
    with_lookup: SandboxProcess, campaign: Campaign, ceiling: Callable[[int], None]
) -> None:
    limit(with_lookup, "B1", sub_msg="later")
    # Too long to be slept through: the task is deferred, and resumed before the ceiling.
    operator = campaign.operator(audience=recipients(2, 2))
    campaign.next_try("waits", operator=operator)
    assert campaign.run.counts() == {"audience": 4, "not_sent": 4}
    ceiling(0)
    campaign.resume(campaign.operator(audience=recipients(2, 2)))
    assert sent(with_lookup) == [["B1", "B2"], ["B1", "B2"], ["B1"], ["B2"], ["B3", "B4"]]
    assert campaign.run.counts() == {"audience": 4, "accepted": 3, "rejected": 1}


@pytest.mark.real_time
def test_the_ceiling_counts_from_the_first_refusal(
    with_lookup: SandboxProcess,
    campaign: Campaign,
    ceiling: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(with_lookup, monkeypatch, timeout=1)
    ceiling(1)
    limit(with_lookup, "B1", sub_msg="later")
    limit(with_lookup, "B3", sub_msg="later")
    campaign.next_try(audience=recipients(2, 2))
    assert sent(with_lookup).count(["B1", "B2"]) == 2
    # By then the campaign has waited for as long as it may.
    assert sent(with_lookup).count(["B3", "B4"]) == 1
    assert campaign.run.counts() == {"audience": 4, "accepted": 2, "rejected": 2}
