"""Text the customers of a table, and wait for answers that the platform pushes to you instead of being asked.

A consumer of the platform's messages, which is yours and not part of this DAG, writes each answer to a table as it
comes: biz_id, and the message's JSON with its `slots`. The sensor reads that table and needs no look-up.

To make it yours: copy the file into your DAGs folder, create the connections (`lingyang_default` for the gateway,
`audience_db` for your customers, `results_db` for the consumer's table), then change what is marked with "yours".
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

AUDIENCE = """
    SELECT :run_id || '/' || order_no AS touch_id, mobile, customer
    FROM customers
"""
# Yours. Only rows of this campaign are needed; rows of others are left alone.
RESULTS = """
    SELECT biz_id, message AS output_params
    FROM pushed_results
    WHERE biz_id LIKE :run_id || '/%'
"""

with DAG(
    dag_id="campaign_pushed_results",
    description="Customers of a SQL table → Lingyang → answers in a table of yours",
    schedule=None,
    catchup=False,  # Drops missed runs but the last one: with a schedule, give the submit task max_lateness, too.
    max_active_runs=1,
    tags=["lingyang"],
):
    submit = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=10001,  # Yours: the plan's number in the Lingyang console.
        channel="sms",
        sql=AUDIENCE,
        sql_conn_id="audience_db",
        parameters={"run_id": "{{ run_id }}"},
        columns={"biz_id": "touch_id", "phone_number": "mobile", "user_name": "customer"},
        input_params_columns={"name": "customer"},
        output_slots=["intention"],  # Yours: what the plan finds out.
        # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
        settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
        retries=3,
        retry_delay=timedelta(minutes=1),
    )
    LingyangResultSensor(
        task_id="wait_for_answers",
        campaign=submit.output,
        results_sql=RESULTS,
        results_conn_id="results_db",
        results_parameters={"run_id": "{{ run_id }}"},
        deferrable=True,
        poke_interval=2,  # Yours. Real recipients take hours: 300.
        timeout=timedelta(hours=24),
    )
