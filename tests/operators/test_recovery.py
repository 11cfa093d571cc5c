"""What a later try does with what earlier ones left, in both kinds of ledger. The gateway's record is the judge."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_lingyang.cancellation import GRACE_PERIOD
from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.delivery import campaign as delivery_campaign
from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.errors import AnswerLostError
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.ledger.sql import SqlLedger
from airflow_provider_lingyang.ledger.task_state import TaskStateLedger
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from airflow_provider_lingyang.storage.query import QueryError
from tests.conftest import Run, TaskInstance
from tests.helpers.campaigns import (
    LOST,
    NOT_DONE,
    Campaign,
    all_reached_once,
    connect,
    empty,
    executions,
    recipients,
    row,
    sent,
)
from tests.helpers.clock import SkippingClock


def test_retry_resumes_after_a_gateway_outage(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_lookup.add_fault(kind="throttle", seconds=0, after=2, times=9)
    message = campaign.next_try("stops", audience=recipients(3, 3, 3))
    assert "was not executed" in message
    assert "the next try, or Clear, goes on with the others" in message
    assert campaign.run.counts() == {"audience": 9, "accepted": 3, "not_sent": 6}
    with_lookup.clear_faults()
    campaign.next_try(audience=recipients(3, 3, 3))
    assert campaign.run.counts() == {"audience": 9, "accepted": 6, "already_accepted": 3}
    assert sorted(campaign.run.xcom["submit", "biz_ids"]) == [f"B{number}" for number in range(1, 10)]
    assert all_reached_once(with_lookup, 9)
    assert with_lookup.record()["order_violations"] == []


def test_try_after_success_sends_no_request(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    campaign.next_try(audience=recipients(3, 3))
    campaign.clear()
    manifest = campaign.next_try(audience=recipients(3, 3))
    assert campaign.run.counts() == {"audience": 6, "already_accepted": 6}
    assert manifest["batches"] == []
    assert all_reached_once(with_lookup, 6)


def test_changed_audience_repeats_no_recipient(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    with_lookup.add_fault(kind="throttle", seconds=0, after=2, times=9)
    campaign.next_try("stops", audience=recipients(3, 3, 3))
    with_lookup.clear_faults()
    changed = [
        *recipients(3, 3, 3)[1:],  # B1, accepted, vanished
        row(10, "1"),  # new, late: batch 2 has begun... or not; batch 1 is complete
        row(11, "4"),
    ]
    changed[4] = changed[4] | {"user_name": "edited"}
    random.Random(7).shuffle(changed)
    campaign.next_try(audience=changed, batch_size=5)
    assert campaign.run.counts() == {"audience": 10, "accepted": 8, "already_accepted": 2, "vanished": 1}
    assert max(executions(with_lookup).values()) == 1
    assert sorted(executions(with_lookup)) == sorted(f"B{n}" for n in range(1, 12))


def test_contact_already_reached_is_left_out_in_any_row_order(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    one_contact = [row(1), row(2, phone_number=row(1)["phone_number"]), row(3)]
    with_lookup.add_fault(kind="permission", after=1)
    campaign.next_try("fails", audience=one_contact, on_duplicate_contact="keep_first", batch_size=1)
    campaign.next_try(audience=one_contact[::-1], on_duplicate_contact="keep_first", batch_size=1)
    assert executions(with_lookup) == {"B1": 1, "B3": 1}
    assert campaign.run.counts() == {"audience": 3, "accepted": 1, "not_sent": 2, "vanished": 1}
    campaign.clear()
    campaign.next_try(audience=one_contact, on_duplicate_contact="keep_first", batch_size=1)
    assert campaign.run.counts() == {"audience": 3, "already_accepted": 2, "not_sent": 1}
    assert executions(with_lookup) == {"B1": 1, "B3": 1}


def test_rows_that_come_after_a_later_batch_left_go_first_and_are_counted_as_late(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    campaign.next_try(audience=recipients(2, 2))
    campaign.clear()
    campaign.next_try(audience=[row(6, "3"), *recipients(2, 2), row(5, "1")])
    assert campaign.run.counts() == {"audience": 6, "accepted": 2, "already_accepted": 4, "late": 1}
    assert sent(with_lookup)[-2:] == [["B5"], ["B6"]]


def test_an_ambiguous_answer_is_looked_up_in_the_same_try(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    with_lookup.add_fault(**LOST, after=1)
    campaign.next_try(audience=recipients(2, 2, 2))
    assert campaign.run.counts() == {"audience": 6, "accepted": 6}
    assert all_reached_once(with_lookup, 6)


def test_request_absent_from_the_look_up_is_sent_again_unchanged(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    with_lookup.add_fault(**NOT_DONE, after=1)
    campaign.next_try(audience=recipients(2, 2, 2))
    assert campaign.run.counts() == {"audience": 6, "accepted": 6}
    assert sent(with_lookup) == [["B1", "B2"], ["B3", "B4"], ["B3", "B4"], ["B5", "B6"]]
    assert all_reached_once(with_lookup, 6)
    assert with_lookup.record()["order_violations"] == []


def test_only_recipients_not_executed_are_sent_again(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    with_lookup.add_fault(**NOT_DONE, after=1)
    campaign.next_try(audience=recipients(7))
    assert [ids for ids in sent(with_lookup) if "B3" in ids] == [["B3", "B4"]] * 2
    assert len(sent(with_lookup)) == 5
    assert all_reached_once(with_lookup, 7)


def test_a_look_up_counts_only_when_new_tasks_must_be_visible(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    with_lookup.add_fault(kind="late_index", seconds=0.2)
    with_lookup.add_fault(**LOST, after=1)
    campaign.next_try(audience=recipients(2, 2))
    assert all_reached_once(with_lookup, 4)


@pytest.mark.parametrize("fault", [LOST, NOT_DONE])
def test_request_without_a_look_up_stops_the_campaign_until_settled(
    without_lookup: SandboxProcess, campaign: Campaign, fault: dict[str, Any]
) -> None:
    without_lookup.add_fault(**fault, after=1)
    message = campaign.next_try("fails", audience=recipients(2, 2, 2))
    ((code, tasks),) = [(d["task_unique_code"], d["tasks"]) for d in campaign.run.manifest()["in_doubt"]]
    assert f'settle={{"{code}": "accepted"}}' in message
    assert tasks == 2
    message = campaign.next_try("fails", audience=recipients(2, 2, 2))
    assert "of earlier tries are in doubt, so nothing was sent" in message
    assert f'settle={{"{code}": "accepted"}}' in message
    assert campaign.run.counts() == {"audience": 6, "already_accepted": 2, "in_doubt": 2, "not_sent": 2}
    assert len(sent(without_lookup)) == 2
    truth = "accepted" if fault is LOST else "not_executed"
    campaign.clear()
    # Also with another batch_size: those who were in a request stay together.
    campaign.next_try(audience=recipients(2, 2, 2), settle=json.dumps({code.upper(): truth}), batch_size=50)
    assert all_reached_once(without_lookup, 6)
    assert campaign.run.counts()["audience"] == 6
    assert "in_doubt" not in campaign.run.counts()


def test_on_in_doubt_continue_sends_the_remaining_recipients(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    without_lookup.add_fault(**NOT_DONE, after=1)
    campaign.next_try(audience=recipients(2, 2, 2), on_in_doubt="continue")
    assert campaign.run.counts() == {"audience": 6, "accepted": 4, "in_doubt": 2}
    (doubt,) = campaign.run.manifest()["in_doubt"]
    campaign.clear()
    campaign.next_try(audience=recipients(2, 2, 2), on_in_doubt="continue")
    assert campaign.run.counts() == {"audience": 6, "already_accepted": 4, "in_doubt": 2}
    campaign.clear()
    settle = {doubt["task_unique_code"]: "not_executed"}
    campaign.next_try(audience=recipients(2, 2, 2), settle=settle)
    assert campaign.run.counts() == {"audience": 6, "accepted": 2, "already_accepted": 4, "late": 2}
    assert all_reached_once(without_lookup, 6)


def test_a_gateway_that_dedupes_is_sent_the_same_request_again(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxProcess("--dedupe", "--answer-after", "0") as sandbox:
        connect(sandbox, monkeypatch, result_query=None, dedupes_by_code=True)
        sandbox.add_fault(**LOST, after=1, times=2)
        campaign.next_try("stops", audience=recipients(2, 2, 2))
        assert campaign.run.counts() == {"audience": 6, "accepted": 2, "in_doubt": 2, "not_sent": 2}
        campaign.next_try(audience=recipients(2, 2, 2))
        assert campaign.run.counts() == {"audience": 6, "accepted": 4, "already_accepted": 2}
        assert all_reached_once(sandbox, 6)
        assert len({tuple(ids) for ids in sent(sandbox)}) == 3


def test_request_sent_again_keeps_its_first_send_time(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = recipients(2)
    edited[0]["user_name"] = "edited"  # so that only a look-up can help
    with SandboxProcess("--dedupe", "--answer-after", "0") as sandbox:
        connect(sandbox, monkeypatch, result_query=None, dedupes_by_code=True, max_attempts=1)
        sandbox.add_fault(**LOST, times=2)
        campaign.next_try("stops", audience=recipients(2))
        monkeypatch.setitem(
            delivery_campaign.Campaign.send.__kwdefaults__, "clock", lambda: time.time() + 3600
        )
        campaign.next_try("stops", audience=recipients(2))
        connect(sandbox, monkeypatch, dedupes_by_code=True)
        campaign.next_try(audience=edited)
        assert campaign.run.counts() == {"audience": 2, "already_accepted": 2}
        assert all_reached_once(sandbox, 2)


def test_changed_request_is_not_sent_again_under_dedupes_by_code(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SandboxProcess("--dedupe", "--answer-after", "0") as sandbox:
        connect(sandbox, monkeypatch, result_query=None, dedupes_by_code=True, max_attempts=1)
        sandbox.add_fault(**LOST)
        campaign.next_try("stops", audience=recipients(2, 2))
        edited = recipients(2, 2)
        edited[0]["user_name"] = "edited"
        campaign.next_try("fails", audience=edited)
        assert len(sent(sandbox)) == 1
        campaign.next_try(audience=recipients(2, 2))
        assert all_reached_once(sandbox, 4)


def test_a_long_throttle_defers_the_task_and_the_resume_goes_on(
    with_lookup: SandboxProcess, campaign: Campaign, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with_lookup.add_fault(kind="throttle", seconds=31_062, after=1)
    operator = campaign.operator(audience=recipients(2, 2))
    moment = campaign.next_try("waits", operator=operator)
    assert caplog.messages[-2].endswith("Until then the task holds no worker")
    assert caplog.messages[-1].startswith("manifest ")
    assert campaign.run.counts() == {"audience": 4, "accepted": 2, "not_sent": 2}
    with_lookup.clear_faults()
    campaign.resume(campaign.operator(audience=recipients(2, 2)))
    assert campaign.run.counts() == {"audience": 4, "accepted": 2, "already_accepted": 2}
    assert all_reached_once(with_lookup, 4)
    assert moment is not None


def test_a_closed_window_defers_the_task_before_anything_is_sent(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    from datetime import datetime, timedelta

    from airflow_provider_lingyang.gateway.dates import CHINA

    opens = datetime.now(CHINA) + timedelta(hours=2)
    window = f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M}"
    moment = campaign.next_try("waits", audience=recipients(2), send_window=window)
    assert f"{moment.astimezone(CHINA):%H:%M}" == f"{opens:%H:%M}"
    assert campaign.run.counts() == {"audience": 2, "not_sent": 2}
    assert sent(with_lookup) == []


def test_after_send_until_the_rest_is_not_sent(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    message = campaign.next_try("fails", audience=recipients(2), send_until="2026-01-01 00:00:00")
    assert "send_until (2026-01-01 00:00:00, Asia/Shanghai) has passed" in message
    assert campaign.run.manifest()["reasons"] == {"not_sent": {"send_until has passed": 2}}
    assert sent(with_lookup) == []


def test_clear_resubmits_a_finished_submission_only_with_on_clear_resubmit(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    campaign.next_try(audience=recipients(2))
    # A retry after a crash between the end and the task's success is no Clear.
    campaign.next_try(audience=recipients(2), on_clear="resubmit")
    assert campaign.run.counts() == {"audience": 2, "already_accepted": 2}
    campaign.clear()
    assert campaign.next_try(audience=recipients(2), on_clear="resubmit")["generation"] == 2
    assert campaign.run.counts() == {"audience": 2, "accepted": 2}
    assert executions(with_lookup) == {"B1": 2, "B2": 2}


def test_clear_of_an_unfinished_submission_resumes_despite_on_clear_resubmit(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    with_lookup.add_fault(kind="permission", after=1)
    campaign.next_try("fails", audience=recipients(2, 2))
    campaign.clear()
    assert campaign.next_try(audience=recipients(2, 2), on_clear="resubmit")["generation"] == 1
    assert all_reached_once(with_lookup, 4)


@pytest.mark.parametrize("change", [{"password": "CANARY-secret"}, {"login": "other"}])
def test_another_app_or_secret_under_an_open_campaign_stops_before_sending(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    with_lookup.add_fault(kind="permission", after=1)
    campaign.next_try("fails", audience=recipients(2, 2))
    right = json.dumps(with_lookup.connection(timeout=2))
    monkeypatch.setenv(
        "AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(with_lookup.connection(timeout=2) | change)
    )
    message = campaign.next_try("fails", audience=recipients(2, 2))
    assert "nothing was sent by this try: the campaign was begun with another App" in message
    assert "CANARY" not in message
    assert len(sent(with_lookup)) == 2
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", right)
    campaign.next_try(audience=recipients(2, 2))
    assert all_reached_once(with_lookup, 4)


def test_emptied_ledger_is_rebuilt_by_look_ups(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    with_lookup.add_fault(kind="permission", after=1)
    campaign.next_try("fails", audience=recipients(2, 2))
    empty(campaign)
    campaign.next_try(audience=recipients(2, 2))
    assert campaign.run.counts() == {"audience": 4, "accepted": 2, "already_accepted": 2}
    campaign.clear()
    campaign.next_try(audience=recipients(2, 2))
    assert all_reached_once(with_lookup, 4)


def test_emptied_ledger_without_a_look_up_stops_the_campaign(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    without_lookup.add_fault(kind="permission", after=1)
    campaign.next_try("fails", audience=recipients(2, 2))
    empty(campaign)
    message = campaign.next_try("fails", audience=recipients(2, 2))
    assert "the ledger knows nothing of an earlier one" in message
    assert f'settle={{"*#2 {campaign.run.manifest()["campaign_key"]}": "not_executed"}}' in message
    assert campaign.run.counts() == {"audience": 4, "in_doubt": 4}
    # The refusal leaves a trace in the ledger; that must not be taken for knowledge.
    campaign.next_try("fails", audience=recipients(2, 2))
    assert len(sent(without_lookup)) == 2


def test_settle_may_say_that_earlier_tries_sent_nothing(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    campaign.try_number = 1  # the first try never came as far as the task's own code
    campaign.next_try("fails", audience=recipients(2))
    settle = {f"*#2 {campaign.run.manifest()['campaign_key']}": "not_executed"}
    campaign.next_try(audience=recipients(2), settle=settle)
    assert all_reached_once(without_lookup, 2)


@pytest.mark.parametrize("length", [1, 60, 20_000])
def test_lost_ledger_is_rebuilt_for_ids_of_any_length(
    with_lookup: SandboxProcess, campaign: Campaign, length: int
) -> None:
    count = 600 if length < 100 else 6
    audience = [row(n, "1", biz_id=f"B{n}" + "x" * length) for n in range(count)]
    campaign.next_try(audience=audience, batch_size=200 if length < 100 else 2)
    empty(campaign)
    campaign.next_try(audience=audience)
    assert campaign.run.counts() == {"audience": count, "already_accepted": count}
    campaign.next_try(audience=audience)
    assert set(executions(with_lookup).values()) == {1}


def test_rebuild_of_a_lost_ledger_resumes(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_lingyang.delivery.lost_history._LOOKED_UP", 2)
    campaign.next_try(audience=recipients(6))
    empty(campaign)
    look_up, asked = LingyangHook.look_up, []

    def breaks_off(self: Any, biz_ids: Any, **kwargs: Any) -> Any:
        asked.append(biz_ids)
        if len(asked) > 1:
            raise AnswerLostError("gone")
        return look_up(self, biz_ids, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(LingyangHook, "look_up", breaks_off)
        campaign.next_try("fails", audience=recipients(6))
    campaign.next_try(audience=recipients(6))
    assert campaign.run.counts() == {"audience": 6, "already_accepted": 6}
    campaign.next_try(audience=recipients(6))
    assert all_reached_once(with_lookup, 6)


def test_a_biz_id_with_a_nul_is_an_invalid_row(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    message = campaign.next_try("fails", audience=[row(1), row(2, biz_id="B2\0")])
    assert "row 2: biz_id holds a NUL character" in message
    assert sent(with_lookup) == []


def test_rejected_recipient_stays_rejected(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    with_lookup.add_fault(kind="refuse", code="400", message="计划已暂停")
    with_lookup.add_fault(kind="permission")
    campaign.next_try("fails", audience=recipients(2, 2))
    campaign.next_try(audience=recipients(2, 2))
    assert campaign.run.counts() == {"audience": 4, "accepted": 2, "rejected": 2}
    assert executions(with_lookup) == {"B3": 1, "B4": 1}


@pytest.mark.parametrize("where", ["claim", "intent", "outcome"])
def test_a_task_state_store_that_fails_loses_nothing(
    with_lookup: SandboxProcess, campaign: Campaign, where: str
) -> None:
    if campaign.store is None:
        return  # tests/ledger breaks databases
    writes: list[str] = []

    def fails(key: str) -> bool:
        writes.append(key)
        segments = [key for key in writes if "/w" in key]
        return {
            "claim": True,
            "intent": len(segments) == 1 and "/w" in key,
            "outcome": len(segments) > 1 and "/w" in key,
        }[where]

    campaign.store.fails = fails
    message = campaign.next_try("stops", audience=recipients(2, 2))
    assert "task state store cannot be written" in message
    assert len(sent(with_lookup)) == {"claim": 0, "intent": 0, "outcome": 1}[where]
    campaign.store.fails = lambda key: False
    campaign.next_try(audience=recipients(2, 2))
    assert all_reached_once(with_lookup, 4)


def test_mapped_instances_share_a_sql_ledger(with_lookup: SandboxProcess, campaign: Campaign) -> None:
    if campaign.store is not None:
        return
    context = campaign.context()
    counts = []
    for map_index, audience in enumerate([recipients(2, 2), [*recipients(2, 2)[2:], row(5, "3")]]):
        context["ti"].map_index, context["ti"].try_number = map_index, 1
        counts.append(campaign.operator(audience=audience).execute(context)["counts"])
    assert [count["accepted"] for count in counts] == [4, 1]
    assert [count["already_accepted"] for count in counts] == [0, 2]
    assert [count["vanished"] for count in counts] == [0, 0]
    assert all_reached_once(with_lookup, 5)


def test_a_mapped_task_has_no_ledger_in_its_own_state(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    if campaign.store is None:
        return
    context = campaign.context()
    context["ti"].map_index = 0
    with pytest.raises(AirflowFailException, match="give it ledger_conn_id"):
        campaign.operator(audience=recipients(2)).execute(context)


@pytest.mark.parametrize(
    "option", ["AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "AIRFLOW__WORKERS__STATE_STORE_BACKEND"]
)
def test_a_task_state_that_does_not_last_is_refused(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    if campaign.store is None:
        return
    monkeypatch.setenv(option, "True")
    assert "is set, so the task's state is no safe place" in campaign.next_try(
        "fails", audience=recipients(2)
    )
    assert sent(with_lookup) == []


def test_own_campaign_key_repeats_no_recipient_in_another_run(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    if campaign.store is not None:
        with pytest.raises(ArgumentError, match="an own campaign_key needs ledger_conn_id"):
            campaign.operator(audience=[], campaign_key="autumn")
        return
    campaign.next_try(audience=recipients(2), campaign_key="autumn")
    context = campaign.context()
    context["ti"].run_id = "another"
    campaign.operator(audience=recipients(3), campaign_key="autumn").execute(context)
    assert campaign.run.counts() == {"audience": 3, "accepted": 1, "already_accepted": 2}
    assert all_reached_once(with_lookup, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"send_window": "9-20"}, "send_window must be two different times of the day"),
        ({"send_window": "20:00-20:00"}, "send_window must be"),
        ({"on_rejected": "x"}, "on_rejected must be one of continue, fail"),
        ({"on_in_doubt": "x"}, "on_in_doubt must be one of stop, continue"),
        ({"on_clear": "x"}, "on_clear must be one of reuse, resubmit"),
        ({"settle": {"code": "yes"}}, "settle: 'code' must be 'accepted' or 'not_executed'"),
        ({"settle": ["code"]}, "settle must be a dict"),
        ({"settle": {"*": "accepted"}}, "can only be 'not_executed'"),
        ({"settle": {"Code": "accepted", "code ": "not_executed"}}, "settle says both"),
        ({"max_in_flight": 0}, "max_in_flight must be"),
    ],
)
def test_invalid_arguments_fail_while_the_dag_is_parsed(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        LingyangSubmitBatchOperator(task_id="submit", plan_id=1, audience=[], **arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"settle": "{{ nothing"}, "settle must be a dict"),
        ({"settle": "[" * 100_000}, "settle must be a dict"),
        ({"settle": '[["code", "accepted"]]'}, "settle must be a dict"),
        ({"settle": '{" * ": "accepted"}'}, "can only be 'not_executed'"),
        ({"settle": '{"code": "accepted", "code": "not_executed"}'}, "settle says both"),
        ({"settle": '{"code": "not_executed", "CODE": "accepted"}'}, "settle says both"),
        ({"on_clear": "{{ 'x' }}"}, "on_clear must be one of"),
        ({"send_until": "tomorrow"}, "send_until must be a date with a time"),
    ],
)
def test_invalid_rendered_arguments_send_no_request(
    with_lookup: SandboxProcess, campaign: Campaign, arguments: dict[str, Any], expected: str
) -> None:
    operator = campaign.operator(audience=recipients(2), **dict.fromkeys(arguments, "{{ x }}"))
    for name, value in arguments.items():
        setattr(operator, name, value)
    assert expected in campaign.next_try("fails", operator=operator)
    assert sent(with_lookup) == []


@pytest.mark.parametrize("nothing", ["", " \n", "None"])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("plan_id", "{{ nothing }}"),
        ("campaign_key", "{{ nothing }}"),
        ("ledger_conn_id", "{{ nothing }}"),
        ("lingyang_conn_id", "{{ nothing }}"),
        ("send_until", "{{ nothing }}"),
        ("task_defaults['policy_id']", {"policy_id": "{{ nothing }}"}),
        (
            "use_book_info['book_code']",
            {"use_platform": "P", "book_code": "{{ nothing }}", "book_owner_id": 1},
        ),
    ],
)
def test_a_given_argument_that_renders_to_nothing_is_not_taken_for_one_that_was_left_out(
    with_lookup: SandboxProcess, campaign: Campaign, argument: str, value: Any, nothing: str
) -> None:
    arguments = {argument.split("[")[0]: value}
    ledger = {"ledger_conn_id": "ledger"} if argument == "campaign_key" else {}
    operator = campaign.operator(audience=recipients(2), **(ledger | arguments))
    operator.render_template_fields({"nothing": nothing})
    message = campaign.next_try("fails", operator=operator)
    assert f"nothing was sent: {argument} was given, but has rendered to nothing" in message
    assert sent(with_lookup) == []


def test_a_given_argument_that_renders_to_python_s_none_is_not_taken_for_one_that_was_left_out(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    operator = campaign.operator(audience=recipients(2), ledger_conn_id="{{ none }}", campaign_key="spring")
    operator.ledger_conn_id = None  # what a DAG with render_template_as_native_obj makes of it
    message = campaign.next_try("fails", operator=operator)
    assert "ledger_conn_id was given, but has rendered to nothing" in message
    assert sent(with_lookup) == []


def test_a_campaign_key_that_renders_to_a_number_is_a_campaign_key(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    if campaign.store is not None:
        return
    for _ in range(2):
        operator = campaign.operator(audience=recipients(2), campaign_key="{{ 0 }}")
        operator.campaign_key = 0  # likewise
        assert campaign.next_try(operator=operator)["campaign_key"] == "0"
    assert all_reached_once(with_lookup, 2)


def test_only_settle_not_executed_frees_recipients_of_a_lost_ledger(
    without_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign.next_try(audience=recipients(2, 2))
    empty(campaign)
    operator = campaign.operator(audience=recipients(2, 2), settle="{{ x }}")
    operator.settle = '{"*": "accepted"}'
    message = campaign.next_try("fails", operator=operator)
    assert "can only be 'not_executed'" in message
    # The second lock, where the first would let the word pass.
    monkeypatch.setattr("airflow_provider_lingyang.config.arguments.parse_settle", lambda value: value)
    operator.settle = {"*": "accepted"}
    message = campaign.next_try("fails", operator=operator)
    assert "the ledger knows nothing of an earlier one" in message
    assert all_reached_once(without_lookup, 4)


def test_too_short_lookup_settle_stops_the_campaign_before_sending(
    sandbox: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(sandbox, monkeypatch, timeout=5, lookup_settle=1)
    message = campaign.next_try("fails", audience=recipients(2))
    assert "nothing was sent: connection 'lingyang_default': lookup_settle (1) must be at least" in message
    assert sent(sandbox) == []


def test_settle_without_a_ledger_is_an_error(with_lookup: SandboxProcess, run: Run) -> None:
    operator = LingyangSubmitBatchOperator(
        task_id="submit", plan_id=1, audience=recipients(1), settle={"code": "accepted"}
    )
    assert "settle needs a ledger" in run.fails(operator)
    assert sent(with_lookup) == []


def test_several_requests_at_a_time_keep_batches_apart(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    with_lookup.add_fault(kind="slow", seconds=0.3, times=None)
    campaign.next_try(audience=recipients(9, 9, 9), max_in_flight=4)
    assert all_reached_once(with_lookup, 27)
    record = with_lookup.record()
    assert record["order_violations"] == []
    times = sorted((r["received_at"], r["answered_at"]) for r in record["requests"])
    assert any(later[0] < earlier[1] for earlier, later in pairwise(times))


def test_ledger_holds_no_personal_data(
    with_lookup: SandboxProcess, campaign: Campaign, tmp_path: Path
) -> None:
    with_lookup.add_fault(**NOT_DONE, after=1, times=9)
    audience = [
        r
        | {
            "user_name": "CANARY-name",
            "email": "canary@example.com",
            "input_params": {"a": "CANARY"},
            "phone_number": f"1000000999{r['biz_id'][1]}",
        }
        for r in recipients(2, 2)
    ]
    campaign.next_try("stops", audience=audience)
    if campaign.store is not None:
        text = json.dumps(campaign.store.values)
    else:
        text = (tmp_path / "ledger.db").read_bytes().decode(errors="replace")
    assert "B3" in text
    for secret in ("CANARY", "canary", "1000000999", "sandbox-secret"):
        assert secret not in text


NOT_COUNTED = "What was sent before is not in these counts"


def test_try_with_an_invalid_audience_counts_earlier_tries(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    without_lookup.add_fault(**LOST, after=1)
    campaign.next_try("fails", audience=recipients(2, 2, 2))
    message = campaign.next_try("fails", audience=[*recipients(2, 2, 2), row(9, "3", phone_number="x")])
    assert "nothing was sent by this try: 1 of 7 row(s) are not valid" in message
    assert NOT_COUNTED not in message
    assert campaign.run.counts() == {
        "audience": 7,
        "already_accepted": 2,
        "invalid": 1,
        "in_doubt": 2,
        "not_sent": 2,
    }
    assert campaign.run.xcom["submit", "biz_ids"] == ["B1", "B2"]


def test_try_with_a_broken_query_counts_earlier_tries_for_the_rows_read(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    with_lookup.add_fault(kind="permission", after=2)
    campaign.next_try("fails", audience=recipients(3, 3, 3))

    def breaks_off() -> Any:
        yield from recipients(3)
        raise QueryError("connection 'shop': gone")

    message = campaign.next_try("stops", audience=breaks_off())
    assert "nothing was sent by this try: connection 'shop': gone" in message
    assert campaign.run.counts() == {"audience": 3, "already_accepted": 3}


@pytest.mark.parametrize("audience", [recipients(2, 2), [*recipients(2, 2), row(9, "3", phone_number="x")]])
def test_try_that_cannot_read_its_history_warns(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, audience: Any
) -> None:
    with_lookup.add_fault(kind="permission", after=1)
    campaign.next_try("fails", audience=recipients(2, 2))

    def unreadable(*_: Any) -> Any:
        raise LedgerError("the ledger is away")

    ledger = SqlLedger if campaign.store is None else TaskStateLedger
    monkeypatch.setattr(ledger, "history", unreadable)
    message = campaign.next_try("fails" if len(audience) == 5 else "stops", audience=audience)
    assert NOT_COUNTED in message
    assert "nothing was sent:" not in message
    reasons = campaign.run.manifest()["reasons"]["not_sent"]
    assert reasons == {"not attempted by this try; earlier ones are not counted": 4}


def test_try_that_ends_before_the_ledger_opens_warns_that_earlier_tries_are_not_counted(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_lookup.add_fault(kind="permission", after=1)
    campaign.next_try("fails", audience=recipients(2, 2))
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(with_lookup.connection(timeout="soon")))
    message = campaign.next_try("fails", audience=recipients(2, 2))
    assert message.startswith("nothing was sent by this try: connection 'lingyang_default': timeout must be")
    assert NOT_COUNTED in message


def test_an_emptied_ledger_counts_nothing(without_lookup: SandboxProcess, campaign: Campaign) -> None:
    campaign.next_try(audience=recipients(2))
    empty(campaign)
    message = campaign.next_try("fails", audience=[*recipients(2), row(9, "3", phone_number="x")])
    assert NOT_COUNTED in message


def test_cancellation_while_the_audience_is_read_sends_no_request(
    with_lookup: SandboxProcess, campaign: Campaign
) -> None:
    operator: LingyangSubmitBatchOperator

    def rows() -> Any:
        yield from recipients(2)
        operator.on_kill()
        yield from recipients(2, 2)[2:]

    operator = campaign.operator(audience=rows())
    message = campaign.next_try("stops", operator=operator)
    assert "asked to stop while it read the audience; this try sent nothing" in message
    assert sent(with_lookup) == []
    campaign.next_try(audience=recipients(2, 2))
    assert all_reached_once(with_lookup, 4)


def test_cancellation_during_the_rebuild_leaves_the_remaining_look_ups_to_the_next_try(
    with_lookup: SandboxProcess, campaign: Campaign, clock: SkippingClock
) -> None:
    campaign.next_try(audience=recipients(2))
    empty(campaign)
    operator = campaign.operator(audience=recipients(2, 2))
    clock.at_sleep = operator.on_kill
    message = campaign.next_try("stops", operator=operator)
    assert "asked to stop while it looked up which recipients earlier tries reached" in message
    assert "this try sent nothing" in message
    assert "the next try, or Clear, goes on with the others" in message
    assert "settle" not in message
    clock.at_sleep = lambda: None
    campaign.next_try(audience=recipients(2, 2))
    assert all_reached_once(with_lookup, 4)


def test_submission_without_a_pushed_manifest_is_not_finished(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    push = TaskInstance.xcom_push

    def breaks(self: Any, key: str, value: Any) -> None:
        if key == "biz_ids":
            raise RuntimeError("the XCom backend is down")
        push(self, key, value)

    with monkeypatch.context() as broken:
        broken.setattr(TaskInstance, "xcom_push", breaks)
        campaign.next_try("stops", audience=recipients(2), on_clear="resubmit")
    campaign.clear()
    campaign.next_try(audience=recipients(2), on_clear="resubmit")
    assert campaign.run.counts() == {"audience": 2, "already_accepted": 2}
    assert all_reached_once(with_lookup, 2)


def test_end_that_cannot_be_written_is_written_by_the_next_try(
    with_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> None:
        raise LedgerError("the ledger is away")

    with monkeypatch.context() as broken:
        broken.setattr(SqlLedger if campaign.store is None else TaskStateLedger, "finish", breaks)
        message = campaign.next_try("stops", audience=recipients(2))
    assert "the ledger is away. No recipient is left to send to" in message
    assert campaign.run.counts() == {"audience": 2, "accepted": 2}
    campaign.next_try(audience=recipients(2))
    assert all_reached_once(with_lookup, 2)


def test_grace_period_counts_from_the_signal_despite_a_slow_ledger(
    without_lookup: SandboxProcess, campaign: Campaign, clock: SkippingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if campaign.store is None:
        return
    connect(without_lookup, monkeypatch, result_query=None, timeout=30)
    # Answered before patience that begins only now would be over.
    without_lookup.add_fault(kind="slow", seconds=3, after=1)
    operator = campaign.operator(audience=recipients(16), max_in_flight=2)
    written = 0
    write = campaign.store.set

    def slow(key: str, value: Any, **kwargs: Any) -> None:
        nonlocal written
        if "/w" in key:
            written += 1
            if written == 2:  # while the slow request is under way
                operator.on_kill()
                clock.sleep(GRACE_PERIOD)
        write(key, value, **kwargs)

    monkeypatch.setattr(campaign.store, "set", slow)
    assert "while request" in campaign.next_try("stops", operator=operator)
    assert campaign.run.counts()["in_doubt"] > 0


@pytest.mark.parametrize("answers_in_time", [True, False])
def test_cancellation_waits_four_seconds_for_answers_and_records_them(
    without_lookup: SandboxProcess, campaign: Campaign, monkeypatch: pytest.MonkeyPatch, answers_in_time: bool
) -> None:
    # Both longer than it may wait for an answer.
    connect(without_lookup, monkeypatch, result_query=None, timeout=60)
    without_lookup.add_fault(kind="slow", seconds=0.7 if answers_in_time else 30, after=1)
    operator = campaign.operator(audience=recipients(2, 2, 2))

    def stop() -> None:
        while len(sent(without_lookup)) < 2:
            time.sleep(0.01)
        operator.on_kill()

    thread = threading.Thread(target=stop)
    thread.start()
    message = campaign.next_try("stops", operator=operator)
    thread.join()
    assert "asked to stop" in message
    expected = (
        {"accepted": 4, "not_sent": 2} if answers_in_time else {"accepted": 2, "in_doubt": 2, "not_sent": 2}
    )
    assert campaign.run.counts() == {"audience": 6} | expected
    assert len(sent(without_lookup)) == 2
    without_lookup.clear_faults()
    if answers_in_time:
        campaign.next_try(audience=recipients(2, 2, 2))
        assert all_reached_once(without_lookup, 6)
    else:
        campaign.next_try("fails", audience=recipients(2, 2, 2))
        assert campaign.run.counts() == {"audience": 6, "already_accepted": 2, "in_doubt": 2, "not_sent": 2}
