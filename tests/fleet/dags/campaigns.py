"""Two campaigns: one whose connection has a look-up, one whose results are pushed to a table."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator

PUSHED = {
    "results_sql": "SELECT biz_id, output_params, status, task_id FROM answers",
    "results_conn_id": "audience_db",
    "result_query": {"done_values": ["ANSWERED"], "failed_values": ["NOT_REACHED"]},
}


def campaign(dag_id: str, plan_id: int, results: dict[str, Any]) -> None:
    """Make a DAG: the shards of a campaign are sent, their results are waited for, and land in the warehouse."""
    gateway = {"lingyang_conn_id": dag_id}
    with DAG(dag_id, schedule=None, default_args={"retries": 20, "retry_delay": timedelta(seconds=1)}):
        submit = LingyangSubmitBatchOperator.partial(
            task_id="submit",
            plan_id=plan_id,
            channel="sms",
            sql="SELECT biz_id, phone_number, batch_num, customer FROM audience "
            "WHERE plan_id = %(plan_id)s AND shard = %(shard)s",
            sql_conn_id="audience_db",
            input_params_columns={"name": "customer"},
            output_slots=["intention"],
            batch_size=int(os.environ["FLEET_BATCH_SIZE"]),
            max_in_flight=2,
            ledger_conn_id="ledger_db",
            **gateway,
        ).expand(
            parameters=[
                {"plan_id": plan_id, "shard": shard} for shard in range(int(os.environ["FLEET_SHARDS"]))
            ]
        )
        wait = LingyangResultSensor.partial(
            task_id="wait", deferrable=True, poke_interval=5, timeout=1800, **gateway, **results
        ).expand(campaign=submit.output)
        land = LingyangToSqlOperator.partial(
            task_id="land", table="landed", sql_conn_id="warehouse", create_table=True, **gateway, **results
        ).expand(campaign=submit.output)
        wait >> land


campaign("with_lookup", 1, {})
campaign("with_pushed_results", 2, PUSHED)
