"""Call recipients that a Python function finds, wave after wave, and wait for their answers.

For audiences that no single query gives: an API, a file, a model. What the function yields goes from there to the
gateway and is stored nowhere: not as XCom, not as a rendered field, not in a log. Where one query gives the recipients,
`campaign_from_sql` needs no code.

To make it yours: copy the file into your DAGs folder, create the connection `lingyang_default`, then change what is
marked with "yours". Before the first real call, run it once with `validate_only=True`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

# As task.lingyang_submit_batch, from Airflow's own `task`; imported like this, editors know its arguments.
from airflow_provider_lingyang.decorators.lingyang import lingyang_submit_batch
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor


def pages_of_orders(segment: str) -> Iterator[list[dict[str, Any]]]:
    """Yield orders, some at a time. Yours: ask your own system."""
    for page in range(4):
        yield [
            {
                "no": f"{segment}-{page}{number}",
                "mobile": f"1000000{page}{number:03}",
                "customer": f"客户{number}",
            }
            for number in range(5)
        ]


@lingyang_submit_batch(
    plan_id=10001,  # Yours: the plan's number in the Lingyang console.
    channel="call",
    # API field → key of the rows, where they differ, as for the operator.
    columns={"phone_number": "mobile"},
    input_params_columns={"name": "customer"},  # Yours: variable of the plan → key of the rows.
    output_slots=["intention"],  # Yours: what the plan finds out.
    # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
    settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
    # A retry calls the function again, and goes on where the last try ended (Airflow 3.3 and later; earlier ones need
    # a ledger_conn_id).
    retries=3,
    retry_delay=timedelta(minutes=1),
)
def call_customers(segment: str, *, run_id: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield a row per person; they are read one by one, however many there are.

    A biz_id is the same whenever the function is called again for this run, and never that of another run.
    """
    for wave, orders in enumerate(pages_of_orders(segment), 1):
        for order in orders:
            yield {
                "biz_id": f"{run_id}/{order['no']}",
                "batch_num": str(wave),
                "mobile": order["mobile"],
                "customer": order["customer"],
            }


with DAG(
    dag_id="campaign_taskflow",
    description="Recipients that a function finds → Lingyang → their answers",
    schedule=None,
    catchup=False,  # Drops missed runs but the last one: with a schedule, give the submit task max_lateness, too.
    max_active_runs=1,
    params={"segment": "new"},  # Yours.
    tags=["lingyang"],
):
    answers = LingyangResultSensor(
        task_id="wait_for_answers",
        # Arguments are templates, as those of any task; run_id comes from Airflow's context.
        campaign=call_customers("{{ params.segment }}"),
        poke_interval=2,  # Yours. Real recipients take hours: 300, and mode="reschedule", which frees the worker.
        timeout=timedelta(hours=24),
    )
