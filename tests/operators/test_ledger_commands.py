"""What a task does after a person has changed its ledger by a command. The gateway's record is the judge."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.campaigns import (
    LOST,
    NOT_DONE,
    Campaign,
    all_reached_once,
    executions,
    recipients,
    row,
    sent,
)
from tests.ledger.conftest import Command

LATER = ("--before", "2099-01-01")


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shared: Callable[[str], Campaign]
) -> Command:
    """On the ledger of ``shared`` and ``own_run``."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    return Command(capsys)


@pytest.fixture
def own_run(command: Command, run: Run) -> Campaign:
    """A campaign of one run."""
    return Campaign(run, {"ledger_conn_id": "ledger"}, None)


@pytest.mark.parametrize(
    ("fault", "word", "again"), [(LOST, "accepted", []), (NOT_DONE, "not_executed", [["B1", "B2"]])]
)
def test_the_next_try_takes_a_word_from_the_ledger(
    without_lookup: SandboxProcess,
    own_run: Campaign,
    command: Command,
    fault: dict[str, Any],
    word: str,
    again: list[list[str]],
) -> None:
    without_lookup.add_fault(**fault)
    own_run.next_try("fails", audience=recipients(2, 2))
    (shown,) = command.json("show", "--plan-id", "123")
    (request,) = shown["requests_in_doubt"]
    assert (request["biz_ids"], request["may_be_sent"]) == (["B1", "B2"], False)
    campaign = ("--campaign-key", shown["campaign_key"], "--plan-id", "123")
    command.json("settle", *campaign, f"{request['settle']}={word}", "--yes")
    own_run.next_try(audience=recipients(2, 2))
    assert sent(without_lookup) == [["B1", "B2"], *again, ["B3", "B4"]]
    assert all_reached_once(without_lookup, 4)
    manifest = own_run.run.manifest()
    assert manifest["in_doubt"] == []


@pytest.mark.parametrize("on_clear", ["reuse", "resubmit"])
def test_a_cleared_task_whose_campaign_was_pruned_sends_nothing(
    with_lookup: SandboxProcess, own_run: Campaign, command: Command, on_clear: str
) -> None:
    own_run.next_try(audience=recipients(2))
    before = len(with_lookup.record()["requests"])
    (pruned,) = command.json("prune", *LATER, "--yes")
    assert (pruned["what"], pruned["recipients"]) == ("deleted", 2)
    own_run.clear()
    for _ in range(2):
        message = own_run.next_try("fails", audience=recipients(3), on_clear=on_clear)
        assert "nothing knows which were contacted, and nothing is sent" in message
    # Nothing was asked, either.
    assert len(with_lookup.record()["requests"]) == before
    assert executions(with_lookup) == {"B1": 1, "B2": 1}


@pytest.mark.parametrize(
    ("other", "ends", "pruned"),
    [
        ({"audience": [row(4, "1")]}, "execute", "deleted"),
        ({"audience": []}, "stops", "deleted"),
        ({"audience": [], "on_empty": "succeed"}, "execute", "deleted"),
        ({"audience": [], "on_empty": "fail"}, "fails", "stays: a task has not finished its part"),
        ({"audience": [row(4, "1", phone_number="x")]}, "fails", "stays: a task has not finished its part"),
    ],
)
def test_a_mapped_campaign_is_over_when_each_instance_has_finished(
    without_lookup: SandboxProcess,
    instances: Callable[..., Mapping[int, Campaign]],
    command: Command,
    other: dict[str, Any],
    ends: str,
    pruned: str,
) -> None:
    shards = instances()
    shards[1].next_try(ends, **other)
    shards[0].next_try(audience=recipients(2))
    (found,) = command.json("prune", *LATER, "--yes")
    assert found["what"] == pruned
    if ends == "fails":
        shards[1].next_try(audience=[row(4, "1")])
        assert executions(without_lookup) == {"B1": 1, "B2": 1, "B4": 1}
        (found,) = command.json("prune", *LATER, "--yes")
        assert found["what"] == "deleted"


def test_a_later_run_contacts_no_recipient_that_a_pruned_one_has(
    with_lookup: SandboxProcess, shared: Callable[[str], Campaign], command: Command
) -> None:
    first = shared("monday")
    first.next_try(audience=recipients(2))
    (pruned,) = command.json("prune", *LATER, "--yes")
    assert (pruned["what"], pruned["recipients"]) == ("erased", 2)
    first.clear()
    first.next_try(audience=recipients(3))
    shared("tuesday").next_try(audience=recipients(4))
    assert all_reached_once(with_lookup, 4)


def test_a_forgotten_recipient_is_not_contacted_again(
    with_lookup: SandboxProcess, shared: Callable[[str], Campaign], command: Command
) -> None:
    shared("monday").next_try(audience=recipients(2))
    (found,) = command.json("forget", "--biz-id", "B1", "--yes")
    assert found["recipients"] == 1
    shared("tuesday").next_try(audience=recipients(3))
    assert all_reached_once(with_lookup, 3)
    assert "B1" not in json.dumps(command.json("show", "--plan-id", "123", "--biz-ids"))


def test_ids_that_were_derived_are_found_by_the_contact(
    with_lookup: SandboxProcess,
    shared: Callable[[str], Campaign],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    audience = [each | {"cms_user_id": "77"} for each in recipients(2)]
    for each in audience:
        del each["biz_id"]
    shared("monday").next_try(audience=audience)
    contact = {"phone_number": audience[0]["phone_number"], "cms_user_id": "77"}
    for given, count in ((contact, 1), ({"phone_number": contact["phone_number"]}, 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(given)))
        assert sum(one["recipients"] for one in command.json("forget", "--contact")) == count
