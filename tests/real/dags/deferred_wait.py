"""Waits for a campaign; the run's ``conf`` says whose, through which gateway, and how."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors import lingyang


def as_conf_says(context: Any) -> None:
    """Set what no template can; runs in every process of the task, the one after a deferral too."""
    task, conf = context["task"], context["dag_run"].conf
    for name in ("timeout", "on_incomplete", "soft_fail", "result_query"):
        setattr(task, name, conf.get(name, getattr(task, name)))
    lingyang._TIMEOUT_MARGIN = conf.get("backstop", lingyang._TIMEOUT_MARGIN)


def waits(
    dag_id: str,
    *,
    poked: bool = False,
    by_ids: bool = False,
    pool: str = "default_pool",
    ledger: str | None = None,
) -> None:
    """Make a DAG of ``submit`` and ``wait``.

    :param poked: there is ``poked`` after it: the same wait, not deferred.
    :param by_ids: the wait is given the list of ids instead of the campaign.
    :param pool: of the wait.
    :param ledger: connection of the database that keeps the ledger.
    """
    with DAG(dag_id, schedule=None):
        submit = LingyangSubmitBatchOperator(
            task_id="submit",
            plan_id=1,
            sql="SELECT biz_id, phone_number, customer FROM audience WHERE wave = '{{ dag_run.conf['wave'] }}'",
            sql_conn_id="waves_db",
            channel="sms",
            input_params_columns={"name": "customer"},
            output_slots=["intention"],
            ledger_conn_id=ledger,
            lingyang_conn_id="{{ dag_run.conf['gateway'] }}",
        )
        wait, *after = (
            lingyang.LingyangResultSensor(
                task_id=task_id,
                **{"biz_ids": submit.output["biz_ids"]} if by_ids else {"campaign": submit.output},
                deferrable=task_id == "wait",
                poke_interval=0.5,
                lingyang_conn_id="{{ dag_run.conf['gateway'] }}",
                trigger_rule="all_done",
                pool=pool,
                pre_execute=as_conf_says,
            )
            for task_id in (("wait", "poked") if poked else ("wait",))
        )
        wait >> after


waits("waits")
waits("waits_in_a_pool", pool="waits")
waits("waits_for_ids", by_ids=True)
waits("waits_with_a_ledger", ledger="ledger_db")
waits("waits_twice", poked=True)
