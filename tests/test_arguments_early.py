"""Arguments that cannot work are refused with what to do, or work: templates, frames, default_args, subclasses."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, XComArg

from airflow_provider_lingyang.config.arguments import ArgumentError, check_no_frame
from airflow_provider_lingyang.config.literals import CHECKS
from airflow_provider_lingyang.decorators.lingyang import lingyang_submit_batch
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator
from tests.conftest import Run, rendered
from tests.helpers.campaigns import all_reached_once, recipients

SUBMIT: dict[str, Any] = {"task_id": "t", "plan_id": 1, "sql": "SELECT 1", "sql_conn_id": "db"}
WAIT: dict[str, Any] = {"task_id": "t", "biz_ids": ["A1"]}
WRITE: dict[str, Any] = WAIT | {"table": "answers", "sql_conn_id": "db"}
NOT_TEMPLATED = [
    *((LingyangSubmitBatchOperator, SUBMIT, name) for name in CHECKS),
    *((LingyangResultSensor, WAIT, name) for name in ("required_slots", "complete_ratio", "on_incomplete")),
    *((LingyangToSqlOperator, WRITE, name) for name in ("required_slots", "slots", "create_table")),
]


def other_task() -> XComArg:
    with DAG("d", schedule=None):
        return XComArg(BaseOperator(task_id="other"))


TEMPLATES: list[Any] = [
    "{{ params.x }}",
    ["{{ params.x }}"],
    ["intention", "{% if x %}a{% endif %}"],
    {"biz_id": "{{ params.x }}"},
    {"{{ params.x }}": "a"},
    other_task(),
]


@pytest.mark.parametrize("value", TEMPLATES, ids=["text", "list", "block", "value", "key", "output"])
@pytest.mark.parametrize(("kind", "base", "name"), NOT_TEMPLATED)
def test_template_that_nothing_renders_is_refused(kind: Any, base: Any, name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name} holds a template.*and is not templated"):
        kind(**base, **{name: value})


class TemplatesMore(LingyangSubmitBatchOperator):
    """A subclass that renders more, and has an argument of its own that it sets last."""

    template_fields = (*LingyangSubmitBatchOperator.template_fields, "output_slots", "batch_size", "own")

    def __init__(self, *, own: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.own = own


def test_subclass_may_template_more(sandbox: SandboxProcess, run: Run) -> None:
    task = TemplatesMore(
        task_id="submit",
        plan_id=123,
        audience=recipients(2),
        output_slots="{{ params.slots }}",  # type: ignore[arg-type]
        batch_size="{{ params.size }}",  # type: ignore[arg-type]
        own="x",
    )
    task.output_slots, task.batch_size = ["intention"], 2
    run.execute(task)
    assert all_reached_once(sandbox, 2)
    assert run.manifest()["output_slots"] == ["intention"]


@pytest.mark.parametrize(("name", "value"), [("output_slots", "intention"), ("batch_size", "50")])
def test_template_field_of_a_subclass_is_checked_at_run_time(
    sandbox: SandboxProcess, run: Run, name: str, value: Any
) -> None:
    task = TemplatesMore(task_id="submit", plan_id=123, audience=recipients(2), own="x", **{name: "{{ x }}"})
    setattr(task, name, value)
    assert name in run.fails(task)
    assert sandbox.record()["requests"] == []


def frame(name: str, library: str) -> Any:
    """Return an object that looks like another library's: iterable, and no rows."""
    return type(name, (list,), {"__module__": f"{library}.core"})(["biz_id", "phone_number"])


@pytest.mark.parametrize(
    ("name", "library", "way_out"),
    [
        ("DataFrame", "pandas", r'frame\.to_dict\("records"\)'),
        ("DataFrame", "polars", r"frame\.to_dicts\(\)"),
        ("Table", "pyarrow", r"frame\.to_pylist\(\)"),
        ("DataFrame", "elsewhere", r'frame\.to_dict\("records"\)'),
        ("Series", "pandas", "one column without names: give a list of rows"),
        ("ndarray", "numpy", "one column without names"),
    ],
)
def test_frame_is_refused_with_what_gives_rows(
    sandbox: SandboxProcess, run: Run, name: str, library: str, way_out: str
) -> None:
    value = frame(name, library)
    with pytest.raises(ArgumentError, match=way_out):
        check_no_frame("audience", value)
    with pytest.raises(ArgumentError, match=way_out):
        LingyangSubmitBatchOperator(task_id="t", plan_id=1, audience=value)
    # As the output of another task, and of a decorated function.
    run.fails(rendered(LingyangSubmitBatchOperator, {"task_id": "t", "plan_id": 1, "audience": value}))
    with DAG("d", schedule=None):
        task = lingyang_submit_batch(plan_id=1, task_id="submit")(lambda: value)().operator
    assert name in run.fails(task)
    assert sandbox.record()["requests"] == []


@pytest.mark.parametrize("kind", [LingyangResultSensor, LingyangToSqlOperator])
def test_frame_of_ids_is_refused_and_a_column_is_not(kind: Any) -> None:
    more = {
        name: value for name, value in WRITE.items() if kind is LingyangToSqlOperator or name == "task_id"
    }
    with pytest.raises(ArgumentError, match="biz_ids is a DataFrame: give one column of it, as a list"):
        kind(**(more | {"biz_ids": frame("DataFrame", "pandas")}))
    kind(**(more | {"biz_ids": frame("Series", "pandas")}))


