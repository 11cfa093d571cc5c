"""Call the customers of several cities, each city through a plan of its own, side by side.

The cities come from an upstream task, so there may be others tomorrow; each gets an instance of the submit task and of
the sensor. All instances share a ledger in a database. Airflow numbers them by position: should a cleared run find the
cities in another order, or customers in another city, whoever was reached under a plan is not reached again under it.

To make it yours: copy the file into your DAGs folder, create the connections (`lingyang_default` for the gateway,
`audience_db` for your database, `ledger_db` for the ledger: any database, its tables are created on first use), then
change what is marked with "yours".
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

# Yours: a plan for each city, its number in the Lingyang console.
PLANS = {"杭州": 10001, "成都": 10002, "广州": 10003}
AUDIENCE = """
    SELECT :run_id || '/' || order_no AS touch_id, mobile, customer
    FROM customers
    WHERE city = :city
"""


@task
def cities(*, run_id: str | None = None) -> list[dict[str, Any]]:
    """Return the arguments in which the instances differ. Yours: any argument of the operator, but no recipients."""
    return [
        {"plan_id": plan_id, "parameters": {"city": city, "run_id": run_id}}
        for city, plan_id in PLANS.items()
    ]


@task
def report(results: Iterable[dict[str, Any]]) -> None:
    """Print how far each city is, in their order."""
    for city, result in zip(PLANS, results, strict=True):
        print(f"{city}:", ", ".join(f"{state} {count}" for state, count in result["counts"].items()))


with DAG(
    dag_id="campaign_mapped",
    description="Customers of each city → a plan of Lingyang for each → their answers",
    schedule=None,
    catchup=False,  # Drops missed runs but the last one: with a schedule, give the submit task max_lateness, too.
    max_active_runs=1,
    tags=["lingyang"],
):
    submit = LingyangSubmitBatchOperator.partial(
        task_id="submit",
        ledger_conn_id="ledger_db",  # The instances of a mapped task need a ledger in a database.
        channel="call",
        sql=AUDIENCE,
        sql_conn_id="audience_db",
        columns={"biz_id": "touch_id", "phone_number": "mobile", "user_name": "customer"},
        input_params_columns={"name": "customer"},  # Yours: variable of the plan → column.
        output_slots=["intention"],  # Yours: what the plans find out.
        # Should a request be in doubt, the task's failure says what to put into this Variable before it is cleared.
        settle="{{ var.value.get('lingyang_settle_' ~ dag.dag_id, '') }}",
        # A city without customers is no reason to skip the answers of the others, as Airflow would after a skipped one.
        on_empty="succeed",
        map_index_template="{{ task.parameters['city'] }}",
        max_active_tis_per_dagrun=2,  # Yours: how many cities at a time.
        # Two instances may want to find out about one request; the later one goes on with its next try.
        retries=3,
        retry_delay=timedelta(minutes=1),
    ).expand_kwargs(cities())
    answers = LingyangResultSensor.partial(
        task_id="wait_for_answers",
        deferrable=True,  # Needs a running triggerer, and frees the workers for hours.
        poke_interval=2,  # Yours. Real recipients take hours: 300.
        timeout=timedelta(hours=24),
    ).expand(campaign=submit.output)
    report(answers.output)
