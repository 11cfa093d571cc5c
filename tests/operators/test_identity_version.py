"""A campaign that an earlier version of this package began keeps its derived ids; a new one knows more spellings."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_lingyang.ledger.base import Header
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import Campaign, executions, sent

SPELLINGS = ["8615400000001", "015400000002", "+86 154-0000-0003", "15400000004"]
OF_VERSION_1 = ["8615400000001", "015400000002", "15400000003", "15400000004"]


def audience(spellings: list[str]) -> list[dict[str, Any]]:
    return [{"phone_number": phone, "input_params": {}, "output_params": {"a": ""}} for phone in spellings]


def as_an_earlier_version_left_it(campaign: Campaign) -> None:
    """Take the field out of the ledger's header."""
    if campaign.store is not None:
        for key, text in campaign.store.values.items():
            value = json.loads(text)
            if isinstance(value, dict) and "header" in value:
                assert value["header"].pop("identity_version") == 1
                campaign.store.values[key] = json.dumps(value)
        return
    with closing(sqlite3.connect(BaseHook.get_connection("ledger").host)) as db:
        db.execute("UPDATE lingyang_ledger_campaign SET identity_version = NULL")
        db.commit()


@pytest.mark.parametrize("version", [1, 2])
def test_a_campaign_keeps_the_ids_that_it_began_with(
    version: int, with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Header.of
    with_lookup.add_fault(kind="throttle", seconds=0, after=1, times=9)
    with monkeypatch.context() as patch:
        if version == 1:
            patch.setattr(
                Header, "of", lambda **given: Header(**asdict(made(**given)) | {"identity_version": 1})
            )
        campaign.next_try("stops", audience=audience(SPELLINGS), batch_size=2)
    if version == 1:
        as_an_earlier_version_left_it(campaign)
    with_lookup.clear_faults()
    campaign.next_try(audience=audience(SPELLINGS), batch_size=2)
    assert campaign.run.counts() == {"audience": 4, "accepted": 2, "already_accepted": 2}
    assert list(executions(with_lookup).values()) == [1, 1, 1, 1]
    # Other spellings of the same numbers are other ids under version 1, as they always were, and the same under 2.
    campaign.clear()
    campaign.next_try(audience=audience(OF_VERSION_1), batch_size=2)
    assert campaign.run.counts() == {"audience": 4, "already_accepted": 4}
    assert len(executions(with_lookup)) == len({biz_id for some in sent(with_lookup) for biz_id in some}) == 4


def test_two_spellings_in_one_audience_are_an_error_before_sending_or_one_recipient(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    rows = audience(["15400000001", "+8615400000001", "8615400000001"])
    text = campaign.next_try("fails", audience=rows)
    assert "row 2 has the contact of row 1; row 3 has the contact of row 1" in text
    assert "in whatever spelling" in text
    assert sent(with_lookup) == []
    campaign.next_try(audience=rows, on_duplicate_contact="keep_first")
    assert len(executions(with_lookup)) == 1
