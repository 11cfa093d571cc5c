"""What Clear does to a task's own state, and so to the ledger in it: Airflow 3.4 discards it unless it is to be kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.airflow_processes import AirflowProcesses
from tests.versions import STARTED_AIRFLOW

RECIPIENTS = 8
ONCE = {str(number): 1 for number in range(RECIPIENTS)}
DISCARDS = STARTED_AIRFLOW >= (3, 4)
needs_choice = pytest.mark.skipif(not DISCARDS, reason="before Airflow 3.4 a Clear keeps the task's state")
FAULTS: dict[str, dict[str, Any]] = {
    "finished": {},
    "broken off": {"kind": "permission", "after": 2, "times": None},
    "in doubt": {"kind": "reset_after", "after": 2, "times": None},
}
"""What ends the first try, when two of the four requests are accepted."""


class Cleared:
    """A DAG run of a campaign, and what the gateway saw of it."""

    def __init__(
        self, airflow: AirflowProcesses, sandbox: SandboxProcess, dag_id: str, run_id: str, gateway: str
    ) -> None:
        self.airflow, self.sandbox, self.dag_id, self.run_id = airflow, sandbox, dag_id, run_id
        self.path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        airflow.until(lambda: airflow.has(f"/api/v2/dags/{dag_id}"), "the DAG", 300)
        body = {"dag_run_id": run_id, "logical_date": None, "conf": {"gateway": gateway}}
        airflow.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)

    def end(self) -> str:
        def ended() -> str | None:
            state: str = self.airflow.api("GET", self.path)["state"]
            return state if state in ("success", "failed") else None

        return str(self.airflow.until(ended, f"the end of {self.run_id}", 300))

    def clear(self, *, keep: bool) -> None:
        body = {"dry_run": False, "dag_run_id": self.run_id, "task_ids": ["submit"], "only_failed": False}
        if DISCARDS:
            body["keep_task_state"] = keep
        self.airflow.api("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", body)

    def log(self, try_number: int) -> str:
        name = f"dag_id={self.dag_id}/run_id={self.run_id}/task_id=submit/attempt={try_number}.log"
        return (self.airflow.home / "logs" / name).read_text(errors="replace")

    def executed(self) -> dict[str, int]:
        """How often each recipient was contacted."""
        found: dict[str, int] = self.sandbox.record(requests=False)["executions"]["by_biz_id"]
        return {biz_id.partition("/")[2]: times for biz_id, times in found.items()}


@pytest.fixture(scope="module")
def table(airflow: AirflowProcesses) -> None:
    with sqlite3.connect(airflow.home / "audience.db") as db:
        db.execute("CREATE TABLE cleared (number INTEGER, phone TEXT)")
        rows = [(number, f"1000002{number:04}") for number in range(RECIPIENTS)]
        db.executemany("INSERT INTO cleared VALUES (?, ?)", rows)
    db.close()


@pytest.fixture
def sandbox(table: None, gateways: list[SandboxProcess]) -> Iterator[SandboxProcess]:
    gateways[0].clear_faults()
    gateways[0].reset()
    yield gateways[0]
    gateways[0].clear_faults()


CASES = [
    *(pytest.param("mute", first, True, id=f"{first}, kept") for first in FAULTS),
    *(
        pytest.param(gateway, first, False, id=f"{first}, discarded, {gateway}", marks=needs_choice)
        for gateway in ("mute", "gateway_0")
        for first in FAULTS
    ),
]


@pytest.mark.parametrize(("gateway", "first", "keep"), CASES)
def test_no_clear_contacts_a_recipient_twice(
    airflow: AirflowProcesses, sandbox: SandboxProcess, gateway: str, first: str, keep: bool
) -> None:
    """Through ``mute`` no recipient can be looked up, through the other gateway all can."""
    if FAULTS[first]:
        sandbox.add_fault(**FAULTS[first], method="submit")
        if gateway != "mute":
            sandbox.add_fault(kind="http", status=500, method="lookup", times=None)
    run_id = f"{gateway}_{first.replace(' ', '_')}_{keep}"
    campaign = Cleared(airflow, sandbox, "cleared", run_id, gateway)
    assert campaign.end() == ("failed" if FAULTS[first] else "success")
    sandbox.clear_faults()
    before = campaign.executed()

    campaign.clear(keep=keep)
    state = campaign.end()
    assert set(campaign.executed().values()) == {1}
    # Without a look-up a lost ledger, and a request in doubt, let nothing leave.
    if gateway == "mute" and (not keep or first == "in doubt"):
        assert state == "failed"
        assert campaign.executed() == before
        assert "nothing was sent by this try" in campaign.log(2)
    else:
        assert state == "success"
        assert campaign.executed() == ONCE


@needs_choice
def test_an_outlet_asset_remembers_that_a_discarded_campaign_had_begun(
    airflow: AirflowProcesses, sandbox: SandboxProcess
) -> None:
    campaign = Cleared(airflow, sandbox, "cleared_with_outlet", "marked", "mute")
    assert campaign.end() == "success"
    (asset,) = airflow.api("GET", "/api/v2/assets?uri_pattern=lingyang://plans/40")["assets"]
    path = f"/api/v2/assets/{asset['id']}/state-store"

    def notes() -> list[dict[str, Any]]:
        found = airflow.api("GET", path)
        (entries,) = (value for value in found.values() if isinstance(value, list))
        return [entry for entry in entries if entry["key"].startswith("lingyang/begun/")]

    (note,) = notes()
    assert "marked" in str(note["value"])
    campaign.clear(keep=False)
    assert campaign.end() == "failed"
    assert campaign.executed() == ONCE
    assert [entry["key"] for entry in notes()] == [note["key"]]
