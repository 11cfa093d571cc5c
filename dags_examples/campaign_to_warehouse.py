"""Call the customers of a table, wait for their answers without holding a worker, and write them to your warehouse.

To make it yours: copy the file into your DAGs folder, create the connections (`lingyang_default` for the gateway,
`audience_db` for your database, `warehouse` for the database of the answers, which may be the same one), then change
what is marked with "yours". Before the first real call, run it once with `validate_only=True` on the submit task:
everything is checked, no recipient is called, and the other two tasks are skipped.

Clear `answers_to_warehouse` whenever you want to have the answers as they are by then: a recipient keeps one row, and
columns that you added keep what they hold.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator

# Yours. The run's id in front of the order number, because a biz_id must never come back.
# (`||` and `:run_id` are SQLite's; PostgreSQL's driver wants %(run_id)s, MySQL's CONCAT and %(run_id)s.)
AUDIENCE = """
    SELECT :run_id || '/' || order_no AS touch_id, wave, mobile, customer, gift, shop
    FROM customers
"""

with DAG(
    dag_id="campaign_to_warehouse",
    description="Customers of a SQL table → Lingyang → a table with their answers",
    schedule=None,  # Yours. As it is, the campaign runs when it is triggered.
    catchup=False,  # Drops missed runs but the last one: with a schedule, give the submit task max_lateness, too.
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
        input_params_columns={"name": "customer", "gift": "gift", "shop": "shop"},
        output_slots=["意向", "callback_time"],  # Yours: what the plan finds out.
        # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
        settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
        # A retry goes on where the last try ended (Airflow 3.3 and later; earlier ones need a ledger_conn_id).
        retries=3,
        retry_delay=timedelta(minutes=1),
    )
    wait = LingyangResultSensor(
        task_id="wait_for_answers",
        campaign=submit.output,
        deferrable=True,  # Needs a running triggerer; without one: mode="reschedule".
        complete_ratio=0.95,
        on_incomplete="succeed",  # After the timeout the answers that there are go to the warehouse.
        poke_interval=2,  # Yours. Real recipients take hours: 300.
        timeout=timedelta(hours=24),
    )
    to_warehouse = LingyangToSqlOperator(
        task_id="answers_to_warehouse",
        campaign=submit.output,
        table="campaign_answers",  # Yours; "schema.table" where it is in one.
        sql_conn_id="warehouse",
        # Slot → column. A list, or nothing, names the columns like the slots.
        slots={"意向": "intention", "callback_time": "callback_time"},
        create_table=True,
        # Written twice is written once, so a retry costs look-ups only.
        retries=3,
        retry_delay=timedelta(minutes=5),
    )
    wait >> to_warehouse