@pytest.mark.parametrize("parameters", [{"since": "{{ x }}", "n": 1}, ["{{ x }}", 1]])
def test_parameter_that_rendered_to_none_is_refused(
    sandbox: SandboxProcess, run: Run, parameters: Any
) -> None:
    task = LingyangSubmitBatchOperator(**(SUBMIT | {"task_id": "submit"}), parameters=parameters)
    task.parameters = {"since": "None", "n": 1} if isinstance(parameters, dict) else ["None", 1]
    assert "has rendered to 'None': its template found nothing" in run.fails(task)


@pytest.mark.parametrize("value", ["None", "2026-01-31", 5])
def test_parameters_that_rendered_to_no_list_are_refused(
    sandbox: SandboxProcess, run: Run, value: Any
) -> None:
    task = LingyangSubmitBatchOperator(**(SUBMIT | {"task_id": "submit"}), parameters="{{ x }}")  # type: ignore[arg-type]
    task.parameters = value
    assert "parameters" in run.fails(task)


@pytest.mark.parametrize(
    ("kind", "arguments", "name"),
    [
        (LingyangSubmitBatchOperator, {"plan_id": 1, "audience": []}, "sql_conn_id"),
        (LingyangResultSensor, {"biz_ids": ["A1"]}, "ids_conn_id"),
        (LingyangResultSensor, {"biz_ids": ["A1"]}, "results_conn_id"),
    ],
)
def test_connection_of_default_args_is_refused_with_the_way_out(kind: Any, arguments: Any, name: str) -> None:
    with DAG("d", schedule=None, default_args={name: "db"}):
        with pytest.raises(ArgumentError, match=f"give this task {name}=None"):
            kind(task_id="t", **arguments)
        kind(task_id="t2", **arguments, **{name: None})


def test_columns_the_wrong_way_round_are_turned() -> None:
    with pytest.raises(ArgumentError, match=r"the other way round: \{'biz_id': 'touch_id'\}"):
        LingyangSubmitBatchOperator(**SUBMIT, columns={"touch_id": "biz_id"})


@pytest.mark.parametrize("kind", [LingyangResultSensor, LingyangToSqlOperator])
def test_campaign_that_is_none_says_why_it_may_be(run: Run, kind: Any) -> None:
    base: dict[str, Any] = {"task_id": "t", "campaign": "{{ x }}"}
    task = kind(**(base | ({"table": "a", "sql_conn_id": "db"} if kind is LingyangToSqlOperator else {})))
    task.campaign = None
    message = run.fails(task)
    assert "marked success by hand, skipped, or has do_xcom_push=False" in message


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"keep_columns": ["tier"], "ledger_conn_id": None}, "keep_columns needs ledger_conn_id"),
        ({"keep_columns": "tier"}, "keep_columns must be a list of names"),
        ({"keep_columns": ["tier", " "]}, "keep_columns must be a list of names"),
        ({"keep_columns": ["tier", "Tier"]}, "keep_columns holds names that differ by case only"),
        (
            {"keep_columns": [f"c{number}" for number in range(21)]},
            "keep_columns names 21 columns, more than 20",
        ),
        *(
            ({"keep_columns": [name]}, f"keep_columns: '{name}' may hold personal data, which is never kept")
            for name in ("phone_number", "Email", "outer_user_id", "cms_user_id", "user_name", "input_params")
        ),
        (
            {"keep_columns": ["TEL"], "columns": {"phone_number": "tel"}},
            "keep_columns: 'TEL' is sent as phone_number, so it may hold personal data",
        ),
        (
            {"keep_columns": ["Who"], "columns": {"user_name": "who"}},
            "keep_columns: 'Who' is sent as user_name, so it may hold personal data",
        ),
        (
            {"keep_columns": ["Town"], "input_params_columns": ["town"]},
            r"keep_columns: 'Town' is sent as input_params\['town'\], so it may hold personal data",
        ),
        (
            {"keep_columns": ["town"], "input_params_columns": {"where": "town"}},
            r"keep_columns: 'town' is sent as input_params\['where'\], so it may hold personal data",
        ),
        ({"keep_columns": ["status"]}, "a table of results has a column 'status' for itself"),
        ({"keep_columns": ["100%"]}, "cannot name a column"),
        ({"keep_columns": ["x" * 64]}, "is longer than the 63 bytes"),
    ],
)
def test_columns_that_cannot_be_kept(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArgumentError, match=problem):
        LingyangSubmitBatchOperator(**(SUBMIT | {"ledger_conn_id": "ledger"} | arguments))


def test_columns_that_can_be_kept() -> None:
    kept = {"keep_columns": ["tier", "source_id"], "columns": {"source_id": "tier"}}
    assert LingyangSubmitBatchOperator(**SUBMIT, **kept, ledger_conn_id="{{ params.x }}").keep_columns == [
        "tier",
        "source_id",
    ]
    assert LingyangSubmitBatchOperator(**SUBMIT).keep_columns == []
