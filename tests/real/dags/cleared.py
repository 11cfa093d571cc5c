"""Campaigns that are cleared; the run's ``conf`` says through which gateway. One has an outlet, the other has none."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

for dag_id, outlets in (("cleared", []), ("cleared_with_outlet", [Asset("lingyang://plans/40")])):
    with DAG(dag_id, schedule=None):
        LingyangSubmitBatchOperator(
            task_id="submit",
            plan_id=40,
            sql="SELECT '{{ run_id }}/' || number AS biz_id, phone AS phone_number, '{}' AS input_params, "
            "'{}' AS output_params FROM cleared",
            sql_conn_id="audience_db",
            batch_size=2,
            lingyang_conn_id="{{ dag_run.conf['gateway'] }}",
            outlets=outlets,
        )
