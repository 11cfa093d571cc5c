"""Call your colleagues first, have a person approve the calls, and only then call the customers.

The approval is asked for in Airflow's UI ("Required Actions"), with what the colleagues answered. Airflow 3.1 or later.

To make it yours: copy the file into your DAGs folder, create the connections (`lingyang_default` for the gateway,
`audience_db` for your database), then change what is marked with "yours".
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

# Both calls are one campaign in all but their recipients: the customers hear what the colleagues heard.
CAMPAIGN: dict[str, Any] = {
    "plan_id": 10001,  # Yours: the plan's number in the Lingyang console.
    "channel": "call",
    "sql_conn_id": "audience_db",
    "columns": {
        "biz_id": "touch_id",
        "batch_num": "wave",
        "phone_number": "mobile",
        "user_name": "customer",
    },
    "input_params_columns": {"name": "customer"},
    "output_slots": ["intention"],  # Yours: what the plan finds out.
    # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
    "settle": "{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
    "parameters": {"run_id": "{{ run_id }}"},
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
}
# Yours. What tells a colleague's biz_id from a customer's is in front: results are looked up by it.
PEOPLE = "SELECT :run_id || '/{who}/' || order_no AS touch_id, wave, mobile, customer FROM {who}"

with DAG(
    dag_id="campaign_with_approval",
    description="Colleagues → Lingyang → an approval → customers → Lingyang",
    schedule=None,
    catchup=False,  # Drops missed runs but the last one: with a schedule, give the submit task max_lateness, too.
    max_active_runs=1,
    tags=["lingyang"],
):
    test = LingyangSubmitBatchOperator(
        task_id="submit_to_colleagues", sql=PEOPLE.format(who="colleagues"), max_recipients=20, **CAMPAIGN
    )
    heard = LingyangResultSensor(
        task_id="wait_for_colleagues",
        campaign=test.output,
        on_incomplete="succeed",  # A colleague at lunch must not stop the campaign: whoever approves sees the counts.
        deferrable=True,
        poke_interval=2,
        timeout=timedelta(minutes=30),
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Call the customers of plan 10001?",
        body=(
            "Colleagues: {{ ti.xcom_pull(task_ids='wait_for_colleagues')['counts'] }}, "
            "answers: {{ ti.xcom_pull(task_ids='wait_for_colleagues')['slots'] }}"
        ),
        response_timeout=timedelta(hours=4),  # Not approved: the task fails, and no customer is called.
    )
    submit = LingyangSubmitBatchOperator(
        task_id="submit_to_customers",
        sql=PEOPLE.format(who="customers"),
        max_recipients=5000,  # Yours: a query gone wrong must not call the whole table.
        **CAMPAIGN,
    )
    heard >> approve >> submit
    LingyangResultSensor(
        task_id="wait_for_customers",
        campaign=submit.output,
        deferrable=True,
        poke_interval=2,  # Yours. Real recipients take hours: 300.
        timeout=timedelta(hours=24),
    )
