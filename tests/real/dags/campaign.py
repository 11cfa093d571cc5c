"""One campaign; the run's ``conf`` says which one, and through which gateway."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

with DAG("campaign", schedule=None, max_active_runs=4):
    LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id="{{ dag_run.conf['plan_id'] }}",
        sql="SELECT biz_id, biz_id AS order_id, phone_number, batch_num FROM audience WHERE plan_id = {{ dag_run.conf['plan_id'] }}",
        sql_conn_id="audience_db",
        channel="sms",
        input_params_columns=["order_id"],
        output_slots=["answer"],
        batch_size=2,
        settle="{{ var.value.get(run_id ~ '_settle', '') }}",
        lingyang_conn_id="{{ dag_run.conf['gateway'] }}",
        retries=30,
        retry_delay=timedelta(0),
    )
