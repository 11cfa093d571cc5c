"""A person's word about a request in doubt: about one intent, once. The gateway's record is the judge."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.gateway.errors import AnswerLostError
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.lookup.result import LookupAnswer
from airflow_provider_lingyang.operators import ledgers
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import (
    LOST,
    NOT_DONE,
    Campaign,
    all_reached_once,
    connect,
    empty,
    executions,
    recipients,
    sent,
)


def doubt(campaign: Campaign) -> dict[str, Any]:
    (found,) = campaign.run.manifest()["in_doubt"]
    return {"settle": found["task_unique_code"], **found}


def campaign_key(campaign: Campaign) -> str:
    return str(campaign.run.manifest()["campaign_key"])


# --- one word, one intent -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(lambda code: {code: "not_executed"}, id="the word"),
        pytest.param(lambda code: {f"{code}#1": "not_executed"}, id="with its number"),
        pytest.param(lambda code: json.dumps({code.upper(): "not_executed"}), id="as JSON"),
        pytest.param(lambda code: {code: "not_executed", f"{code}#2": "not_executed"}, id="and a guess"),
        pytest.param(
            lambda code: {f"{code}#{n}": "not_executed" for n in (1, 2, 3, 5)}, id="and several guesses"
        ),
        pytest.param(lambda code: {code: "not_executed", f"{code}#2": "accepted"}, id="and another guess"),
    ],
)
def test_settle_left_over_is_not_applied_to_the_next_request_with_its_code(
    without_lookup: SandboxProcess, campaign: Campaign, left: Any, caplog: pytest.LogCaptureFixture
) -> None:
    without_lookup.add_fault(**NOT_DONE)
    campaign.next_try("fails", audience=recipients(2))
    first = doubt(campaign)
    assert first["settle"] == first["task_unique_code"]
    settle = left(first["task_unique_code"])
    without_lookup.add_fault(**LOST)
    message = campaign.next_try("fails", audience=recipients(2), settle=settle)
    second = doubt(campaign)
    assert second["task_unique_code"] == first["task_unique_code"]
    assert second["settle"].startswith(first["task_unique_code"] + "#")
    assert f'settle={{"{second["settle"]}": "accepted"}}' in message
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            message = campaign.next_try("fails", audience=recipients(2), settle=settle)
        assert "settle names none of them" in message
        (warning,) = [
            text for text in caplog.messages if text.startswith("settle names what is not in doubt")
        ]
        assert f"{first['task_unique_code']} (in doubt now is {second['settle']})" in warning
        assert doubt(campaign)["settle"] == second["settle"]
    assert len(sent(without_lookup)) == 2
    campaign.next_try(audience=recipients(2), settle={second["settle"]: "accepted"})
    assert all_reached_once(without_lookup, 2)


def test_third_request_with_a_code_has_its_own_settle_key(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    without_lookup.add_fault(**NOT_DONE, times=2)
    campaign.next_try("fails", audience=recipients(2))
    for number in (1, 2):
        settle = {doubt(campaign)["settle"]: "not_executed"}
        if number == 2:
            assert list(settle) == [doubt(campaign)["task_unique_code"] + "#2"]
        campaign.next_try("fails" if number == 1 else "execute", audience=recipients(2), settle=settle)
    assert all_reached_once(without_lookup, 2)


def test_settle_already_applied_is_named_and_changes_nothing(
    without_lookup: SandboxProcess, campaign: Campaign, caplog: pytest.LogCaptureFixture
) -> None:
    without_lookup.add_fault(**LOST)
    campaign.next_try("fails", audience=recipients(2, 2))
    settle = {doubt(campaign)["settle"]: "accepted", "0f3a": "not_executed", "*": "not_executed"}
    campaign.next_try(audience=recipients(2, 2), settle=settle)
    campaign.clear()
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        campaign.next_try(audience=recipients(2, 2), settle=settle)
    assert len([text for text in caplog.messages if text.startswith("settle names")]) == 1
    assert all_reached_once(without_lookup, 4)


def test_a_new_generation_has_codes_of_its_own(without_lookup: SandboxProcess, campaign: Campaign) -> None:
    without_lookup.add_fault(**NOT_DONE)
    campaign.next_try("fails", audience=recipients(2))
    settle = {doubt(campaign)["settle"]: "not_executed"}
    campaign.next_try(audience=recipients(2), settle=settle)
    campaign.clear()
    without_lookup.add_fault(**LOST)
    campaign.next_try("fails", audience=recipients(2), settle=settle, on_clear="resubmit")
    campaign.next_try("fails", audience=recipients(2), settle=settle, on_clear="resubmit")
    assert executions(without_lookup) == {"B1": 2, "B2": 2}


# --- where a look-up is possible ------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_look_up_result_outweighs_settle(
    sandbox: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, reached: bool, fails: bool
) -> None:
    connect(sandbox, monkeypatch, result_query=None)
    sandbox.add_fault(**(LOST if reached else NOT_DONE))
    campaign.next_try("fails", audience=recipients(2))
    settle = {doubt(campaign)["settle"]: "not_executed"}
    connect(sandbox, monkeypatch)
    if fails:

        def gone(*_: Any, **__: Any) -> Any:
            raise AnswerLostError("gone")

        monkeypatch.setattr(LingyangHook, "look_up", gone)
    campaign.next_try(audience=recipients(2), settle=settle)
    # Where nothing can be looked up the word is all there is.
    times = 2 if reached and fails else 1
    assert executions(sandbox) == {"B1": times, "B2": times}


def test_ambiguous_result_outweighs_settle(
    sandbox: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(sandbox, monkeypatch, result_query=None)
    sandbox.add_fault(**LOST)
    campaign.next_try("fails", audience=recipients(2))
    settle = {doubt(campaign)["settle"]: "not_executed"}
    connect(sandbox, monkeypatch)

    def undated(self: Any, biz_ids: Any) -> LookupAnswer:
        result = TaskResult("B1", created_at="1970-01-01 00:00:00")
        return LookupAnswer({"B1": [result]}, frozenset(set(biz_ids) - {"B1"}))

    monkeypatch.setattr(LingyangHook, "look_up", undated)
    campaign.next_try("stops", audience=recipients(2), settle=settle)
    assert campaign.run.counts() == {"audience": 2, "in_doubt": 1, "not_sent": 1}
    assert executions(sandbox) == {"B1": 1, "B2": 1}


def test_settle_is_not_applied_after_cancellation(
    sandbox: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(sandbox, monkeypatch, result_query=None)
    sandbox.add_fault(**LOST)
    campaign.next_try("fails", audience=recipients(2))
    settle = {doubt(campaign)["settle"]: "not_executed"}
    connect(sandbox, monkeypatch)
    operator = campaign.operator(audience=recipients(2), settle=settle)

    def told(*_: Any, **__: Any) -> Any:
        operator.on_kill()
        return LookupAnswer({}, frozenset())

    with monkeypatch.context() as patched:
        patched.setattr(LingyangHook, "look_up", told)
        campaign.next_try("stops", operator=operator)
    assert doubt(campaign)["settle"] in settle
    campaign.next_try(audience=recipients(2), settle=settle)
    assert all_reached_once(sandbox, 2)


# --- a lost ledger --------------------------------------------------------------------------------------------


def lose(without_lookup: SandboxProcess, campaign: Campaign, *, fault: dict[str, Any] = NOT_DONE) -> str:
    """Let the first try leave a request in doubt, and the second find the ledger lost; returns what is asked."""
    without_lookup.add_fault(**fault)
    campaign.next_try("fails", audience=recipients(2))
    empty(campaign)
    message = campaign.next_try("fails", audience=recipients(2))
    assert "Earlier tries may have sent something. What to do now" in message
    (line,) = [part for part in message.split("settle=") if part.startswith("{")]
    (key,) = json.loads(line[: line.index("}") + 1])
    assert doubt(campaign)["settle"] == key
    return str(key)


def test_settle_for_a_lost_ledger_is_applied_in_the_next_try(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    key = lose(without_lookup, campaign)
    assert key == f"*#2 {campaign_key(campaign)}"
    campaign.next_try(audience=recipients(2), settle={key: "not_executed"})
    assert all_reached_once(without_lookup, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda key: "*", id="bare"),
        pytest.param(lambda key: key.replace("*#2", "*#1"), id="of an earlier try"),
        pytest.param(lambda key: key.replace("*#2", "*#3"), id="of this try"),
        pytest.param(lambda key: key + "x", id="of another campaign"),
        pytest.param(lambda key: key.upper(), id="of a campaign in capitals"),
    ],
)
def test_other_settle_values_are_not_applied_to_a_lost_ledger(
    without_lookup: SandboxProcess, campaign: Campaign, wrong: Any
) -> None:
    key = lose(without_lookup, campaign)
    message = campaign.next_try("fails", audience=recipients(2), settle={wrong(key): "not_executed"})
    assert f'settle={{"*#3 {campaign_key(campaign)}": "not_executed"}}' in message
    assert len(sent(without_lookup)) == 1


def test_settle_for_a_lost_ledger_is_not_applied_in_later_tries(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    key = lose(without_lookup, campaign)
    campaign.next_try("fails", audience=recipients(2))
    campaign.next_try("fails", audience=recipients(2), settle={key: "not_executed"})
    # Nor where the try that it was for has sent, and its ledger is lost as well.
    key = f"*#4 {campaign_key(campaign)}"
    without_lookup.add_fault(**LOST)
    campaign.next_try("fails", audience=recipients(2), settle={key: "not_executed"})
    empty(campaign)
    for _ in range(2):
        campaign.next_try("fails", audience=recipients(2), settle={key: "not_executed"})
    assert all_reached_once(without_lookup, 2)


def test_settle_for_a_lost_ledger_is_not_applied_after_a_deferral(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    key = lose(without_lookup, campaign)
    settle = {key: "not_executed"}
    without_lookup.add_fault(kind="throttle", seconds=31_062, after=1)
    campaign.next_try("waits", audience=recipients(2, 2), settle=settle)
    empty(campaign)
    without_lookup.clear_faults()
    with pytest.raises(Exception, match="the ledger knows nothing of an earlier one"):
        campaign.resume(campaign.operator(audience=recipients(2, 2), settle=settle))
    assert executions(without_lookup) == {"B1": 1, "B2": 1}


def test_settle_from_before_the_ledger_was_lost_is_applied_to_no_later_request(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    without_lookup.add_fault(**NOT_DONE)
    campaign.next_try("fails", audience=recipients(2))
    code = doubt(campaign)["settle"]
    settle = {code: "not_executed"}
    empty(campaign)
    campaign.next_try("fails", audience=recipients(2), settle=settle)
    settle[f"*#2 {campaign_key(campaign)}"] = "not_executed"
    without_lookup.add_fault(**LOST)
    campaign.next_try("fails", audience=recipients(2), settle=settle)
    assert doubt(campaign)["settle"] == f"{code}#2"
    campaign.next_try("fails", audience=recipients(2), settle=settle)
    assert len(sent(without_lookup)) == 2
    campaign.next_try(audience=recipients(2), settle={f"{code}#2": "accepted"})
    assert all_reached_once(without_lookup, 2)


def test_recipient_found_is_accepted_despite_settle_for_a_lost_ledger(
    without_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = lose(without_lookup, campaign, fault=LOST)
    connect(without_lookup, monkeypatch)
    campaign.next_try(audience=recipients(2, 2), settle={key: "not_executed"})
    assert campaign.run.counts() == {"audience": 4, "accepted": 2, "already_accepted": 2}
    assert all_reached_once(without_lookup, 4)


def test_ambiguous_result_outweighs_settle_for_a_lost_ledger(
    without_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = lose(without_lookup, campaign, fault=LOST)
    connect(without_lookup, monkeypatch)

    def undated(self: Any, biz_ids: Any) -> LookupAnswer:
        result = TaskResult("B1", created_at="no date")
        return LookupAnswer({"B1": [result]}, frozenset(set(biz_ids) - {"B1"}))

    with monkeypatch.context() as patched:
        patched.setattr(LingyangHook, "look_up", undated)
        message = campaign.next_try("fails", audience=recipients(2), settle={key: "not_executed"})
    assert "found 1 recipient(s)" in message
    assert all_reached_once(without_lookup, 2)
    # A look-up that can be placed is the way out.
    campaign.next_try(audience=recipients(2))
    assert all_reached_once(without_lookup, 2)


def test_settle_for_a_lost_ledger_is_applied_when_the_look_up_fails(
    without_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = lose(without_lookup, campaign)
    connect(without_lookup, monkeypatch)
    without_lookup.add_fault(kind="http", status=500, method="lookup", times=None)
    campaign.next_try(audience=recipients(2), settle={key: "not_executed"})
    assert all_reached_once(without_lookup, 2)


@pytest.mark.parametrize("discards", [True, False])
def test_a_lost_ledger_is_explained_with_what_to_do_now_and_next_time(
    without_lookup: SandboxProcess,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    discards: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ledgers, "clear_discards_task_state", lambda: discards)
    campaign.next_try(audience=recipients(2))
    empty(campaign)
    campaign.clear()
    with caplog.at_level(logging.INFO):
        message = campaign.next_try("fails", audience=recipients(2))
    assert message.startswith("nothing was sent by this try: this is try 2 of the task")
    in_task_state = campaign.store is not None
    assert ("*Keep task state and resume*" in message) is (discards and in_task_state)
    assert ("ledger_conn_id" in message) is in_task_state
    # First what to find out, then the line for the case that nothing was sent.
    assert message.index("find out in the Lingyang console") < message.index('settle={"*#2')
    home = [text for text in caplog.messages if text.startswith("The ledger is ")]
    assert any("better have it in a database" in text for text in home) is (discards and in_task_state)
    assert all_reached_once(without_lookup, 2)


# --- other settings -------------------------------------------------------------------------------------------


@pytest.fixture
def wrong_host() -> Iterator[SandboxProcess]:
    with SandboxProcess("--answer-after", "0") as sandbox:
        yield sandbox


@pytest.mark.parametrize("sees", [True, False])
def test_wrong_host_can_be_corrected_after_settle(
    with_lookup: SandboxProcess,
    wrong_host: SandboxProcess,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    sees: bool,
) -> None:
    query: dict[str, Any] = {} if sees else {"result_query": None}
    connect(wrong_host, monkeypatch, result_query=None)
    wrong_host.add_fault(**NOT_DONE)
    campaign.next_try("fails", audience=recipients(2, 2))
    key = doubt(campaign)["settle"]
    connect(with_lookup, monkeypatch, **query)
    for settle in ({}, {key: "accepted"}, {f"{key}#2": "not_executed"}, {"*": "not_executed"}):
        message = campaign.next_try("fails", audience=recipients(2, 2), settle=settle)
        assert "the campaign was begun with another host" in message
        assert f'settle={{"{key}": "not_executed"}}' in message
    assert with_lookup.record()["requests"] == []
    campaign.next_try(audience=recipients(2, 2), settle={key: "not_executed"})
    assert all_reached_once(with_lookup, 4)
    # A look-up there proves nothing about what was sent elsewhere.
    assert len(with_lookup.record()["requests"]) == len(sent(with_lookup)) == 2


@pytest.mark.parametrize("reached", ["accepted", "rejected"])
def test_a_host_is_not_changed_once_a_recipient_was_reached(
    without_lookup: SandboxProcess,
    wrong_host: SandboxProcess,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    reached: str,
) -> None:
    connect(wrong_host, monkeypatch, result_query=None)
    if reached == "rejected":
        wrong_host.add_fault(kind="refuse")
    wrong_host.add_fault(**NOT_DONE, after=1 if reached == "accepted" else 0)
    campaign.next_try("fails", audience=recipients(2, 2))
    key = doubt(campaign)["settle"]
    connect(without_lookup, monkeypatch, result_query=None)
    message = campaign.next_try("fails", audience=recipients(2, 2), settle={key: "not_executed"})
    assert "Put the old one back" in message
    assert "settle=" not in message
    assert sent(without_lookup) == []


@pytest.mark.parametrize("change", [{"password": "typo-secret"}, {"login": "typo"}])
def test_wrong_app_can_be_corrected_after_settle(
    without_lookup: SandboxProcess,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
) -> None:
    right = without_lookup.connection(timeout=2, lookup_settle=2, result_query=None)
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(right | change))
    # Derived ids depend on the secret, so nothing of the audience is known under its old ids.
    audience = [{k: v for k, v in one.items() if k != "biz_id"} for one in recipients(2, 2)]

    def gone(*_: Any, **how: Any) -> Any:
        # The sandbox checks the signature before any fault fires.
        how["before_send"]()
        raise AnswerLostError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(GatewayClient, "submit_struct", gone)
        campaign.next_try("fails", audience=audience)
    key = doubt(campaign)["settle"]
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(right))
    campaign.next_try("fails", audience=audience)
    assert executions(without_lookup) == {}
    campaign.next_try(audience=audience, settle={key: "not_executed"})
    assert sorted(executions(without_lookup).values()) == [1, 1, 1, 1]


# --- two runs -------------------------------------------------------------------------------------------------


def test_settle_is_applied_once_by_two_runs_of_one_campaign(
    sandbox: SandboxProcess, shared: Callable[[str], Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(sandbox, monkeypatch, result_query=None)
    one, two = shared("one"), shared("two")
    sandbox.add_fault(**NOT_DONE)
    one.next_try("fails", audience=recipients(2))
    settle = {doubt(one)["settle"]: "not_executed"}
    sandbox.add_fault(**LOST)
    two.next_try("fails", audience=recipients(2), settle=settle)
    assert doubt(two)["settle"] == f"{doubt(one)['settle']}#2"
    for run in (one, two, one):
        run.next_try("fails", audience=recipients(2), settle=settle)
        assert doubt(run)["settle"].endswith("#2")
    assert len(sent(sandbox)) == 2
    one.next_try(audience=recipients(2), settle={doubt(one)["settle"]: "accepted"})
    two.next_try(audience=recipients(2), settle=settle)
    assert all_reached_once(sandbox, 2)


def test_settle_for_a_lost_ledger_is_applied_only_in_the_run_that_asked(
    sandbox: SandboxProcess, shared: Callable[[str], Campaign], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(sandbox, monkeypatch, result_query=None)
    one, two = shared("one"), shared("two")
    one.next_try(audience=recipients(2))
    two.try_number = 2
    empty(one)
    two.try_number = 1
    two.next_try("fails", audience=recipients(2))
    settle = {"*#2 spring": "not_executed"}
    one.try_number = 2
    message = one.next_try("fails", audience=recipients(2), settle=settle)
    assert '"*#3 spring"' in message
    assert all_reached_once(sandbox, 2)
