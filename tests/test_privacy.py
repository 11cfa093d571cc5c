"""What a real Airflow writes down of a campaign: never who its people are, nor the credentials."""

from __future__ import annotations

import json
import re
from pathlib import Path

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowCli, FillDb
from tests.versions import AIRFLOW, TRIGGERS_READ_XCOMS

DAG = """
import logging

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, task
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

# This package's loggers; Airflow's own write the credentials that they are told to mask at DEBUG.
logging.getLogger("airflow_provider_lingyang").setLevel(logging.DEBUG)


def submit(task_id, wave, **changes):
    arguments = {
        "plan_id": "{{ 100 + 23 }}",
        "sql": f"SELECT no, tel, mail, who, wave, uid, gift FROM audience WHERE wave = '{wave}'",
        "sql_conn_id": "audience_db",
        "columns": {
            "biz_id": "no", "phone_number": "tel", "email": "mail", "user_name": "who", "batch_num": "wave",
            "outer_user_id": "uid",
        },
        "input_params_columns": ["gift", "who"],
        "output_slots": ["intention"],
    }
    return LingyangSubmitBatchOperator(task_id=task_id, **(arguments | changes))


def rows():
    import json
    import os

    return json.loads(os.environ["ROWS"])


with DAG("canary", schedule=None) as dag:
    accepted = submit("accepted", 1)
    LingyangResultSensor(task_id="wait", campaign=accepted.output, poke_interval=0.1, timeout=60)
    LingyangResultSensor(
        task_id="wait_rescheduled", campaign=accepted.output, mode="reschedule", poke_interval=1, timeout=60
    )
    submit("refused", 2)
    submit("refused_wholly", 3)
    submit("lost", 4, lingyang_conn_id="blind")
    submit("invalid", 5)
    submit("broken_sql", 6, sql="SELECT no, nope FROM audience")
    submit("wrong_secret", 1, lingyang_conn_id="wrong")
    submit("listed", 1, sql=None, sql_conn_id=None, columns={}, input_params_columns=[], audience=rows())
    submit("listed_invalid", 1, sql=None, sql_conn_id=None, columns={}, input_params_columns=[],
           audience=[row | {"phone_number": row["user_name"]} for row in rows()])

    @task.lingyang_submit_batch(plan_id=123, output_slots=["intention"])
    def called(how, run_id=None):
        for row in rows():
            yield row | {"biz_id": f"{run_id}/{how}/{row['biz_id']}"}
            if how == "raises":
                raise ValueError(row["user_name"])
            if how == "raises_later":
                try:
                    {}[row["phone_number"]]
                except KeyError as error:
                    raise RuntimeError(str(row)) from error
            if how == "fails":
                try:
                    {}[row["phone_number"]]
                except KeyError as error:
                    raise AirflowFailException("said on purpose") from error

    LingyangResultSensor(task_id="wait_called", campaign=called("{{ 'accepted' }}"), poke_interval=0.1, timeout=60)
    for how in ("raises", "raises_later", "fails"):
        called.override(task_id="called_" + how)(how)

    # At last, so that the sensor looks before the gateway knows.
    before = list(dag.tasks)
    late = submit("late", 7, trigger_rule="all_done")
    before >> late
    LingyangResultSensor(
        task_id="wait_deferred", campaign=late.output, deferrable=True, poke_interval=1, timeout=60
    )
"""


