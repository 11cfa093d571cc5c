"""Text each recipient of a table once, in working hours, however often this DAG is triggered.

The campaign has a key of its own and a ledger in a database, so it outlives the DAG run: a run that is triggered
again, tomorrow or by mistake, sends to new rows only. A retry, or Clear, goes on where the last try ended.

To make it yours: copy the file into your DAGs folder, create the connections (`lingyang_default` for the gateway,
`audience_db` for your database, `ledger_db` for the ledger: any database, its tables are created on first use), then
change what is marked with "yours". Who was reached:
`python -m airflow_provider_lingyang.ledger list --conn-id ledger_db`.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

# Yours: one key for all runs that belong together; recipients are unique within it, and so are their biz_ids.
CAMPAIGN = "spring-sale-2026"
AUDIENCE = """
    SELECT :campaign || '/' || order_no AS touch_id, wave, mobile, customer, gift, shop
    FROM customers
"""

with DAG(
    dag_id="campaign_once",
    description="Customers of a SQL table → Lingyang, each once over all runs",
    schedule=None,  # Yours. "0 9 * * *" sends to new rows every morning.
    catchup=False,  # Drops missed runs but the last one, which max_lateness skips.
    max_active_runs=1,
    tags=["lingyang"],
):
    submit = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=10001,  # Yours: the plan's number in the Lingyang console.
        campaign_key=CAMPAIGN,
        ledger_conn_id="ledger_db",
        channel="sms",
        sql=AUDIENCE,
        sql_conn_id="audience_db",
        parameters={"campaign": CAMPAIGN},
        columns={
            "biz_id": "touch_id",
            "batch_num": "wave",
            "phone_number": "mobile",
            "user_name": "customer",
        },
        input_params_columns={"name": "customer", "gift": "gift", "shop": "shop"},
        output_slots=["intention"],
        max_lateness=timedelta(hours=24),  # Yours: a run that comes later after its time is skipped.
        send_window="09:00-20:30",  # Yours, at Asia/Shanghai. Outside it the task waits without holding a worker.
        # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
        settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
        retries=3,
        retry_delay=timedelta(minutes=5),
    )
