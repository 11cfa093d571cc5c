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


IDS: dict[str, Any] = {"ids_sql": "SELECT 1", "ids_conn_id": "db"}
RESULTS: dict[str, Any] = {"biz_ids": ["A1"], "results_sql": "SELECT 2", "results_conn_id": "db"}
COMMON: dict[str, tuple[Any, dict[str, Any]]] = {
    "campaign": ("{{ x }}", {}),
    "biz_ids": (["A1"], {}),
    "ids_sql": ("SELECT 1", IDS),
    "ids_conn_id": ("db", IDS),
    "ids_parameters": ([1], IDS),
    "lingyang_conn_id": ("other", {"biz_ids": ["A1"]}),
    "result_query": ({"method": "m", "biz_ids_field": "ids", "items_path": "data"}, {"biz_ids": ["A1"]}),
    "results_sql": ("SELECT 2", RESULTS),
    "results_conn_id": ("db", RESULTS),
    "results_parameters": ([2], RESULTS),
    "required_slots": (["a"], {"biz_ids": ["A1"]}),
}
"""Each common argument: a value, and the arguments that it needs beside it."""


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize(("operator", "own"), CASES)
def test_each_common_argument_may_be_a_default_or_mapped(
    operator: Any, own: dict[str, Any], name: str
) -> None:
    value, beside = COMMON[name]
    beside = {key: given for key, given in (own | beside).items() if key != name}
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1), default_args={name: value}):
        assert getattr(operator(task_id="t", **beside), name) == value
    with DAG("e", schedule=None, start_date=datetime(2026, 1, 1)):
        operator.partial(task_id="t", **beside).expand(**{name: [value, value]})
        other = "result_query" if name == "lingyang_conn_id" else "lingyang_conn_id"
        others = [COMMON[other][0]]
        beside.pop(other, None)
        operator.partial(task_id="u", **beside, **{name: value}).expand(**{other: others})


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
