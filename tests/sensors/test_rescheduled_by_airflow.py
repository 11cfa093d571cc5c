"""A wait that a real Airflow reschedules: each poll is a new process, and only Airflow knows when the first one was."""

from __future__ import annotations

import json

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowCli

DAG = """
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

with DAG("rescheduled", schedule=None, catchup=False):
    LingyangResultSensor(
        task_id="wait",
        biz_ids=["never sent"],
        required_slots=["intention"],
        mode="reschedule",
        deferrable=False,
        poke_interval=3,
        timeout=240,
    )
"""


def test_unknown_recipients_end_the_wait_lookup_settle_after_the_first_poll(
    sandbox: SandboxProcess, airflow_cli: AirflowCli
) -> None:
    (airflow_cli.home / "dags").mkdir()
    (airflow_cli.home / "dags" / "rescheduled.py").write_text(DAG)
    # The second poll comes late enough. One that is too early, and so another, is beyond `dags test` of Airflow 3.0,
    # which subtracts the text that it takes for the first poll's date.
    connection = sandbox.connection(timeout=2, lookup_settle=2)
    ran = airflow_cli("dags", "test", "rescheduled", AIRFLOW_CONN_LINGYANG_DEFAULT=json.dumps(connection))
    # Airflow before 3 ends with success whatever became of the run.
    assert "the gateway does not know" in ran.stdout, ran.stdout[-5000:]
    look_ups = [each for each in sandbox.record()["requests"] if "result" in each["method"]]
    assert len(look_ups) > 1
