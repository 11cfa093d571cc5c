"""Mapped instances share one campaign: whoever is moved from one to another is sent to once, whatever happened before.

Airflow numbers the instances by position, so after a Clear item N may hold what was item M's. The gateway's record is
the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import LOST, NOT_DONE, Campaign, all_reached_once, connect, executions, row, sent

Mapping_ = Mapping[int, list[int]]
BEFORE: Mapping_ = {0: [1, 2, 3, 4], 1: [5, 6, 7, 8]}
AFTER: dict[str, Mapping_] = {
    "swapped": {0: [5, 6, 7, 8], 1: [1, 2, 3, 4]},
    "shifted by a new first item": {0: [9, 10], 1: [1, 2, 3, 4], 2: [5, 6, 7, 8]},
    "shorter": {0: [8, 7, 6, 5, 4, 3, 2, 1]},
    "dealt anew": {0: [1, 3, 5, 7, 9], 1: [2, 4, 6, 8, 10]},
    "overlapping": {0: [1, 2, 3, 4, 5], 1: [4, 5, 6, 7, 8, 1]},
}


def rows(numbers: list[int]) -> list[dict[str, Any]]:
    return [row(number) for number in numbers]


def accepted(instances: Mapping[int, Campaign]) -> list[int]:
    """How many people each of the instances counts as reached."""
    counts = [instance.run.manifest()["counts"] for instance in instances.values()]
    return [count["accepted"] + count["already_accepted"] for count in counts]


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("broke_off", ["never sent", "settled", "found", "not found", "finished"])
def test_clear_with_another_mapping_repeats_no_recipient(
    sandbox: SandboxProcess,
    instances: Callable[..., Mapping[int, Campaign]],
    monkeypatch: pytest.MonkeyPatch,
    broke_off: str,
    after: Mapping_,
) -> None:
    looks = broke_off in ("found", "not found")
    connect(sandbox, monkeypatch, **({} if looks else {"result_query": None}))
    fault: dict[str, Any] | None = {
        "never sent": {"kind": "throttle", "seconds": 0, "times": 9},
        "settled": LOST,
        "found": LOST,
        "not found": NOT_DONE,
    }.get(broke_off)
    mapped = instances()
    doubts: list[dict[str, Any]] = []
    for map_index, numbers in BEFORE.items():
        sandbox.clear_faults()
        if fault is None:
            mapped[map_index].next_try(audience=rows(numbers))
            continue
        sandbox.add_fault(**({"after": 1, "times": 1} | fault), method="submit")
        sandbox.add_fault(kind="http", status=500, method="lookup", times=None)
        with pytest.raises(AirflowException):
            mapped[map_index].next_try(audience=rows(numbers))
        doubts += mapped[map_index].run.manifest()["in_doubt"]
    assert len(doubts) == (0 if broke_off in ("never sent", "finished") else 2)
    sandbox.clear_faults()

    settle = {doubt["task_unique_code"]: "accepted" for doubt in doubts} if broke_off == "settled" else None
    again = instances()
    for map_index, numbers in after.items():
        if map_index in mapped:
            again[map_index].try_number = 1
            again[map_index].clear()
        again[map_index].next_try(audience=rows(numbers), settle=settle)

    assert all_reached_once(sandbox, max(8, *map(max, after.values())))
    assert accepted(again) == [len(numbers) for numbers in after.values()]


def test_a_mapping_over_plans_may_change_its_order(
    without_lookup: SandboxProcess, instances: Callable[..., Mapping[int, Campaign]]
) -> None:
    for plans in ([1, 2], [2, 3, 1]):
        mapped = instances()
        for map_index, plan_id in enumerate(plans):
            mapped[map_index].try_number = int(len(plans) > 2 and map_index < 2)
            mapped[map_index].clear()
            mapped[map_index].next_try(audience=rows([1, 2, 3]), plan_id=plan_id)
    # Each plan is a campaign of its own, so that a person is reached once by each of the three.
    assert executions(without_lookup) == {"B1": 3, "B2": 3, "B3": 3}
    assert (
        len({code for code, count in without_lookup.record()["executions"]["by_code"].items() if count == 1})
        == 6
    )


def test_a_campaign_with_a_key_of_its_own_may_be_mapped_anew_by_every_run(
    without_lookup: SandboxProcess, instances: Callable[..., Mapping[int, Campaign]]
) -> None:
    first = instances("monday", campaign_key="spring")
    first[0].next_try(audience=rows([1, 2, 3]))
    without_lookup.add_fault(kind="throttle", seconds=0, after=1, times=9)
    first[1].next_try("stops", audience=rows([4, 5, 6, 7]))
    without_lookup.clear_faults()
    second = instances("tuesday", campaign_key="spring")
    for map_index, numbers in enumerate([[6, 7, 8], [1, 2], [3, 4, 5]]):
        second[map_index].next_try(audience=rows(numbers))
    assert all_reached_once(without_lookup, 8)
    assert accepted(second) == [3, 2, 3]
    # What the first run left is done, too, by others.
    first[1].next_try(audience=rows([4, 5, 6, 7]))
    assert first[1].run.counts() == {"audience": 4, "already_accepted": 4}


def test_ids_that_are_derived_do_not_depend_on_the_place_in_the_mapping(
    without_lookup: SandboxProcess, instances: Callable[..., Mapping[int, Campaign]]
) -> None:
    people = [{key: value for key, value in person.items() if key != "biz_id"} for person in rows([1, 2])]
    for map_index in (0, 1):
        instances()[map_index].next_try(audience=people)
    assert sorted(executions(without_lookup).values()) == [1, 1]
    assert len(sent(without_lookup)) == 1
