"""Whose answers: a campaign's ids, at every size, or a reason why they cannot be found."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.results.completion import Rules
from airflow_provider_lingyang.results.recipient_sources import NothingToWaitForError, essence, fill
from airflow_provider_lingyang.results.recipient_store import WaitingList
from airflow_provider_lingyang.sandbox.process import SandboxProcess

COLUMNS = ["biz_id", "phone_number", "input_params"]
SQL = {"sql": "SELECT * FROM audience", "sql_conn_id": "audience_db"}


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"biz_id": f"B{number}", "phone_number": f"1000000{number:04}", "input_params": "{}"} | more


@pytest.fixture
def people() -> Iterator[WaitingList]:
    waiting = WaitingList(Rules(["a"]))
    yield waiting
    waiting.close()


class Submit:
    """A submit task of a run; what it was, and whom a campaign given by its manifest waits for."""

    def __init__(self, run: Any, people: WaitingList, fill_db: Callable[..., None]) -> None:
        self.run = run
        self.people = people
        self.fill_db = fill_db

    def audience(self, *rows: Mapping[str, Any]) -> None:
        self.fill_db(COLUMNS, [[each[name] for name in COLUMNS] for each in rows])

    def __call__(self, *, map_index: int = -1, run_id: str = "run", **arguments: Any) -> dict[str, Any]:
        base: dict[str, Any] = {"task_id": "submit", "plan_id": 1, "output_slots": ["a"]}
        context = self.run.context("submit", run_id=run_id)
        context["ti"].map_index = map_index
        manifest: dict[str, Any] = LingyangSubmitBatchOperator(**(base | arguments)).execute(context)
        return manifest

    def waits_for(self, manifest: Any) -> dict[str, str | None]:
        """``biz_id`` → task id."""
        source = json.loads(json.dumps({"campaign": essence(manifest)}))
        assert len(json.dumps(source)) < 2000
        fill(self.people, source, lambda pointer, key: self.run.xcom.get((pointer["task_id"], key)))
        return {biz_id: task_id for _, biz_id, task_id in self.people.page()}


@pytest.fixture
def submit(
    sandbox: SandboxProcess, run: Any, people: WaitingList, audience_db: Callable[..., None]
) -> Submit:
    return Submit(run, people, audience_db)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """XCom carries three ids."""
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "3")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))
    return {"ledger_conn_id": "ledger"}


def ids(*numbers: int) -> set[str]:
    return {f"B{number}" for number in numbers}


def test_few_ids_come_by_xcom_with_their_tasks(submit: Submit, sandbox: SandboxProcess) -> None:
    found = submit.waits_for(submit(audience=[row(1), row(2)]))
    assert found.keys() == ids(1, 2)
    assert all(task_id and int(task_id) > 0 for task_id in found.values())


def test_an_xcom_that_is_not_the_campaigns_is_noticed(submit: Submit) -> None:
    manifest = submit(audience=[row(1), row(2)])
    for others in (["B1"], ["B1", "B3"]):
        submit.run.xcom["submit", "biz_ids"] = others
        with pytest.raises(ArgumentError, match=f"its XCom biz_ids holds {len(others)}, which are not those"):
            submit.waits_for(manifest)
        submit.people.clear()


def test_tasks_of_other_ids_are_left_alone(submit: Submit) -> None:
    manifest = submit(audience=[row(1), row(2)])
    # As an earlier part of the task would have left them, before it was deferred.
    submit.run.xcom["submit", "task_ids"] = [7]
    assert submit.waits_for(manifest) == {"B1": None, "B2": None}


@pytest.mark.usefixtures("few")
class TestMoreThanXComCarries:
    def test_the_submit_tasks_query_gives_them(self, submit: Submit) -> None:
        submit.audience(*map(row, range(6)))
        assert submit.waits_for(submit(**SQL)).keys() == ids(*range(6))

    def test_without_the_rejected(self, submit: Submit, sandbox: SandboxProcess) -> None:
        sandbox.add_fault(kind="partial", first=5)
        submit.audience(*map(row, range(8)))
        manifest = submit(**SQL)
        assert manifest["counts"]["rejected"] == 3
        assert submit.waits_for(manifest).keys() == ids(*range(5))

    def test_unless_the_rejected_are_more_than_xcom_carries_too(
        self, submit: Submit, sandbox: SandboxProcess
    ) -> None:
        sandbox.add_fault(kind="partial", first=4)
        submit.audience(*map(row, range(8)))
        with pytest.raises(ArgumentError, match="neither a ledger_conn_id nor a query"):
            submit.waits_for(submit(**SQL))

    def test_a_query_that_gives_others_now_is_noticed_even_if_they_are_as_many(self, submit: Submit) -> None:
        submit.audience(*map(row, range(6)))
        manifest = submit(**SQL)
        submit.audience(*map(row, range(1, 7)))
        with pytest.raises(
            ArgumentError, match="the submit task's query gives 6 ids, which are not those: use ids_sql"
        ):
            submit.waits_for(manifest)

    def test_rows_that_were_left_out_are_said_before_anything_is_sent(
        self, submit: Submit, caplog: pytest.LogCaptureFixture
    ) -> None:
        submit.audience(*map(row, range(6)), row(6, phone_number="none"))
        with caplog.at_level(logging.WARNING):
            manifest = submit(**SQL, on_invalid="skip")
        assert "its query gives 1 more, who are left out: a LingyangResultSensor" in caplog.text
        with pytest.raises(ArgumentError, match="neither a ledger_conn_id nor a query"):
            submit.waits_for(manifest)

    def test_a_ledger_in_a_database_knows_them_whatever_was_left_out(
        self, submit: Submit, ledger: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        submit.audience(*map(row, range(6)), row(6, phone_number="none"))
        with caplog.at_level(logging.WARNING):
            manifest = submit(**SQL, **ledger, on_invalid="skip")
        assert "LingyangResultSensor" not in caplog.text
        found = submit.waits_for(manifest)
        assert found.keys() == ids(*range(6))
        assert all(found.values())

    def test_a_ledger_knows_derived_ids_too(self, submit: Submit, ledger: dict[str, str]) -> None:
        rows = [{"phone_number": f"1000000{number:04}", "input_params": {}} for number in range(5)]
        found = submit.waits_for(submit(audience=rows, **ledger))
        assert len(found) == 5

    def test_of_a_campaign_with_other_peoples_runs_only_this_audience(
        self, submit: Submit, ledger: dict[str, str]
    ) -> None:
        everybody = {**SQL, **ledger, "campaign_key": "spring"}
        submit.audience(*map(row, range(4)))
        submit(**everybody, run_id="yesterday")
        submit.audience(*map(row, range(2, 8)))
        manifest = submit(**everybody)
        assert (manifest["counts"]["accepted"], manifest["counts"]["already_accepted"]) == (4, 2)
        assert submit.waits_for(manifest).keys() == ids(*range(2, 8))

    def test_each_instance_of_a_mapped_task_has_its_own(self, submit: Submit, ledger: dict[str, str]) -> None:
        first = submit(audience=[row(number) for number in range(5)], **ledger, map_index=0)
        second = submit(audience=[row(number) for number in range(5, 10)], **ledger, map_index=1)
        assert submit.waits_for(first).keys() == ids(*range(5))
        submit.people.clear()
        assert submit.waits_for(second).keys() == ids(*range(5, 10))

    def test_where_nothing_gives_them_it_says_so(self, submit: Submit) -> None:
        manifest = submit(audience=[row(number) for number in range(5)])
        with pytest.raises(ArgumentError, match=r"5 ids are more than XCom carries .* neither"):
            submit.waits_for(manifest)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (None, "campaign must be the manifest"),
        ({"x": 1}, "campaign must be the manifest"),
        ({"counts": {"audience": 1, "accepted": 1}, "biz_ids": {}}, "campaign must be the manifest"),
        ("None", "campaign must be the manifest"),
    ],
)
def test_what_is_no_manifest(manifest: Any, expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        essence(manifest)


def test_a_campaign_that_reached_nobody(submit: Submit, sandbox: SandboxProcess) -> None:
    with pytest.raises(NothingToWaitForError, match="validated only"):
        essence(submit(audience=[row(1)], validate_only=True))
    sandbox.add_fault(kind="refuse")
    with pytest.raises(ArgumentError, match="accepted nobody"):
        essence(submit(audience=[row(1)]))
    assert submit.waits_for(submit(audience=[], on_empty="succeed")) == {}


def test_ids_of_a_query_are_read_as_the_operator_reads_them(
    people: WaitingList, audience_db: Callable[..., None]
) -> None:
    audience_db(["id", "kind"], [(7, 1), (" x ", 1), (None, 1), (8, 2)])
    query = {"sql": "SELECT id FROM audience WHERE kind = ?", "conn_id": "audience_db", "parameters": [1]}
    fill(people, {"query": query}, lambda *_: None)
    assert [biz_id for _, biz_id, _ in people.page()] == ["7", "x"]


def test_ids_may_be_in_somebodys_xcom(people: WaitingList) -> None:
    pointer = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
    fill(people, {"xcom": pointer}, lambda *asked: ["1", "2"] if asked == (pointer, "biz_ids") else None)
    assert len(people) == 2
