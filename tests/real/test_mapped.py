"""A mapped campaign that broke off, cleared when its mapping has changed: Airflow numbers the instances anew."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowConnection
from tests.helpers.airflow_processes import AirflowProcesses
from tests.helpers.campaigns import LOST

RUN = "/api/v2/dags/mapped/dagRuns/mapped_run"
BEFORE = {"north": range(1, 13), "south": range(13, 25)}
AFTER = {"east": range(1, 7), "south": range(7, 19), "north": range(19, 29)}
"""The first item is new, so that each instance is another's; and people have moved between them."""


@pytest.fixture
def sandbox(
    airflow: AirflowProcesses, gateways: list[SandboxProcess], postgres_server: AirflowConnection
) -> Iterator[SandboxProcess]:
    connection = {
        name: postgres_server[key]
        for name, key in (("conn_type", "conn_type"), ("host", "host"), ("login", "login"))
    }
    body = {
        "connection_id": "mapped_ledger",
        "port": postgres_server["port"],
        "schema": postgres_server["schema"],
    }
    airflow.api("POST", "/api/v2/connections", connection | body)
    gateways[0].clear_faults()
    gateways[0].reset()
    yield gateways[0]
    gateways[0].clear_faults()


def test_clear_with_another_mapping_reaches_each_recipient_once(
    airflow: AirflowProcesses, sandbox: SandboxProcess
) -> None:
    def assign(shards: Mapping[str, range]) -> None:
        with sqlite3.connect(airflow.home / "audience.db") as db:
            db.execute("DROP TABLE IF EXISTS shards")
            db.execute("CREATE TABLE shards (shard TEXT, number INTEGER, phone TEXT)")
            rows = [(shard, n, f"1000000{n:04}") for shard, numbers in shards.items() for n in numbers]
            db.executemany("INSERT INTO shards VALUES (?, ?, ?)", rows)
        db.close()
        variable = {"key": "mapped_shards", "value": json.dumps(list(shards))}
        there = airflow.has("/api/v2/variables/mapped_shards")
        airflow.api("PATCH" if there else "POST", "/api/v2/variables" + "/mapped_shards" * there, variable)

    def end() -> str:
        def ended() -> str | None:
            state: str = airflow.api("GET", RUN)["state"]
            return state if state in ("success", "failed") else None

        return str(airflow.until(ended, "the end of the run", 120))

    def counts(task_id: str) -> list[dict[str, int]]:
        """What the instances of a task count, by their map_index."""
        instances = airflow.api("GET", f"{RUN}/taskInstances/{task_id}/listMapped")["task_instances"]
        found = []
        for map_index in sorted(instance["map_index"] for instance in instances):
            path = f"{RUN}/taskInstances/{task_id}/xcomEntries/manifest?map_index={map_index}"
            value = airflow.api("GET", path)["value"]
            found.append((json.loads(value) if isinstance(value, str) else value)["counts"])
        return found

    airflow.until(lambda: airflow.has("/api/v2/dags/mapped"), "the DAG", 60)
    assign(BEFORE)
    # Some requests are executed and their answers lost, and nobody can be looked up.
    sandbox.add_fault(**LOST, method="submit", every=3, times=None)
    sandbox.add_fault(kind="http", status=500, method="lookup", times=None)
    body = {"dag_run_id": RUN.rpartition("/")[2], "logical_date": None}
    airflow.api("POST", "/api/v2/dags/mapped/dagRuns", body)
    assert end() == "failed"
    before = {task_id: counts(task_id) for task_id in ("submit", "called")}
    assert {task_id: len(each) for task_id, each in before.items()} == {"submit": 2, "called": 2}
    assert sum(count["in_doubt"] for each in before.values() for count in each) > 0

    sandbox.clear_faults()
    assign(AFTER)
    clear = {"dry_run": False, "dag_run_id": body["dag_run_id"], "only_failed": False, "reset_dag_runs": True}
    airflow.api("POST", "/api/v2/dags/mapped/clearTaskInstances", clear)
    assert end() == "success"

    executed = sandbox.record()["executions"]["by_biz_id"]
    everybody = [f"{how}-{n}" for how in ("sql", "called") for numbers in AFTER.values() for n in numbers]
    assert executed == dict.fromkeys(everybody, 1)
    for task_id in ("submit", "called"):
        found = counts(task_id)
        assert [count["accepted"] + count["already_accepted"] for count in found] == [6, 12, 10]
        assert sum(count["already_accepted"] for count in found) > 0
    waited = airflow.api("GET", f"{RUN}/taskInstances/wait/listMapped")["task_instances"]
    assert [instance["state"] for instance in waited] == ["success"] * 3
