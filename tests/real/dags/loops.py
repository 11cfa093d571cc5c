"""A campaign in a loop (Airflow 3.4): each iteration's audience is that of the one before, and two recipients more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, task_group

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

ITERATIONS = 3
SQL = (
    "SELECT '{{ run_id }}/' || number AS biz_id, phone AS phone_number, '{}' AS input_params, '{}' AS output_params "
    "FROM looped WHERE number <= 10 + 2 * "
)
COMMON: dict[str, Any] = {
    "sql_conn_id": "audience_db",
    "batch_size": 4,
    "ledger_conn_id": "loop_ledger",
    "lingyang_conn_id": "gateway_1",
}


def loops(dag_id: str, *, deferrable: bool = False, **changes: Any) -> None:
    """Make a DAG with a loop of ``submit`` and ``wait``, and a wait for the last iteration after it.

    :param changes: arguments of ``submit``.
    """

    @task_group
    def body() -> None:
        submit = LingyangSubmitBatchOperator(
            task_id="submit", plan_id=30, **{"sql": SQL + "{{ loop.index + 1 }}", **COMMON, **changes}
        )
        LingyangResultSensor(
            task_id="wait",
            campaign=submit.output,
            deferrable=deferrable,
            lingyang_conn_id="gateway_1",
            poke_interval=0.5,
            timeout=60,
        )

    with DAG(dag_id, schedule=None, default_args={"retries": 1, "retry_delay": timedelta(0)}):
        body.loop(max_iterations=ITERATIONS)  # type: ignore[attr-defined]


def mapped_loops(dag_id: str) -> None:
    """Make a DAG with a loop of a mapped ``submit``: its instances' audiences overlap."""

    @task_group
    def body() -> None:
        @task
        def shards() -> list[dict[str, Any]]:
            return [{"first": 1, "last": 8}, {"first": 5, "last": 12}]

        mapped = LingyangSubmitBatchOperator.partial(
            task_id="submit",
            plan_id=31,
            sql=f"{SQL}9 AND number BETWEEN :first AND :last",
            # Of two instances that want the same recipient, the later one goes on with its next try.
            retries=3,
            **COMMON,
        ).expand(parameters=shards())

        @task(trigger_rule="all_done")
        def end() -> None: ...

        mapped >> end()

    with DAG(dag_id, schedule=None, default_args={"retry_delay": timedelta(0)}):
        body.loop(max_iterations=ITERATIONS)  # type: ignore[attr-defined]


if hasattr(task_group(lambda: None), "loop"):
    loops("loops")
    loops("loops_deferred", deferrable=True)
    loops("loops_without_a_ledger", ledger_conn_id=None)
    mapped_loops("loops_mapped")
