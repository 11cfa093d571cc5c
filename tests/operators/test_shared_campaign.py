"""Several runs that share one campaign_key, in one ledger. The gateway's record is the judge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.campaigns import LOST, Campaign, all_reached_once, row

OWN, OTHERS = [row(1), row(2)], [row(number) for number in range(3, 9)]


@pytest.mark.parametrize("fault", [{"kind": "throttle", "seconds": 0, "after": 1, "times": 9}, LOST])
def test_one_run_does_not_start_anew_what_another_one_has_begun(
    without_lookup: SandboxProcess, shared: Callable[[str], Campaign], fault: dict[str, Any]
) -> None:
    own, other = shared("own"), shared("other")
    without_lookup.add_fault(**fault)
    other.next_try("stops" if fault is not LOST else "fails", audience=OTHERS)
    without_lookup.clear_faults()
    own.next_try(audience=OWN)
    own.clear()
    message = own.next_try("fails", audience=OWN, on_clear="resubmit")
    assert "other tasks or runs with this campaign_key have sent to recipients of their own" in message
    settle = {doubt["task_unique_code"]: "accepted" for doubt in other.run.manifest()["in_doubt"]}
    other.next_try(audience=OTHERS, settle=settle)
    assert all_reached_once(without_lookup, 8)


def test_batches_that_another_run_has_overtaken_are_counted_as_late(
    without_lookup: SandboxProcess, shared: Callable[[str], Campaign]
) -> None:
    shared("other").next_try(audience=[row(1, "2"), row(2, "2")])
    own = shared("own")
    own.next_try(audience=[row(3, "1"), row(4, "1"), row(5, "3")])
    assert own.run.counts() == {"audience": 3, "accepted": 3, "late": 2}
