"""Call whoever is due, every Monday at ten in China, and report on Tuesday whoever has answered by then.

Order numbers come back week after week, and results are looked up by biz_id: with the run's id in front of the order
number a biz_id is new each week, so that no answer of last week counts for this one.

To make it yours: copy the file into your DAGs folder, create the connections `lingyang_default` and `audience_db`,
then change what is marked with "yours".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

AUDIENCE = """
    SELECT :run_id || '/' || order_no AS touch_id, wave, mobile, customer
    FROM customers
"""


@task
def report(result: dict[str, Any]) -> None:
    """Print how far the recipients were when the wait ended."""
    print("recipients:", ", ".join(f"{state} {count}" for state, count in result["counts"].items()))


with DAG(
    dag_id="campaign_weekly",
    description="Whoever is due this week → Lingyang → who has answered a day later",
    schedule="0 10 * * MON",  # Yours.
    start_date=datetime(2026, 1, 1, tzinfo=ZoneInfo("Asia/Shanghai")),
    catchup=False,  # Drops missed weeks but the last one, which max_lateness skips.
    max_active_runs=1,
    tags=["lingyang"],
):
    submit = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=10001,  # Yours: the plan's number in the Lingyang console.
        channel="call",
        sql=AUDIENCE,
        sql_conn_id="audience_db",
        parameters={"run_id": "{{ run_id }}"},
        columns={
            "biz_id": "touch_id",
            "batch_num": "wave",
            "phone_number": "mobile",
            "user_name": "customer",
        },
        input_params_columns={"name": "customer"},
        output_slots=["intention"],  # Yours: what the plan finds out.
        # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
        settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
        max_lateness=timedelta(hours=6),  # Yours: unpaused on Saturday, the DAG skips Monday's run.
        max_recipients=5000,  # Yours: a query gone wrong must not call the whole table.
        send_window="09:00-20:30",  # At Asia/Shanghai: a run that comes late waits for the morning.
        retries=3,
        retry_delay=timedelta(minutes=5),
    )
    answers = LingyangResultSensor(
        task_id="wait_for_answers",
        campaign=submit.output,
        complete_ratio=0.95,  # Yours: nine in ten may be enough.
        on_incomplete="succeed",  # After a day the report is made of whoever has answered.
        deferrable=True,
        poke_interval=2,  # Yours. Real recipients take hours: 300.
        timeout=timedelta(hours=24),
    )
    report(answers.output)