def test_no_log_xcom_rendered_field_or_table_holds_a_contact_or_a_credential(
    sandbox: SandboxProcess, audience_db: FillDb, airflow_cli: AirflowCli, tmp_path: Path
) -> None:
    people = [
        (
            f"B{wave}{n}",
            f"100007770{wave}{n}",
            f"CANARYmail{wave}{n}@mail.invalid",
            f"CANARY名{wave}{n}",
            str(wave),
            f"CANARYuid{wave}{n}",
            f'CANARYgift "{n}" \\',
        )
        for wave in (1, 2, 3, 4, 7)
        for n in range(3)
    ]
    people.append(("B50", "CANARYnotaphone", "CANARYnomail", "CANARYinvalid", "5", "CANARYuid", "CANARYgift"))
    audience_db(["no", "tel", "mail", "who", "wave", "uid", "gift"], people)
    # So that the sensors have to wait.
    sandbox.add_fault(kind="late_index", seconds=2, match={"batch_num": "1"})
    if TRIGGERS_READ_XCOMS:
        sandbox.add_fault(kind="late_index", seconds=12, match={"batch_num": "7"})
    sandbox.add_fault(kind="echo_values", match={"batch_num": "2"}, times=None)
    sandbox.add_fault(
        kind="refuse", match={"batch_num": "3"}, times=None, message=f"{people[6][1]} {people[6][3]}"
    )
    sandbox.add_fault(kind="http", status=500, match={"batch_num": "4"}, times=None)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "canary.py").write_text(DAG)
    rows = [
        {"biz_id": f"L{n}", "phone_number": f"100007770{n}", "user_name": f"CANARYlist{n}"}
        | {"input_params": {"a": "CANARYgift"}}
        for n in range(3)
    ]
    connection = sandbox.connection(session_token="sandbox-session", timeout=5)
    ran = airflow_cli(
        *("dags", "test", "canary"),
        AIRFLOW_CONN_LINGYANG_DEFAULT=json.dumps(connection),
        AIRFLOW_CONN_BLIND=json.dumps(connection | {"extra": connection["extra"] | {"result_query": None}}),
        AIRFLOW_CONN_WRONG=json.dumps(connection | {"password": "CANARY-wrong-secret"}),
        ROWS=json.dumps(rows),
    )

    # Everything ended as it was meant to, so that what follows says something.
    assert airflow_cli.xcom("canary", "accepted", "manifest")["counts"]["accepted"] == 3
    assert airflow_cli.xcom("canary", "wait", "return_value")["counts"]["finished"] == 3
    assert airflow_cli.xcom("canary", "wait_rescheduled", "return_value")["counts"]["finished"] == 3
    assert airflow_cli.xcom("canary", "wait_deferred", "return_value")["counts"]["finished"] == 3
    for said in ("waiting in the triggerer", "3 unknown to the gateway"):
        assert (said in ran.stdout) == TRIGGERS_READ_XCOMS, said
    assert airflow_cli.xcom("canary", "refused", "manifest")["counts"]["rejected"] == 3
    reasons = airflow_cli.xcom("canary", "refused_wholly", "manifest")["reasons"]
    assert "<phone_number> <user_name>" in str(reasons)
    assert airflow_cli.xcom("canary", "lost", "manifest")["counts"]["in_doubt"] == 3
    assert airflow_cli.xcom("canary", "invalid", "manifest")["counts"]["invalid"] == 1
    assert airflow_cli.xcom("canary", "wrong_secret", "manifest")["counts"]["not_sent"] == 3
    assert airflow_cli.xcom("canary", "listed", "manifest")["counts"]["accepted"] == 3
    assert airflow_cli.xcom("canary", "listed_invalid", "manifest")["counts"]["invalid"] == 3

    assert airflow_cli.xcom("canary", "wait_called", "return_value")["counts"]["finished"] == 3
    for how in ("raises", "raises_later", "fails"):
        assert airflow_cli.xcom("canary", f"called_{how}", "manifest")["counts"]["accepted"] == 0
    assert "called raised ValueError, see the traceback above" in ran.stdout
    assert 'raise ValueError(row["user_name"])' in ran.stdout
    assert "called raised RuntimeError" in ran.stdout
    assert "AirflowFailException: said on purpose" in ran.stdout

    written = airflow_cli.everything_written()
    if AIRFLOW != (3, 0):  # Its `dags test` prints on the screen, and only there, what local variables hold.
        written += ran.stdout
    assert "<audience: list, not shown>" in written
    for canary in ("CANARY", "100007770", "sandbox-secret", "sandbox-session"):
        found = [written[max(0, at.start() - 200) : at.end() + 50] for at in re.finditer(canary, written)]
        assert not found, f"{canary} stands {len(found)} times in what was written, first in: {found[0]}"
    assert not re.search(r"\b[0-9A-F]{64}\b", written)
