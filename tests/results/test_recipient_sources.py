"""Where the recipients of a campaign are listed, at every size."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import XCom

from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.results.recipient_sources import (
    NothingToWaitForError,
    load_recipients,
    pull_xcom,
    slim_manifest,
)
from airflow_provider_lingyang.results.recipient_store import RecipientStore
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run

COLUMNS = ["biz_id", "phone_number", "input_params"]
SQL = {"sql": "SELECT * FROM audience", "sql_conn_id": "audience_db"}


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"biz_id": f"B{number}", "phone_number": f"1000000{number:04}", "input_params": "{}"} | more


class Submit:
    """Submits campaigns, and loads the recipients of a manifest."""

    def __init__(self, run: Run, store: RecipientStore, fill_db: Callable[..., None]) -> None:
        self.run = run
        self.store = store
        self.fill_db = fill_db

    def audience(self, *rows: Mapping[str, Any]) -> None:
        self.fill_db(COLUMNS, [[each[name] for name in COLUMNS] for each in rows])

    def __call__(self, *, map_index: int = -1, run_id: str = "run", **arguments: Any) -> dict[str, Any]:
        base: dict[str, Any] = {"task_id": "submit", "plan_id": 1, "output_slots": ["a"]}
        context = self.run.context("submit", run_id=run_id)
        context["ti"].map_index = map_index
        manifest: dict[str, Any] = LingyangSubmitBatchOperator(**(base | arguments)).execute(context)
        return manifest

    def recipients_of(self, manifest: Any) -> dict[str, str | None]:
        """``biz_id`` → task id."""
        source = json.loads(json.dumps({"campaign": slim_manifest(manifest)}))
        assert len(json.dumps(source)) < 2000
        load_recipients(self.store, source)
        return {biz_id: task_id for _, biz_id, task_id in self.store.unfinished()}


@pytest.fixture
def submit(
    sandbox: SandboxProcess,
    run: Run,
    store: RecipientStore,
    audience_db: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Submit:
    # Of any run and map index.
    monkeypatch.setattr(XCom, "get_one", lambda *, task_id, key, **_: run.xcom.get((task_id, key)))
    return Submit(run, store, audience_db)


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
    found = submit.recipients_of(submit(audience=[row(1), row(2)]))
    assert found.keys() == ids(1, 2)
    assert all(task_id and int(task_id) > 0 for task_id in found.values())


def test_an_xcom_that_is_not_the_campaigns_is_noticed(submit: Submit) -> None:
    manifest = submit(audience=[row(1), row(2)])
    for others in (["B1"], ["B1", "B3"]):
        submit.run.xcom["submit", "biz_ids"] = others
        with pytest.raises(
            ArgumentError, match=f"its XCom biz_ids gives {len(others)} ids, which are not those"
        ):
            submit.recipients_of(manifest)
        submit.store.clear()


def test_task_ids_of_other_ids_are_ignored(submit: Submit) -> None:
    manifest = submit(audience=[row(1), row(2)])
    # As an earlier part of the task would have left them, before it was deferred.
    submit.run.xcom["submit", "task_ids"] = [7]
    assert submit.recipients_of(manifest) == {"B1": None, "B2": None}


@pytest.mark.usefixtures("few")
class TestMoreThanXComCarries:
    def test_recipients_come_from_the_submit_tasks_query(self, submit: Submit) -> None:
        submit.audience(*map(row, range(6)))
        assert submit.recipients_of(submit(**SQL)).keys() == ids(*range(6))

    def test_rejected_recipients_are_left_out(self, submit: Submit, sandbox: SandboxProcess) -> None:
        sandbox.add_fault(kind="partial", first=5)
        submit.audience(*map(row, range(8)))
        manifest = submit(**SQL)
        assert manifest["counts"]["rejected"] == 3
        assert submit.recipients_of(manifest).keys() == ids(*range(5))

    def test_rejected_recipients_beyond_the_xcom_limit_are_an_error(
        self, submit: Submit, sandbox: SandboxProcess
    ) -> None:
        sandbox.add_fault(kind="partial", first=4)
        submit.audience(*map(row, range(8)))
        with pytest.raises(ArgumentError, match="neither a ledger_conn_id nor a query"):
            submit.recipients_of(submit(**SQL))

    def test_changed_query_result_of_the_same_length_is_an_error(self, submit: Submit) -> None:
        submit.audience(*map(row, range(6)))
        manifest = submit(**SQL)
        submit.audience(*map(row, range(1, 7)))
        with pytest.raises(
            ArgumentError, match="the submit task's query gives 6 ids, which are not those: use ids_sql"
        ):
            submit.recipients_of(manifest)

    def test_rows_that_were_left_out_are_said_before_anything_is_sent(
        self, submit: Submit, caplog: pytest.LogCaptureFixture
    ) -> None:
        submit.audience(*map(row, range(6)), row(6, phone_number="none"))
        with caplog.at_level(logging.WARNING):
            manifest = submit(**SQL, on_invalid="skip")
        assert "its query gives 1 more recipients, left out here: a LingyangResultSensor" in caplog.text
        with pytest.raises(ArgumentError, match="neither a ledger_conn_id nor a query"):
            submit.recipients_of(manifest)

    def test_recipients_come_from_a_sql_ledger_also_when_rows_were_left_out(
        self, submit: Submit, ledger: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        submit.audience(*map(row, range(6)), row(6, phone_number="none"))
        with caplog.at_level(logging.WARNING):
            manifest = submit(**SQL, **ledger, on_invalid="skip")
        assert "LingyangResultSensor" not in caplog.text
        found = submit.recipients_of(manifest)
        assert found.keys() == ids(*range(6))
        assert all(found.values())

    def test_recipients_with_derived_ids_come_from_the_ledger(
        self, submit: Submit, ledger: dict[str, str]
    ) -> None:
        rows = [{"phone_number": f"1000000{number:04}", "input_params": {}} for number in range(5)]
        found = submit.recipients_of(submit(audience=rows, **ledger))
        assert len(found) == 5

    def test_shared_campaign_yields_only_this_audience(self, submit: Submit, ledger: dict[str, str]) -> None:
        shared = {**SQL, **ledger, "campaign_key": "spring"}
        submit.audience(*map(row, range(4)))
        submit(**shared, run_id="yesterday")
        submit.audience(*map(row, range(2, 8)))
        manifest = submit(**shared)
        assert (manifest["counts"]["accepted"], manifest["counts"]["already_accepted"]) == (4, 2)
        assert submit.recipients_of(manifest).keys() == ids(*range(2, 8))

    def test_recipients_of_a_mapped_instance_are_its_own(
        self, submit: Submit, ledger: dict[str, str]
    ) -> None:
        first = submit(audience=[row(number) for number in range(5)], **ledger, map_index=0)
        second = submit(audience=[row(number) for number in range(5, 10)], **ledger, map_index=1)
        assert submit.recipients_of(first).keys() == ids(*range(5))
        submit.store.clear()
        assert submit.recipients_of(second).keys() == ids(*range(5, 10))

    def test_recipients_without_a_source_are_an_error(self, submit: Submit) -> None:
        manifest = submit(audience=[row(number) for number in range(5)])
        with pytest.raises(ArgumentError, match=r"5 ids are more than XCom carries .* neither"):
            submit.recipients_of(manifest)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (None, "campaign is None: the submit task pushed no manifest"),
        ({"x": 1}, "campaign must be the manifest"),
        ({"counts": {"audience": 1, "accepted": 1}, "biz_ids": {}}, "campaign must be the manifest"),
        ("None", "campaign must be the manifest"),
        ([{"x": 1}, {"x": 2}], "This is a list: .* a task in a loop needs its wait in the same loop"),
    ],
)
def test_invalid_manifest_is_an_error(manifest: Any, expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        slim_manifest(manifest)


def test_a_campaign_without_accepted_recipients(submit: Submit, sandbox: SandboxProcess) -> None:
    with pytest.raises(NothingToWaitForError, match="validated only"):
        slim_manifest(submit(audience=[row(1)], validate_only=True))
    sandbox.add_fault(kind="refuse")
    with pytest.raises(ArgumentError, match="has no accepted recipient"):
        slim_manifest(submit(audience=[row(1)]))
    assert submit.recipients_of(submit(audience=[], on_empty="succeed")) == {}


def test_ids_of_a_query_are_read_as_the_operator_reads_them(
    store: RecipientStore, audience_db: Callable[..., None]
) -> None:
    audience_db(["id", "kind"], [(7, 1), (" x ", 1), (None, 1), (8, 2)])
    query = {"sql": "SELECT id FROM audience WHERE kind = ?", "conn_id": "audience_db", "parameters": [1]}
    load_recipients(store, {"query": query})
    assert [biz_id for _, biz_id, _ in store.unfinished()] == ["7", "x"]


def test_ids_may_be_in_another_tasks_xcom(store: RecipientStore, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
    expected = pointer | {"key": "biz_ids"}
    monkeypatch.setattr(XCom, "get_one", lambda **asked: ["1", "2"] if asked == expected else None)
    load_recipients(store, {"xcom": pointer})
    assert len(store) == 2


def test_reads_xcoms_by_pointer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(XCom, "get_one", lambda **names: asked.append(names))
    pointer = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "digest": "0"}
    pull_xcom(pointer, "biz_ids")
    assert asked == [{"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "key": "biz_ids"}]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("cannot import name 'SUPERVISOR_COMMS' from 'task_runner'", "lets no trigger read one"),
        ("No module named 'the_users_xcom_backend'", "the_users_xcom_backend"),
    ],
)
def test_error_where_a_trigger_cannot_read_xcoms(
    monkeypatch: pytest.MonkeyPatch, missing: str, expected: str
) -> None:
    def fails(**_: Any) -> None:
        raise ImportError(missing)

    monkeypatch.setattr(XCom, "get_one", fails)
    pointer = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}
    with pytest.raises((ArgumentError, ImportError), match=expected) as caught:
        pull_xcom(pointer, "biz_ids")
    assert isinstance(caught.value, ArgumentError) == ("SUPERVISOR_COMMS" in missing)
