"""Call recipients that an upstream task gives, wave after wave, and wait for their answers without holding a worker.

Airflow stores what travels between tasks, phone numbers included, and keeps it as long as the run. Where the recipients
are in a database, select them in the submit task instead, as `campaign_from_sql` does.

To make it yours: copy the file into your DAGs folder, create the connection `lingyang_default`, then change what is
marked with "yours".
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, get_current_context, task

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor


@task(show_return_value_in_logs=False)
def find_recipients() -> list[dict[str, Any]]:
    """Return one dict per person. Yours: ask your own system; the names of the fields are the API's."""
    run_id = get_current_context()["run_id"]
    return [
        {
            "biz_id": f"{run_id}/{number}",
            "batch_num": str(number % 2 + 1),
            "phone_number": f"1000000{number:04}",
            "user_name": f"客户{number}",
            "input_params": {"name": f"客户{number}"},
        }
        for number in range(20)
    ]


with DAG(
    dag_id="campaign_from_xcom",
    description="People of an upstream task → Lingyang → their answers",
    schedule=None,
    catchup=False,  # Drops missed runs but the last one: with a schedule, give the submit task max_lateness, too.
    max_active_runs=1,
    tags=["lingyang"],
):
    submit = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=10001,  # Yours: the plan's number in the Lingyang console.
        channel="call",
        audience=find_recipients(),
        output_slots=["intention"],  # Yours: what the plan finds out.
        # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
        settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
        retries=3,
        retry_delay=timedelta(minutes=1),
    )
    LingyangResultSensor(
        task_id="wait_for_answers",
        campaign=submit.output,
        deferrable=True,  # Needs a running triggerer, and frees the worker for hours.
        poke_interval=2,  # Yours. Real recipients take hours: 300.
        timeout=timedelta(hours=24),
    )
