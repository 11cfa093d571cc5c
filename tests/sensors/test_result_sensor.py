"""The result sensor against a running gateway."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)

from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from tests.conftest import FillDb, Run, rendered
from tests.helpers.campaigns import bare_row, submitted

NO_STATUS = {
    key: value
    for key, value in RESULT_QUERY.items()
    if key not in ("status_field", "done_values", "failed_values")
}


def wait(**changes: Any) -> LingyangResultSensor:
    return LingyangResultSensor(**({"task_id": "wait", "poke_interval": 0.05, "timeout": 10} | changes))


def check(value: dict[str, Any], count: int = 60) -> None:
    counts = value["counts"]
    assert counts["recipients"] == counts["finished"] == counts["answered"] + counts["not_reached"] == count
    assert counts["not_reached"] > 0
    assert sum(value["slots"]["a"].values()) == counts["answered"]
    assert len(value["results"]) == count


def test_waits_for_a_campaign(sandbox: SandboxProcess, run: Run) -> None:
    check(run.execute(wait(campaign=submitted(run))))


def test_ids_may_be_a_list_or_a_query(sandbox: SandboxProcess, run: Run, audience_db: FillDb) -> None:
    submitted(run)
    ids = [f"B{number}" for number in range(60)]
    check(run.execute(wait(biz_ids=ids, required_slots=["a"])))
    audience_db(["id", "kind"], [(biz_id, 1) for biz_id in ids] + [("B99", 2), (None, 1)])
    query = {
        "ids_sql": "SELECT id FROM audience WHERE kind = ?",
        "ids_parameters": [1],
        "ids_conn_id": "audience_db",
    }
    check(run.execute(wait(**query, required_slots=["a"])))


def test_ids_beyond_the_xcom_limit_come_from_the_submit_query(
    sandbox: SandboxProcess, run: Run, audience_db: FillDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "5")
    audience_db(["id", "tel"], [(f"B{number}", f"1000000{number:04}") for number in range(60)])
    manifest = submitted(
        run,
        audience=None,
        sql="SELECT id, tel FROM audience",
        sql_conn_id="audience_db",
        columns={"biz_id": "ID", "phone_number": "tel"},
        task_defaults={"input_params": {}},
    )
    value = run.execute(wait(campaign=manifest))
    assert value["counts"]["finished"] == 60
    assert value["results"] is None
    audience_db(["id", "tel"], [("B1", "x")])
    assert (
        "accepted 60 recipients, but the submit task's query gives 1 ids, which are not those"
        in run.fails(wait(campaign=manifest))
    )


def test_without_a_status_filled_slots_decide(sandbox: SandboxProcess, run: Run) -> None:
    manifest = submitted(run)
    one = wait(campaign=manifest, result_query=NO_STATUS, complete_ratio=0.5)
    value = run.execute(one)
    assert value["counts"]["not_reached"] == 0
    assert value["counts"]["waiting"] > 0
    with pytest.raises(AirflowSensorTimeout):
        run.execute(wait(campaign=manifest, result_query=NO_STATUS, timeout=0.2))
    with pytest.raises(AirflowSkipException):
        run.execute(wait(campaign=manifest, result_query=NO_STATUS, timeout=0.2, soft_fail=True))


def test_unknown_slots_are_warned_of(
    sandbox: SandboxProcess, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run.execute(wait(campaign=submitted(run), required_slots=["a", "aa"]))
    (warning,) = [record.getMessage() for record in caplog.records if "output_slots" in record.getMessage()]
    assert warning.startswith("'aa' is not one of the campaign's output_slots (did you mean 'a'?)")


def test_reschedule_mode_polls_once(sandbox: SandboxProcess, run: Run) -> None:
    one = wait(campaign=submitted(run), result_query=NO_STATUS, mode="reschedule")
    assert one.poke(run.context("wait")) is False
    done = wait(campaign=run.manifest(), mode="reschedule").poke(run.context("wait"))
    check(done.xcom_value)  # type: ignore[union-attr]


def test_unknown_recipients_are_waited_for(sandbox: SandboxProcess, run: Run) -> None:
    submitted(run, 3)
    assert wait(biz_ids=["B1", "unknown"], required_slots=["a"]).poke(run.context("wait")) is False


def test_failed_look_up_is_retried_by_the_next_poke(sandbox: SandboxProcess, run: Run) -> None:
    one = wait(campaign=submitted(run), lingyang_conn_id="lingyang_default")
    sandbox.add_fault(kind="http", status=502, method=RESULT_QUERY["method"], times=6)
    assert one.poke(run.context("wait")) is False
    check(run.execute(one))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "give one source of ids"),
        ({"biz_ids": ["1"], "campaign": {}}, "give one source of ids"),
        ({"ids_sql": "SELECT 1"}, "ids_sql and ids_conn_id belong together"),
        ({"biz_ids": ["1"], "complete_ratio": 0}, r"complete_ratio must be in \(0, 1\]; it is 0"),
        ({"biz_ids": ["1"], "complete_ratio": 1.01}, "complete_ratio"),
        ({"biz_ids": ["1"], "complete_ratio": "all"}, "complete_ratio"),
        ({"biz_ids": ["1"], "complete_ratio": True}, "complete_ratio"),
        ({"biz_ids": ["1"], "complete_ratio": float("nan")}, "complete_ratio"),
        ({"biz_ids": ["1"], "required_slots": "a"}, "required_slots must be a list"),
    ],
)
def test_invalid_arguments_fail_while_the_dag_is_parsed(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        wait(**changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"biz_ids": []}, "nothing to look up: the list of biz_ids is empty"),
        ({"biz_ids": "B1"}, "biz_ids must be a list; it is a str"),
        ({"biz_ids": ["1", " 1"]}, "1 of the 2 biz_ids are there twice"),
        ({"biz_ids": ["1", None]}, "a biz_id is missing, blank, or neither text nor a whole number"),
        ({"biz_ids": ["1", " "]}, "a biz_id is missing"),
        ({"biz_ids": [1.5]}, "a biz_id is missing"),
        ({"campaign": {"x": 1}}, "campaign must be the manifest"),
        ({"biz_ids": ["1"], "result_query": {**NO_STATUS, "status_field": "s"}}, "a status_field needs done_values or failed_values"),
        ({"campaign": {"counts": {"audience": 1, "accepted": 1}, "biz_ids": {}}}, "campaign must be the manifest"),
        ({"campaign": {"counts": [1], "biz_ids": [1]}}, "campaign must be the manifest"),
        ({"campaign": "None"}, "campaign must be the manifest"),
        ({"campaign": None, "ids_sql": "SELECT 1 AS a, 2 AS b", "ids_conn_id": "audience_db"}, "one column, the biz_id; it selects a, b"),
        ({"campaign": None, "ids_sql": "SELECT 1 WHERE 0", "ids_conn_id": "audience_db"}, "the list of biz_ids is empty"),
        ({"biz_ids": ["1"], "result_query": RESULT_QUERY | {"done_value": []}}, r"'done_value' is no key of it .did you mean 'done_values'\?"),
        ({"biz_ids": ["1"], "result_query": "{"}, "the task's own result_query: it is not JSON"),
        ({"biz_ids": ["1"], "result_query": NO_STATUS}, "cannot decide when a recipient is finished"),
        ({"biz_ids": ["1"], "result_query": RESULT_QUERY | {"method": "no.such.method"}}, "does not know the method"),
        ({"biz_ids": ["1"], "result_query": RESULT_QUERY | {"items_path": "answer.data"}}, "no 'answer' in the answer's root element, which holds: request_id, result"),
    ],
)  # fmt: skip
def test_final_failures_fail_at_once(
    sandbox: SandboxProcess, run: Run, audience_db: FillDb, changes: dict[str, Any], expected: str
) -> None:
    audience_db(["a"], [])
    with pytest.raises(AirflowFailException, match=expected):
        run.execute(rendered(LingyangResultSensor, {"task_id": "wait", "required_slots": []} | changes))


def test_campaign_without_accepted_recipients_fails(sandbox: SandboxProcess, run: Run) -> None:
    sandbox.add_fault(kind="refuse", code="400", message="x")
    assert "has no accepted recipient" in run.fails(wait(campaign=submitted(run)))


def test_ids_are_converted_as_by_the_operator(sandbox: SandboxProcess, run: Run) -> None:
    audience = [bare_row(number) | {"biz_id": number} for number in range(60)]
    submitted(run, audience=audience)
    check(run.execute(wait(biz_ids=[Decimal(f"{number}.00") for number in range(60)], required_slots=["a"])))


def test_campaign_that_renders_to_none_fails(sandbox: SandboxProcess, run: Run) -> None:
    one = wait(campaign={"x": 1})
    one.campaign = None
    assert "campaign is None: the submit task pushed no manifest" in run.fails(one)


@pytest.mark.parametrize("name", ["results_sql", "results_conn_id", "result_query", "lingyang_conn_id"])
def test_arguments_that_render_to_none_fail(sandbox: SandboxProcess, run: Run, name: str) -> None:
    table = {"results_sql": "SELECT 1", "results_conn_id": "db"} if name.startswith("results_") else {}
    one = wait(campaign=submitted(run), **(table or {"result_query": RESULT_QUERY}))
    setattr(one, name, None)
    assert f"{name} was given, but has rendered to nothing" in run.fails(one)


def test_wrong_items_path_is_an_error(sandbox: SandboxProcess, run: Run) -> None:
    query = RESULT_QUERY | {"items_path": "result.dta"}
    assert "no 'dta' in result, which holds: " in run.fails(wait(campaign=submitted(run), result_query=query))


def test_validated_campaign_is_skipped(sandbox: SandboxProcess, run: Run) -> None:
    with pytest.raises(AirflowSkipException, match="validated only"):
        run.execute(wait(campaign=submitted(run, validate_only=True)))


def test_an_empty_campaign_is_complete(sandbox: SandboxProcess, run: Run) -> None:
    value = run.execute(wait(campaign=submitted(run, 0, on_empty="succeed")))
    assert value["counts"]["recipients"] == 0


def test_without_result_query_fails(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sandbox.connection()
    del connection["extra"]["result_query"]
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(connection))
    assert "no look-up is described" in run.fails(wait(biz_ids=["1"]))
