"""A run that comes too late is skipped, unless it has begun. The gateway's record is the judge."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import Campaign, all_reached_once, executions, recipients

HOUR = timedelta(hours=1)


def due(ago: timedelta, run_type: str = "scheduled") -> SimpleNamespace:
    moment = datetime.now(UTC) - ago
    return SimpleNamespace(run_type=run_type, data_interval_end=moment, run_after=moment)


class Unread:
    """Rows that must not be read."""

    def __iter__(self) -> Any:
        raise AssertionError("the audience was read")


class LateCampaign(Campaign):
    """Tries of a task of a run that was due five days ago."""

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign.run, campaign.ledger, campaign.store)
        self.dag_run: SimpleNamespace | None = due(timedelta(days=5))
        self.first_context = campaign.run.context

    def context(self) -> Mapping[str, Any]:
        return {**super().context(), "dag_run": self.dag_run}


@pytest.fixture
def late(campaign: Campaign) -> LateCampaign:
    return LateCampaign(campaign)


def skipped(campaign: Campaign, **arguments: Any) -> str:
    campaign.try_number += 1
    context = campaign.context()
    campaign.run.context = lambda *_, **__: context
    with pytest.raises(AirflowSkipException) as caught:
        campaign.run.execute(campaign.operator(max_lateness=HOUR, **arguments))
    return str(caught.value)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "manual", "asset_triggered"])
def test_late_run_is_skipped_and_nothing_is_read(
    with_lookup: SandboxProcess, late: LateCampaign, run_type: str
) -> None:
    late.dag_run = due(timedelta(days=5), run_type)
    message = skipped(late, audience=Unread())
    assert "nothing was read" in message
    assert "earlier ones" not in message
    assert "max_lateness is 1:00:00" in message
    assert executions(with_lookup) == {}
    assert late.run.counts() == {}


def test_run_in_time_is_sent(with_lookup: SandboxProcess, late: LateCampaign) -> None:
    late.dag_run = due(timedelta(minutes=59))
    late.next_try(audience=recipients(2), max_lateness=HOUR)
    assert all_reached_once(with_lookup, 2)


def test_run_without_a_date_is_sent(with_lookup: SandboxProcess, late: LateCampaign) -> None:
    late.dag_run = None
    late.next_try(audience=recipients(2), max_lateness=HOUR)
    assert all_reached_once(with_lookup, 2)


def test_begun_task_goes_on_however_late(with_lookup: SandboxProcess, late: LateCampaign) -> None:
    late.dag_run = due(timedelta(minutes=1))
    with_lookup.add_fault(kind="throttle", seconds=0, after=1, times=9)
    late.next_try("stops", audience=recipients(2, 2), max_lateness=HOUR)
    with_lookup.clear_faults()
    late.dag_run = due(timedelta(days=5))
    late.next_try(audience=recipients(2, 2), max_lateness=HOUR)
    assert all_reached_once(with_lookup, 4)


def test_retry_of_a_task_that_never_sent_is_skipped(with_lookup: SandboxProcess, late: LateCampaign) -> None:
    late.dag_run = due(timedelta(minutes=1))
    late.next_try("fails", audience=[{"no": "recipient"}], max_lateness=HOUR)
    late.dag_run = due(timedelta(days=5))
    skipped(late, audience=Unread())
    assert executions(with_lookup) == {}


def test_late_try_without_history_warns_that_earlier_tries_may_have_sent(
    with_lookup: SandboxProcess, late: LateCampaign
) -> None:
    late.try_number = 1
    message = skipped(late, audience=Unread())
    assert (
        "This is try 2, and earlier ones may have sent something: the ledger knows nothing of them" in message
    )
    assert "read their logs first" in message


def test_cleared_late_task_that_had_sent_sends_again_when_asked_to(
    with_lookup: SandboxProcess, late: LateCampaign
) -> None:
    late.dag_run = due(timedelta(minutes=1))
    late.next_try(audience=recipients(2), max_lateness=HOUR)
    late.clear()
    late.dag_run = due(timedelta(days=5))
    late.next_try(audience=recipients(2), max_lateness=HOUR)
    assert all_reached_once(with_lookup, 2)


def test_other_run_of_the_campaign_does_not_make_a_late_one_begun(
    with_lookup: SandboxProcess, late: LateCampaign
) -> None:
    if late.store is not None:
        pytest.skip("a key of its own needs a ledger in a database")
    late.dag_run = due(timedelta(minutes=1))
    late.next_try(audience=recipients(2), max_lateness=HOUR, campaign_key="spring")
    context = {**late.first_context("submit", run_id="another"), "dag_run": due(timedelta(days=5))}
    late.run.context = lambda *_, **__: context
    with pytest.raises(AirflowSkipException, match="nothing was read"):
        late.run.execute(late.operator(max_lateness=HOUR, audience=Unread(), campaign_key="spring"))
    assert all_reached_once(with_lookup, 2)


def test_plan_is_shown_however_late(with_lookup: SandboxProcess, late: LateCampaign) -> None:
    late.next_try(audience=recipients(2), max_lateness=HOUR, validate_only=True)
    assert late.run.counts() == {"audience": 2, "not_sent": 2}
    assert executions(with_lookup) == {}
