"""Answers that say two things, or say it in other words than ours: no recipient is contacted twice."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import Campaign, all_reached_once, executions, recipients, row

MODES = [
    "error_beside_success",
    "error_inside_success",
    "success_inside_error",
    "two_answers",
    "refused_with_echoes",
    "success_without_echo",
    "success_twice",
    "data_twice",
]
FAULTS: list[dict[str, Any]] = [
    *({"kind": "contradiction", "mode": mode} for mode in MODES),
    {"kind": "error", "code": 7, "sub_code": None, "status": 502, "executed": True},
    {"kind": "error", "code": 25, "sub_code": None, "status": 500, "executed": True},
    {"kind": "error", "code": 44, "sub_code": None, "executed": True},
    {"kind": "error", "code": 7, "sub_code": "ISP.unknown-error", "executed": True},
    {"kind": "error", "code": 11, "sub_code": "ism.x", "executed": True},
    {"kind": "error", "code": 15, "sub_code": "isv.SYSTEM_ERROR", "executed": True},
    {"kind": "error", "code": 15, "sub_code": "isv.data-duplicate-error", "executed": True},
    {"kind": "flat_error", "code": "ServiceTimeout", "type": "ISP", "executed": True},
    {"kind": "flat_error", "code": "ApiCallLimit", "type": "SYSTEM", "executed": True},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
def test_executed_request_is_found_and_not_sent_again(
    with_lookup: SandboxProcess, campaign: Campaign, fault: dict[str, Any]
) -> None:
    with_lookup.add_fault(**fault, method="submit", times=1)
    campaign.next_try(audience=recipients(2, 2))
    assert campaign.run.counts() == {"audience": 4, "accepted": 4}
    assert all_reached_once(with_lookup, 4)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: "-".join(map(str, fault.values())))
def test_contradictory_answer_without_a_look_up_stays_in_doubt(
    without_lookup: SandboxProcess, campaign: Campaign, fault: dict[str, Any]
) -> None:
    without_lookup.add_fault(**fault, method="submit", times=1)
    campaign.next_try("fails", audience=recipients(2, 2))
    assert campaign.run.counts() == {"audience": 4, "in_doubt": 2, "not_sent": 2}
    campaign.next_try("fails", audience=recipients(2, 2))
    assert executions(without_lookup) == {"B1": 1, "B2": 1}


@pytest.mark.parametrize("mode", ["other_case", "number", "unknown_biz_id", "missing_biz_id"])
def test_echo_of_another_spelling_is_not_the_recipient(
    without_lookup: SandboxProcess, campaign: Campaign, mode: str
) -> None:
    audience = [row(1, biz_id="001"), row(2, biz_id="b2")]
    if mode == "other_case":
        audience.reverse()
    without_lookup.add_fault(kind="echo", mode=mode, times=1)
    campaign.next_try("fails", audience=audience)
    assert campaign.run.counts() == {"audience": 2, "accepted": 1, "in_doubt": 1}
    campaign.next_try("fails", audience=audience)
    assert set(executions(without_lookup).values()) == {1}
