"""Templated arguments as Airflow renders and shows them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator

SQL_FIELDS = ("sql", "ids_sql", "results_sql")
# Their value is structured, or the JSON of what is.
JSON_FIELDS = (
    *("parameters", "use_book_info", "task_defaults", "settle"),
    *("campaign", "biz_ids", "ids_parameters", "results_parameters", "result_query"),
)


@pytest.mark.parametrize("kind", [LingyangSubmitBatchOperator, LingyangResultSensor, LingyangToSqlOperator])
def test_template_fields_are_rendered_as_sql_or_json(kind: Any) -> None:
    expected = {name: "sql" for name in kind.template_fields if name in SQL_FIELDS}
    expected |= {name: "json" for name in kind.template_fields if name in JSON_FIELDS}
    assert dict(kind.template_fields_renderers) == expected


@pytest.mark.parametrize(
    ("kind", "arguments", "fields"),
    [
        (LingyangSubmitBatchOperator, {"plan_id": 1, "sql_conn_id": "db"}, ["sql"]),
        (LingyangResultSensor, {"ids_conn_id": "db", "results_conn_id": "db"}, ["ids_sql", "results_sql"]),
        (
            LingyangToSqlOperator,
            {"ids_conn_id": "db", "results_conn_id": "db", "table": "t", "sql_conn_id": "db"},
            ["ids_sql", "results_sql"],
        ),
    ],
)
def test_a_sql_file_beside_the_dag_is_read_and_rendered(
    tmp_path: Path, kind: Any, arguments: dict[str, Any], fields: list[str]
) -> None:
    (tmp_path / "people.sql").write_text("SELECT no FROM orders WHERE day = '{{ ds }}' -- {{ params.of }}")
    with DAG("d", schedule=None, template_searchpath=[str(tmp_path)]):
        task = kind(task_id="t", params={"of": "spring"}, **arguments, **dict.fromkeys(fields, "people.sql"))
    task.render_template_fields({"ds": "2026-01-31", "params": {"of": "spring"}})
    for name in fields:
        assert getattr(task, name) == "SELECT no FROM orders WHERE day = '2026-01-31' -- spring"


def test_an_audience_may_be_whatever_airflow_resolves_when_the_task_runs() -> None:
    with DAG("d", schedule=None, params={"rows": []}) as dag:
        task = LingyangSubmitBatchOperator(task_id="t", plan_id=1, audience=dag.param("rows"))
    rows = [{"biz_id": "{{ CANARY }}"}]
    task.render_template_fields({"params": {"rows": rows}, "dag_run": SimpleNamespace(conf={})})
    assert list(task.audience) == rows
    assert repr(task.audience) == "<audience: list, not shown>"


@pytest.mark.parametrize("given", [None, "True", "False"])
def test_a_sensor_waits_in_the_triggerer_where_airflow_is_configured_so(given: str | None) -> None:
    # The configuration is read once, so each value needs a process of its own.
    code = (
        "import json; from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor as Sensor; "
        "print(json.dumps([Sensor(task_id='t', biz_ids=['1'], **how).deferrable "
        "for how in ({}, {'deferrable': True}, {'deferrable': False})]))"
    )
    env = dict(os.environ) | ({} if given is None else {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": given})
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300, check=True
    )
    assert json.loads(ran.stdout.splitlines()[-1]) == [given == "True", True, False]
