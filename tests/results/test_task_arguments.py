"""Common arguments of sensor and transfer: a base class that Airflow treats as part of the operator."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator

CASES: list[tuple[type[BaseOperator], dict[str, Any]]] = [
    (LingyangResultSensor, {}),
    (LingyangToSqlOperator, {"table": "answers", "sql_conn_id": "db"}),
]


@pytest.mark.parametrize(("operator", "own"), CASES)
def test_default_args_apply_to_common_arguments(operator: Any, own: dict[str, Any]) -> None:
    defaults = {"lingyang_conn_id": "other", "required_slots": ["a"]}
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1), default_args=defaults):
        task = operator(task_id="t", biz_ids=["A1"], **own)
        explicit = operator(task_id="u", biz_ids=["A1"], lingyang_conn_id="given", **own)
    assert (task.lingyang_conn_id, task.required_slots) == ("other", ["a"])
    assert explicit.lingyang_conn_id == "given"


@pytest.mark.parametrize(("operator", "own"), CASES)
def test_partial_and_expand_take_common_arguments(operator: Any, own: dict[str, Any]) -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1)):
        submit = BaseOperator(task_id="submit")
        mapped = operator.partial(task_id="t", lingyang_conn_id="other", **own).expand(campaign=submit.output)
        with pytest.raises(TypeError, match="unknown"):
            operator.partial(task_id="u", unknown=1)
    assert mapped.upstream_task_ids == {"submit"}
    assert {"campaign", "lingyang_conn_id"} <= set(mapped.template_fields)


@pytest.mark.parametrize(("operator", "own"), CASES)
def test_outputs_of_tasks_in_common_arguments_are_upstream(operator: Any, own: dict[str, Any]) -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1)):
        task = operator(task_id="t", campaign=BaseOperator(task_id="submit").output, **own)
    assert task.upstream_task_ids == {"submit"}
