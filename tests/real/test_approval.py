"""The example that calls colleagues first: nobody else is called before somebody said yes."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.helpers.airflow_processes import AirflowProcesses

DAG = "campaign_with_approval"


@pytest.fixture(scope="module")
def sandbox(airflow: AirflowProcesses) -> Iterator[SandboxProcess]:
    with sqlite3.connect(airflow.home / "audience.db") as db:
        for table, numbers in (("colleagues", range(3)), ("customers", range(3, 9))):
            db.execute(f"CREATE TABLE {table} (order_no TEXT, wave TEXT, mobile TEXT, customer TEXT)")
            rows = [(f"A{n}", str(n % 2 + 1), f"1380000{n:04}", f"客户{n}") for n in numbers]
            db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", rows)
    db.close()
    with SandboxProcess("--answer-after", "0") as process:
        connection = {"connection_id": "lingyang_default"} | process.connection()
        connection["extra"] = json.dumps(connection["extra"])
        airflow.api("POST", "/api/v2/connections", connection)
        airflow.start_triggerer()
        yield process
        airflow.kill_triggerer()


@pytest.mark.parametrize(
    ("answer", "customers", "state"), [("Approve", 6, "success"), ("Reject", 0, "skipped")]
)
def test_customers_are_called_after_approval(
    airflow: AirflowProcesses, sandbox: SandboxProcess, answer: str, customers: int, state: str
) -> None:
    airflow.until(lambda: airflow.has(f"/api/v2/dags/{DAG}"), "the example", 60)
    sandbox.reset()
    run = f"run_{answer}"
    airflow.api("POST", f"/api/v2/dags/{DAG}/dagRuns", {"dag_run_id": run, "logical_date": None})
    path = f"/api/v2/dags/{DAG}/dagRuns/{run}"
    question = f"{path}/taskInstances/approve/-1/hitlDetails"

    def called() -> set[str]:
        people = sandbox.record(requests=False)["executions"]["by_biz_id"]
        assert set(people.values()) <= {1}
        return {biz_id.removeprefix(f"{run}/") for biz_id in people}

    # Answered sooner, Airflow takes the end of the process that asked for the end of the one that goes on.
    key = re.escape(f"TaskInstanceKey(dag_id='{DAG}', task_id='approve', run_id='{run}'")
    # Airflow 3.4 names the task instance by its id before that.
    let_go = re.compile(rf"executor event with state success for task instance .*{key}")
    airflow.until(lambda: let_go.search(airflow.output("scheduler")), "the question", 300)
    asked = airflow.api("GET", question)
    assert "'finished': 3" in asked["body"]
    colleagues = {f"colleagues/A{n}" for n in range(3)}
    assert called() == colleagues

    airflow.api("PATCH", question, {"chosen_options": [answer], "params_input": {}})
    ended = airflow.until(
        lambda: (airflow.api("GET", path)["state"] in ("success", "failed")) and airflow.api("GET", path),
        f"the end of {run}",
        90,
    )
    assert ended["state"] == "success"
    assert called() == colleagues | {f"customers/A{n}" for n in range(3, 3 + customers)}
    assert airflow.api("GET", f"{path}/taskInstances/submit_to_customers")["state"] == state
