"""Loops of Airflow 3.4, run by Airflow: a recipient of several iterations is contacted once, whatever is cleared."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowConnection
from tests.helpers.airflow_processes import AirflowProcesses
from tests.versions import STARTED_AIRFLOW

pytestmark = pytest.mark.skipif(STARTED_AIRFLOW < (3, 4), reason="loops are new in Airflow 3.4")
ITERATIONS, LAST = 3, 16
"""How many recipients the last iteration's audience has: its predecessors' were of 12 and 14."""


class LoopRun:
    """A DAG run with a loop, and what the gateway saw of it."""

    def __init__(self, airflow: AirflowProcesses, sandbox: SandboxProcess, dag_id: str, run_id: str) -> None:
        self.airflow, self.sandbox, self.dag_id, self.run_id = airflow, sandbox, dag_id, run_id
        self.path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        airflow.until(lambda: airflow.has(f"/api/v2/dags/{dag_id}"), "the DAG", 300)
        airflow.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None})

    def end(self) -> str:
        def ended() -> str | None:
            state: str = self.airflow.api("GET", self.path)["state"]
            return state if state in ("success", "failed") else None

        return str(self.airflow.until(ended, f"the end of {self.run_id}", 300))

    def instances(self, task_id: str) -> list[dict[str, Any]]:
        """The task instances that stand for a task now, in the order of its iterations."""
        found = self.airflow.api("GET", f"{self.path}/taskInstances?limit=200")["task_instances"]
        mine = [instance for instance in found if instance["task_id"] == f"body.{task_id}"]
        return sorted(mine, key=lambda instance: (instance["region_index"], instance["map_index"]))

    def clear(self, instance: Mapping[str, Any], *, downstream: bool = False) -> None:
        """Clear one task instance as a user does who ticks nothing: its own state is discarded."""
        body = {
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
            "dag_run_id": self.run_id,
            "task_instance_ids": [instance["id"]],
            "include_downstream": downstream,
        }
        self.airflow.api("POST", f"/api/v2/dags/{self.dag_id}/clearTaskInstances", body)

    def logs(self) -> str:
        """What was written about all tries of ``submit``."""
        logs = (self.airflow.home / "logs").rglob("*.log")
        mine = [path for path in logs if self.run_id in str(path) and "body.submit" in str(path)]
        return "\n".join(path.read_text(errors="replace") for path in mine)

    def executed(self) -> dict[str, int]:
        """How often each recipient was contacted."""
        found: dict[str, int] = self.sandbox.record(requests=False)["executions"]["by_biz_id"]
        assert all(biz_id.startswith(f"{self.run_id}/") for biz_id in found)
        return {biz_id.partition("/")[2]: times for biz_id, times in found.items()}


def once(last: int = LAST) -> dict[str, int]:
    return {str(number): 1 for number in range(1, last + 1)}


@pytest.fixture(scope="module")
def gateway(
    airflow: AirflowProcesses, gateways: list[SandboxProcess], postgres_server: AirflowConnection
) -> Iterator[SandboxProcess]:
    with sqlite3.connect(airflow.home / "audience.db") as db:
        db.execute("CREATE TABLE looped (number INTEGER, phone TEXT)")
        db.executemany("INSERT INTO looped VALUES (?, ?)", [(n, f"1000001{n:04}") for n in range(1, 41)])
    db.close()
    where = {name: postgres_server[name] for name in ("conn_type", "host", "login", "port", "schema")}
    airflow.api("POST", "/api/v2/connections", {"connection_id": "loop_ledger", **where})
    airflow.start_triggerer()
    yield gateways[1]
    airflow.kill_triggerer()


@pytest.fixture
def run(airflow: AirflowProcesses, gateway: SandboxProcess) -> Iterator[Callable[[str, str], LoopRun]]:
    gateway.clear_faults()
    gateway.reset()
    yield lambda dag_id, run_id: LoopRun(airflow, gateway, dag_id, run_id)
    gateway.clear_faults()


def test_the_state_of_the_task_is_refused(run: Callable[[str, str], LoopRun]) -> None:
    loop = run("loops_without_a_ledger", "refused")
    assert loop.end() == "failed"
    assert loop.executed() == {}
    assert "give the task ledger_conn_id" in loop.logs()


@pytest.mark.parametrize("dag_id", ["loops", "loops_deferred"])
def test_iterations_contact_a_recipient_once(run: Callable[[str, str], LoopRun], dag_id: str) -> None:
    loop = run(dag_id, f"{dag_id}_run")
    assert loop.end() == "success"
    assert loop.executed() == once()
    for task_id in ("submit", "wait"):
        found = loop.instances(task_id)
        assert [instance["state"] for instance in found] == ["success"] * ITERATIONS
        assert {instance["map_index"] for instance in found} == {-1}


@pytest.mark.parametrize("what", ["submit", "gate", "submit and everything after it"])
def test_a_clear_contacts_no_recipient_again(run: Callable[[str, str], LoopRun], what: str) -> None:
    loop = run("loops", f"cleared_{what.replace(' ', '_')}")
    assert loop.end() == "success"
    before = {instance["id"] for instance in loop.instances("submit")}
    regions = {instance["region_id"] for instance in loop.instances("submit")}
    gate = what == "gate"
    loop.clear(loop.instances("__loop_gate" if gate else "submit")[0], downstream="after" in what)
    assert loop.end() == "success"
    assert loop.executed() == once()
    after = loop.instances("submit")
    assert len(after) == ITERATIONS
    assert {instance["id"] for instance in after} != before
    # Else the test does not show what it says: the gate's Clear makes the later iterations anew.
    assert ({instance["region_id"] for instance in after} > regions) is (what != "submit")


def test_request_in_doubt_of_a_broken_iteration_is_looked_up(
    run: Callable[[str, str], LoopRun], gateway: SandboxProcess
) -> None:
    gateway.add_fault(kind="reset_after", method="submit", every=2, times=None)
    loop = run("loops", "broken")
    assert loop.end() == "success"
    assert loop.executed() == once()


def test_instances_that_are_mapped_in_a_loop_share_it(run: Callable[[str, str], LoopRun]) -> None:
    loop = run("loops_mapped", "mapped")
    assert loop.end() == "success"
    assert loop.executed() == once(12)
    found = loop.instances("submit")
    assert len({instance["region_id"] for instance in found}) == ITERATIONS
    assert [instance["map_index"] for instance in found].count(1) == ITERATIONS
