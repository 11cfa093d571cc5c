"""What can never be right is said while the DAG is parsed, by the argument's name; what only a run can tell is not."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator, XComArg

from airflow_provider_lingyang.config.arguments import ArgumentError, parse_number
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator

BOOK = {"use_platform": "P", "book_code": "B", "book_owner_id": 1}
QUERY = {"method": "m", "biz_ids_field": "ids", "items_path": "result.data"}
SUBMIT: dict[str, Any] = {
    "task_id": "t",
    "plan_id": 1,
    "sql": "SELECT 1",
    "sql_conn_id": "db",
    "campaign_key": "k",
    "ledger_conn_id": "ledger",
}
FROM_SQL: dict[str, Any] = {
    "task_id": "t",
    "ids_sql": "SELECT 1",
    "ids_conn_id": "db",
    "results_sql": "SELECT 1",
    "results_conn_id": "db",
}
FROM_CAMPAIGN: dict[str, Any] = {"task_id": "t", "campaign": "{{ ti.xcom_pull(task_ids='submit') }}"}
FROM_IDS: dict[str, Any] = {"task_id": "t", "biz_ids": ["A1"]}
TO_SQL: dict[str, Any] = {"table": "answers", "sql_conn_id": "db"}

OF_SUBMIT: list[tuple[str, Any, str]] = [
    ("plan_id", "spring", "plan_id must be a number; it is 'spring'"),
    ("plan_id", None, "plan_id must be a number"),
    ("plan_id", True, "plan_id must be a number"),
    ("plan_id", 1.5, "plan_id must be a number"),
    ("plan_id", -1, "plan_id must be a number"),
    ("plan_id", 2**63, "plan_id must be a number"),
    pytest.param("plan_id", 10**5000, "plan_id must be a number; it is a number of more than 40 digits", id="digits"),
    ("plan_id", [{"phone_number": "10000000001"}], "plan_id must be a number; it is a list$"),
    ("channel", ["call"], "channel must be one of call, sms, email; it is a list$"),
    ("batch_size", [{"phone_number": "10000000001"}], "batch_size must be a whole number of at least 1; it is a list$"),
    ("batch_size", "x" * 1000, "it is 'x{41}$"),
    ("max_in_flight", 101, "max_in_flight must be a whole number from 1 to 100; it is 101"),
    ("on_empty", {"a": 1}, "on_empty must be one of skip, fail, succeed; it is a dict$"),
    ("campaign_key", " ", "campaign_key must be text; it is ' '"),
    ("campaign_key", 5, "campaign_key must be text; it is 5"),
    ("use_book_info", "B", "use_book_info must be a dict of use_platform, book_code, book_owner_id; it is a str"),
    ("use_book_info", {}, "use_book_info: use_platform is missing; book_code is missing; book_owner_id is missing"),
    ("use_book_info", {"use_platform": "P", "book_code": "B"}, "use_book_info: book_owner_id is missing"),
    ("use_book_info", BOOK | {"bok_code": 1}, r"'bok_code' is no key of it \(did you mean 'book_code'\?\)"),
    ("use_book_info", BOOK | {"book_code": ""}, "use_book_info: book_code is blank: fill it in, or leave it out$"),
    ("use_book_info", BOOK | {"book_code": None}, "use_book_info: book_code is blank: fill it in, or leave it out$"),
    ("use_book_info", BOOK | {"book_owner_id": "me"}, "use_book_info: book_owner_id is wrong .must be a whole number"),
    ("sql", " ", "sql must be a SELECT, or the path of a .sql file; it is ' '"),
    ("sql", ["SELECT 1"], "sql must be a SELECT, .*; it is a list"),
    ("sql_conn_id", "", "sql_conn_id must be the id of an Airflow connection; it is ''"),
    ("ledger_conn_id", "", "ledger_conn_id must be the id of an Airflow connection"),
    ("lingyang_conn_id", None, "lingyang_conn_id must be the id of an Airflow connection; it is None"),
    ("parameters", "2026-01-31", "parameters must be a list or a dict, .*; it is a str"),
    ("parameters", 5, "parameters must be a list or a dict, .*; it is a int"),
    ("task_defaults", {"source_id": ""}, r"task_defaults\['source_id'\] is blank"),
    ("task_defaults", {"batch_num": "first"}, r"task_defaults\['batch_num'\] must be decimal digits; it is 'first'"),
    ("send_until", "tomorrow", "send_until must be a date with a time, such as '2026-01-31 20:00:00'"),
    ("send_until", "2026-01-31", "send_until must be a date with a time"),
    ("send_until", 20, "send_until must be a date with a time"),
    ("send_until", "", "send_until must be a date with a time"),
    ("on_clear", "restart", "on_clear must be one of reuse, resubmit; it is 'restart'"),
    ("on_clear", None, "on_clear must be one of"),
    ("settle", '{"c": "acepted"}', "settle: 'c' must be 'accepted' or 'not_executed'"),
    ("settle", {"c#0": "accepted"}, "settle: 'c#0' is no task_unique_code"),
    ("settle", {"c#x": "accepted"}, "settle: 'c#x' is no task_unique_code"),
    ("settle", {"c#02": "accepted"}, "settle: 'c#02' is no task_unique_code"),
    ("settle", {"c": "accepted", "C#1": "not_executed"}, "says both 'accepted' and 'not_executed' of 'c'"),
    ("settle", {"*#2": "not_executed"}, "must name the try that has asked for it, and the campaign"),
    ("settle", {"*#2 key": "accepted"}, "can only be 'not_executed'"),
    ("settle", dict.fromkeys(map(str, range(1001)), "accepted"), "settle names 1001 requests"),
    ("settle", "accepted", "settle must be a dict"),
    ("settle", ["c"], "settle must be a dict"),
    ("settle", {"c": "{{ x }}", "d": "maybe"}, "settle: 'd' must be"),
]  # fmt: skip
OF_BOTH: list[tuple[dict[str, Any], str, Any, str]] = [
    (FROM_CAMPAIGN, "campaign", "submit", "campaign must be the manifest .*campaign=submit.output; it is a str"),
    (FROM_CAMPAIGN, "campaign", 5, "campaign must be the manifest"),
    (FROM_CAMPAIGN, "campaign", ["m"], "campaign must be the manifest"),
    (FROM_CAMPAIGN, "campaign", BaseOperator(task_id="submit"), "campaign is the task itself; .*: campaign=submit.output"),
    (FROM_CAMPAIGN, "required_slots", "intention", "required_slots must be a list of names"),
    (FROM_CAMPAIGN, "required_slots", ["a", "a"], "required_slots holds a name twice"),
    (FROM_IDS, "biz_ids", "A1", "biz_ids must be a list, also for one; it is a str"),
    (FROM_IDS, "biz_ids", {"A1": 1}, "biz_ids must be a list, also for one; it is a dict"),
    (FROM_IDS, "biz_ids", 5, "biz_ids must be a list"),
    (FROM_IDS, "biz_ids", ["A1", " "], "biz_ids holds an id that is blank"),
    (FROM_IDS, "lingyang_conn_id", "", "lingyang_conn_id must be the id of an Airflow connection"),
    (FROM_SQL, "ids_sql", "", "ids_sql must be a SELECT"),
    (FROM_SQL, "ids_conn_id", "", "ids_conn_id must be the id of an Airflow connection"),
    (FROM_SQL, "ids_parameters", "x", "ids_parameters must be a list or a dict"),
    (FROM_SQL, "results_sql", 5, "results_sql must be a SELECT"),
    (FROM_SQL, "results_conn_id", " ", "results_conn_id must be the id of an Airflow connection"),
    (FROM_SQL, "results_parameters", 5, "results_parameters must be a list or a dict"),
    (FROM_SQL, "result_query", {"done_value": ["D"]}, r"'done_value' is no key of it \(did you mean 'done_values'\?\)"),
    (FROM_IDS, "result_query", "[]", "result_query: it must be a dict, or the JSON of one"),
    (FROM_IDS, "result_query", "{", r"result_query: it is not JSON \(line 1, column 2\)"),
    (FROM_IDS, "result_query", {}, "result_query: method is missing; biz_ids_field is missing; items_path is missing"),
    (FROM_IDS, "result_query", '{"method": "m"}', "result_query: biz_ids_field is missing; items_path is missing"),
    (FROM_IDS, "result_query", QUERY | {"method": ""}, "result_query: method is blank"),
    (FROM_IDS, "result_query", QUERY | {"max_biz_ids": 0}, "max_biz_ids is wrong .Input should be greater than or equal to 1"),
    (FROM_IDS, "result_query", QUERY | {"success_field": "result.code"}, "success_field and success_values belong"),
    (FROM_IDS, "result_query", QUERY | {"page_size": -1}, "page_size is wrong .Input should be greater than or equal to 1"),
    (FROM_IDS, "result_query", QUERY | {"fixed_params": {"d": "{day}"}}, "{day} is unknown"),
    (FROM_IDS, "result_query", QUERY | {"done_values": ["D"]}, "done_values and failed_values need a status_field"),
    (FROM_IDS, "result_query", QUERY | {"status_field": "s"}, "a status_field needs done_values or failed_values"),
]  # fmt: skip
OF_TRANSFER: list[tuple[str, Any, str]] = [
    ("table", "drop table", "table must be a plain name"),
    ("table", "", "table must be a plain name"),
    ("table", None, "table must be a plain name"),
    ("table", "a{b}", "table must be a plain name"),
    ("sql_conn_id", "", "sql_conn_id must be the id of an Airflow connection"),
    ("sql_conn_id", None, "sql_conn_id must be the id of an Airflow connection"),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "value", "expected"), OF_SUBMIT)
def test_a_submit_task_refuses(argument: str, value: Any, expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        LingyangSubmitBatchOperator(**(SUBMIT | {argument: value}))


@pytest.mark.parametrize(
    "audience", ["{{ ti.xcom_pull(task_ids='people') }}", "people", b"x", {"biz_id": "A1"}, 5]
)
def test_an_audience_that_is_no_rows_is_refused_and_templates_in_it_too(audience: Any) -> None:
    with pytest.raises(
        ArgumentError, match=r"audience must be a list of rows, or other_task\.output"
    ) as caught:
        LingyangSubmitBatchOperator(task_id="t", plan_id=1, audience=audience)
    assert "A1" not in str(caught.value)


@pytest.mark.parametrize("value", [123, "123", " 0123 ", Decimal("123")])
def test_a_plan_is_a_number_however_it_comes(value: Any) -> None:
    assert parse_number("plan_id", value) == 123


def test_template_in_a_biz_id_of_literal_rows_is_refused() -> None:
    with pytest.raises(
        ArgumentError, match="audience is never rendered, and a biz_id in it holds a template"
    ):
        LingyangSubmitBatchOperator(
            task_id="t", plan_id=1, audience=[{"biz_id": "A1"}, {"biz_id": "{{ run_id }}/A2"}]
        )


@pytest.mark.parametrize("kind", [LingyangResultSensor, LingyangToSqlOperator])
@pytest.mark.parametrize(("base", "argument", "value", "expected"), OF_BOTH)
def test_sensor_or_transfer_refuses_invalid_arguments(
    kind: Any, base: dict[str, Any], argument: str, value: Any, expected: str
) -> None:
    more = TO_SQL if kind is LingyangToSqlOperator else {}
    with pytest.raises(ArgumentError, match=expected):
        kind(**(base | more | {argument: value}))


@pytest.mark.parametrize(("argument", "value", "expected"), OF_TRANSFER)
def test_a_transfer_refuses(argument: str, value: Any, expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        LingyangToSqlOperator(**(FROM_IDS | TO_SQL | {argument: value}))


def opens() -> list[Any]:
    with DAG("d", schedule=None) as dag:
        output = XComArg(BaseOperator(task_id="other"))
    return ["{{ var.value.x }}", "{% if x %}1{% else %}2{% endif %}", "a{{ x }}b", output, dag.param("p", 1)]


TASKS = [
    (LingyangSubmitBatchOperator, SUBMIT | {"use_book_info": BOOK, "parameters": [1], "settle": {}}),
    *((LingyangResultSensor, base) for base in (FROM_SQL, FROM_CAMPAIGN, FROM_IDS)),
    *((LingyangToSqlOperator, base | TO_SQL) for base in (FROM_SQL, FROM_CAMPAIGN, FROM_IDS)),
]


@pytest.mark.parametrize(
    ("kind", "base", "argument"),
    [
        (kind, base, name)
        for kind, base in TASKS
        for name in kind.template_fields
        if name in base or name in ("result_query", "lingyang_conn_id", "send_until", "on_clear")
    ],
)
def test_deferred_values_are_checked_at_run_time(kind: Any, base: dict[str, Any], argument: str) -> None:
    for value in opens():
        task = kind(**(base | {argument: value}))
        assert getattr(task, argument) is value


def test_values_inside_a_mapping_are_left_to_a_run_where_they_are_templates() -> None:
    for value in opens():
        task = LingyangSubmitBatchOperator(
            **SUBMIT,
            use_book_info=BOOK | {"book_owner_id": value, "book_code": value},
            task_defaults={"batch_num": value, "source_id": value},
            settle={"c": value},
        )
        assert task.use_book_info["book_code"] is value  # type: ignore[index]
        query = QUERY | {"method": value, "max_biz_ids": value, "success_field": value}
        assert LingyangResultSensor(**(FROM_IDS | {"task_id": "s"}), result_query=query).result_query is query


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (LingyangSubmitBatchOperator, SUBMIT | {"plan_id": "0123", "send_until": datetime(2026, 1, 31)}),
        (LingyangSubmitBatchOperator, SUBMIT | {"settle": "", "use_book_info": BOOK | {"book_owner_id": "7"}}),
        (LingyangSubmitBatchOperator, SUBMIT | {"settle": '{"c": "accepted"}', "task_defaults": {"batch_num": 1}}),
        (LingyangSubmitBatchOperator, {"task_id": "t", "plan_id": 1, "audience": iter([])}),
        (LingyangResultSensor, FROM_IDS | {"biz_ids": []}),
        (LingyangResultSensor, FROM_IDS | {"biz_ids": ("A1", 7)}),
        (LingyangResultSensor, FROM_IDS | {"result_query": QUERY | {"max_biz_ids": 50}}),
        (LingyangResultSensor, FROM_SQL | {"result_query": {"done_values": ["D"]}}),
        (LingyangResultSensor, {"task_id": "t", "campaign": {"campaign_key": "k"}}),
        (LingyangToSqlOperator, FROM_IDS | TO_SQL | {"table": "dw.answers"}),
    ],
)  # fmt: skip
def test_valid_arguments_are_accepted(kind: Any, arguments: dict[str, Any]) -> None:
    kind(**arguments)
