"""The people of some shards, an instance for each; a Variable says which shards there are, and in which order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseHook, Variable, task

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor

COMMON: dict[str, Any] = {
    "batch_size": 4,
    "ledger_conn_id": "mapped_ledger",
    "lingyang_conn_id": "gateway_0",
}

# Of two instances that want to find out about one request the later one goes on with its next try.
with DAG("mapped", schedule=None, default_args={"retries": 3, "retry_delay": timedelta(0)}):

    @task
    def shards() -> list[str]:
        found: list[str] = Variable.get("mapped_shards", deserialize_json=True)
        return found

    @task.lingyang_submit_batch(plan_id=21, **COMMON)
    def called(shard: str) -> Iterator[dict[str, Any]]:
        with closing(sqlite3.connect(BaseHook.get_connection("audience_db").host)) as db:
            for number, phone in db.execute("SELECT number, phone FROM shards WHERE shard = ?", [shard]):
                yield {
                    "biz_id": f"called-{number}",
                    "phone_number": phone,
                    "input_params": {},
                    "output_params": {},
                }

    names = shards()
    called.expand(shard=names)
    submit = LingyangSubmitBatchOperator.partial(
        task_id="submit",
        plan_id=20,
        sql="SELECT 'sql-' || number AS biz_id, phone AS phone_number, '{}' AS input_params, '{}' AS output_params "
        "FROM shards WHERE shard = :shard",
        sql_conn_id="audience_db",
        **COMMON,
    ).expand(parameters=names.map(lambda shard: {"shard": shard}))
    LingyangResultSensor.partial(
        task_id="wait", lingyang_conn_id="gateway_0", poke_interval=1, timeout=60
    ).expand(campaign=submit.output)
