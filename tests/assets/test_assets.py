"""Campaigns as assets: their URIs, and the extra of their events."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_lingyang.assets.lingyang import add_to_outlet_events, sanitize_uri
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run

PEOPLE = [{"biz_id": "A1", "phone_number": "10000000001", "input_params": {}, "output_params": {}}]


@pytest.mark.parametrize(
    ("uri", "one_spelling"),
    [
        ("lingyang://plans/123", "lingyang://plans/123"),
        ("lingyang://plans/0123/", "lingyang://plans/123"),
        ("lingyang://plans/123/answers", "lingyang://plans/123/answers"),
    ],
)
def test_asset_uri_is_canonical(uri: str, one_spelling: str) -> None:
    assert Asset(uri).uri == one_spelling


@pytest.mark.parametrize(
    "uri",
    ["lingyang://plan/123", "lingyang://plans", "lingyang://plans/spring", "lingyang://plans/1/2", "lingyang:///plans/1",
     "lingyang://plans/1/answer", "lingyang://plans/１", "lingyang://plans/0", "lingyang://plans/1?x=1",
     "lingyang://plans/1#x"],
)  # fmt: skip
def test_asset_uri_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="must be lingyang://plans/<plan_id>"):
        sanitize_uri(urlsplit(uri))


class Events:
    """As much of Airflow's as is used: an event with its extra for each asset."""

    class Event:
        def __init__(self) -> None:
            self.extra: dict[str, Any] = {"mine": 1}

    def __init__(self) -> None:
        self.events: dict[str, Events.Event] = {}

    def __getitem__(self, asset: Any) -> Event:
        # Airflow 3.0's assets cannot be hashed.
        return self.events.setdefault(asset.uri, Events.Event())


def test_events_hold_counts_and_aliases_are_skipped() -> None:
    asset, alias, events = Asset("a"), AssetAlias("b"), Events()
    context: Any = {"outlets": [asset, alias], "outlet_events": events}
    campaign = {"campaign_key": "k", "plan_id": 1, "reasons": {"rejected": {"a long text": 1}}}
    add_to_outlet_events(context, campaign=campaign, counts={"accepted": 2}, table="t")
    assert {uri: event.extra for uri, event in events.events.items()} == {
        "a": {"mine": 1, "campaign_key": "k", "plan_id": 1, "counts": {"accepted": 2}, "table": "t"}
    }


def test_outlet_without_event_does_not_fail_the_task(sandbox: SandboxProcess, run: Run) -> None:
    class OnlyOfAssets(Events):
        def __getitem__(self, asset: Any) -> Events.Event:
            if not isinstance(asset, Asset):
                raise TypeError("Key should be either an asset or an asset alias")
            return super().__getitem__(asset)

    asset, file, events = Asset("a"), object(), OnlyOfAssets()
    task = LingyangSubmitBatchOperator(task_id="submit", plan_id=1, audience=PEOPLE)
    context: Any = {**run.context("submit"), "outlets": [file, asset], "outlet_events": events}
    assert task.execute(context)["counts"]["accepted"] == 1
    assert list(events.events) == ["a"]


def test_validated_campaign_makes_no_event(sandbox: SandboxProcess, run: Run) -> None:
    events = Events()
    for validate_only, left in ((False, 1), (True, 0)):
        task = LingyangSubmitBatchOperator(
            task_id="submit", plan_id=1, audience=PEOPLE, validate_only=validate_only, outlets=[Asset("a")]
        )
        context: Any = {**run.context("submit"), "outlets": task.outlets, "outlet_events": events}
        task.execute(context)
        # Airflow makes an event of each outlet that the task has when it ends.
        assert len(task.outlets) == left
