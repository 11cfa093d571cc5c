"""The command line that shows what a ledger knows."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from airflow_provider_lingyang.ledger.__main__ import main
from airflow_provider_lingyang.ledger.base import Outcome
from tests.conftest import AirflowCli
from tests.ledger.conftest import SqlLedgers

COUNTS = {"accepted": 2, "rejected": 1, "not_executed": 0, "in_doubt": 3}


@pytest.fixture(autouse=True)
def process_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets for its own process ends with the test."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")


@pytest.fixture
def campaigns(database: SqlLedgers) -> SqlLedgers:
    first = database.start(campaign_key="春季")
    first.write([], [database.intent("code-2", ["c", "d "], written_at=1700000060)])
    first.write([], [database.intent("code-1", ["客户1", "b", "x", "y"], written_at=1700000000)])
    first.write([Outcome("code-1", {"客户1": 11, "y": None}, ["x"], (), ["b"])], [])
    second = database.start(campaign_key="autumn", plan_id=5)
    second.write([], [database.intent("code-1", ["p", "q"])])
    second.write([Outcome("code-1", {"q": 12}, (), ["p"])], [])
    second.finish()
    return database


def show(capsys: Any, *args: str) -> Any:
    capsys.readouterr()  # what Airflow logged before
    assert main(["list", "--conn-id", "ledger", "--json", *args]) == 0
    return json.loads(capsys.readouterr().out)


def test_all_campaigns_are_listed_with_their_counts(
    campaigns: SqlLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = show(capsys)
    assert first.pop("opened").endswith("+08:00")
    assert first == {
        "campaign_key": "春季",
        "plan_id": 1,
        "generation": 1,
        "finished": False,
        "counts": COUNTS,
    }
    assert (second["campaign_key"], second["plan_id"], second["finished"]) == ("autumn", 5, True)
    assert second["counts"] == {"accepted": 1, "rejected": 0, "not_executed": 1, "in_doubt": 0}


def test_a_campaign_is_shown_with_its_requests_in_doubt(
    campaigns: SqlLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = show(capsys, "--campaign-key", "春季")
    assert found["counts"] == COUNTS
    assert found["requests_in_doubt"] == [
        {
            "task_unique_code": "code-1",
            "batch_num": "7",
            "written_at": "2023-11-15T06:13:20+08:00",
            "biz_ids": ["b"],
        },
        {
            "task_unique_code": "code-2",
            "batch_num": "7",
            "written_at": "2023-11-15T06:14:20+08:00",
            "biz_ids": ["c", "d "],
        },
    ]
    assert "accepted" not in found


def test_accepted_ids_are_shown_when_they_are_asked_for(
    campaigns: SqlLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(capsys, "--campaign-key", "春季", "--biz-ids")[0]["accepted"] == ["客户1", "y"]


def test_every_generation_of_a_campaign_is_listed(
    database: SqlLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    first = database.start()
    first.write([], [database.intent("one", "a")])
    first.finish()
    database.next_try(max_tries=1, resubmit=True)
    assert [
        (found["generation"], found["counts"]["in_doubt"]) for found in show(capsys, "--plan-id", "1")
    ] == [
        (1, 1),
        (2, 0),
    ]


def test_lines_hold_the_same_as_json(campaigns: SqlLedgers, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--conn-id", "ledger", "--campaign-key", "春季"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('campaign_key "春季"  plan_id 1  generation 1  opened 20')
    assert lines[0].endswith("finished no  accepted 2, rejected 1, not_executed 0, in_doubt 3")
    assert lines[1:3] == [
        '  in doubt: code-1  batch_num "7"  written_at 2023-11-15T06:13:20+08:00  biz_ids ["b"]',
        '  in doubt: code-2  batch_num "7"  written_at 2023-11-15T06:14:20+08:00  biz_ids ["c", "d "]',
    ]
    assert "settle={CODE: 'accepted'}" in lines[3]
    assert main(["list", "--conn-id", "ledger"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ['"春季"', '"autumn"']


def test_a_request_in_doubt_is_named_with_the_number_of_its_intent(
    campaigns: SqlLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = campaigns.start(campaign_key="third")
    for again in (False, True):
        ledger.write([Outcome("code-9", {}, (), ["x"])] if again else [], [])
        ledger.write([], [campaigns.intent("code-9", ["x"], again=again)])
    (found,) = show(capsys, "--campaign-key", "third")
    (request,) = found["requests_in_doubt"]
    assert (request["task_unique_code"], request["settle"]) == ("code-9", "code-9#2")
    assert main(["list", "--conn-id", "ledger", "--campaign-key", "third"]) == 0
    assert "  in doubt: code-9#2  batch_num" in capsys.readouterr().out


def test_listing_changes_nothing(campaigns: SqlLedgers, capsys: pytest.CaptureFixture[str]) -> None:
    before = campaigns.everything()
    show(capsys, "--plan-id", "1", "--biz-ids")
    assert campaigns.everything() == before


def fails(capsys: Any, *args: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["list", *args])
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return code, said.err


@pytest.mark.parametrize(
    "args",
    [["--campaign-key", "autum"], ["--campaign-key", "AUTUMN"], ["--campaign-key", "春季", "--plan-id", "5"]],
)
def test_a_campaign_that_is_not_there_is_an_error(
    campaigns: SqlLedgers, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    code, said = fails(capsys, "--conn-id", "ledger", *args)
    assert code == 1
    assert f"knows no campaign with campaign_key {args[1]!r}" in said


def test_a_database_without_tables_says_that_no_campaign_has_used_it(
    database: SqlLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fails(capsys, "--conn-id", "ledger")
    assert code == 1
    assert "no campaign has used this database yet" in said


def test_a_database_that_does_not_answer_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": "/nowhere/ledger.db"})
    )
    code, said = fails(capsys, "--conn-id", "ledger")
    assert code == 1
    assert "cannot be reached: OperationalError" in said


@pytest.mark.parametrize("args", [["--biz-ids"], ["--biz-ids", "--json"], ["--plan-id", "x"]])
def test_invalid_arguments_are_refused(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["list", "--conn-id", "ledger", *args])
    assert caught.value.code == 2


def test_connections_are_found_wherever_airflow_keeps_them(airflow_cli: AirflowCli) -> None:
    from airflow_provider_lingyang.ledger.base import Header, Intent
    from airflow_provider_lingyang.ledger.sql import SqlLedger
    from airflow_provider_lingyang.ledger.task_try import TaskTry

    def run(*args: str, **env: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "airflow_provider_lingyang.ledger", "list", *args]
        result = airflow_cli.command(
            ["sh", "-c", 'exec "$@" 2>"$0"', "errors", *command], airflow_cli.env | env
        )
        errors = (airflow_cli.home / "errors").read_text()
        assert "Traceback" not in errors
        return result.returncode, result.stdout, errors

    # What others print while Airflow starts is no result.
    settings = airflow_cli.home / "config" / "airflow_local_settings.py"
    settings.parent.mkdir()
    settings.write_text('print("said while it starts")')
    path = airflow_cli.home / "ledger.db"
    sqlite = json.dumps({"conn_type": "sqlite", "host": str(path)})
    added = airflow_cli("connections", "add", "stored", "--conn-json", sqlite)
    assert added.returncode == 0, added.stdout
    code, printed, said = run("--conn-id", "stored")
    assert (code, printed) == (1, "")
    assert "no campaign has used this database yet" in said

    from airflow.providers.sqlite.hooks.sqlite import SqliteHook

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_LEDGER", sqlite)
        task_try = TaskTry(dag_id="dag", run_id="run", task_id="submit", map_index=-1, try_number=1)
        ledger = SqlLedger(SqliteHook("ledger"), "ledger", "campaign", task_try)
        ledger.claim()
        ledger.open(Header.of(host="https://gateway.test", app_key="app", app_secret="secret", plan_id=1))
        ledger.write([], [Intent("code", None, ["客户"], "digest", 1.5)])
        ledger.close()
    code, stored, _ = run("--conn-id", "stored", "--plan-id", "1", "--json")
    assert code == 0
    assert json.loads(stored)[0]["requests_in_doubt"][0]["biz_ids"] == ["客户"]
    assert run("--conn-id", "ledger", "--plan-id", "1", "--json", AIRFLOW_CONN_LEDGER=sqlite)[1] == stored
    assert r"\u5ba2\u6237" in run("--conn-id", "stored", "--plan-id", "1", PYTHONIOENCODING="ascii")[1]

    code, printed, said = run("--conn-id", "nowhere")
    assert (code, printed) == (2, "")
    assert "ledger: the Airflow connection 'nowhere' is not defined" in said
    gateway = json.dumps({"conn_type": "lingyang", "host": "https://gateway.test"})
    code, printed, said = run("--conn-id", "gateway", AIRFLOW_CONN_GATEWAY=gateway)
    assert (code, printed) == (2, "")
    assert "not a SQL database" in said
