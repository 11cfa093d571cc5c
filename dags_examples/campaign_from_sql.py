"""Call the customers of a table, wave after wave, and count what they answered.

To make it yours: copy the file into your DAGs folder, create the two connections (`lingyang_default` for
the gateway, `audience_db` for your database), then change what is marked with "yours". Before the first real
call, run it once with `validate_only=True` on the submit task: everything is checked, no recipient is called.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

# Yours. Every column selected must be used below, and the gateway looks results up by biz_id, so a biz_id must
# never come back: an order number alone would, the next time this DAG runs; with the run's id in front it cannot.
# (`||` and `:run_id` are SQLite's; PostgreSQL's driver wants %(run_id)s, MySQL's CONCAT and %(run_id)s.)
AUDIENCE = """
    SELECT :run_id || '/' || order_no AS touch_id, wave, mobile, customer, gift, shop
    FROM customers
"""


@task
def print_answers(result: dict[str, Any]) -> None:
    """Print what recipients answered; a real campaign writes it to a table."""
    print("recipients:", ", ".join(f"{state} {count}" for state, count in result["counts"].items()))
    for slot, values in result["slots"].items():
        print(f"{slot}:", ", ".join(f"{value} {count}" for value, count in values.items()))


with DAG(
    dag_id="campaign_from_sql",
    description="Customers of a SQL table → Lingyang → their answers",
    schedule=None,  # Yours. As it is, the campaign runs when it is triggered.
    catchup=False,  # Drops missed runs but the last one: with a schedule, give the submit task max_lateness, too.
    max_active_runs=1,
    tags=["lingyang"],
):
    submit = LingyangSubmitBatchOperator(
        task_id="submit",
        lingyang_conn_id="lingyang_default",
        plan_id=10001,  # Yours: the plan's number in the Lingyang console.
        channel="call",
        sql=AUDIENCE,
        sql_conn_id="audience_db",
        parameters={"run_id": "{{ run_id }}"},
        # API field → column. Waves go out in numeric order, one after the other.
        columns={
            "biz_id": "touch_id",
            "batch_num": "wave",
            "phone_number": "mobile",
            "user_name": "customer",
        },
        # Yours: variable of the plan → column.
        input_params_columns={"name": "customer", "gift": "gift", "shop": "shop"},
        # Yours: what the plan finds out.
        output_slots=["intention", "callback_time"],
        batch_size=50,
        # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
        settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
        # A retry goes on where the last try ended (Airflow 3.3 and later; earlier ones need a ledger_conn_id).
        retries=3,
        retry_delay=timedelta(minutes=1),
    )
    answers = LingyangResultSensor(
        task_id="wait_for_answers",
        campaign=submit.output,
        complete_ratio=1.0,
        poke_interval=2,  # Yours. Real recipients take hours: 300, and mode="reschedule", which frees the worker.
        timeout=timedelta(hours=24),
    )
    print_answers(answers.output)
