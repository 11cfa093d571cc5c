"""The commands that show what a ledger knows, in every format of Airflow's own commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
import yaml

from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.sql_views import SHOWN
from tests.conftest import AirflowCli
from tests.ledger.conftest import Command, SqlLedgers

NONE = dict.fromkeys(SHOWN.values(), 0)
COUNTS = NONE | {"accepted": 2, "rejected": 1, "in_doubt": 3}


@pytest.fixture
def campaigns(database: SqlLedgers) -> SqlLedgers:
    first = database.start(campaign_key="春季")
    first.write([], [database.intent("code-2", ["c", "d "], written_at=1700000060)])
    first.write([], [database.intent("code-1", ["客户1", "b", "x", "y"], written_at=1700000000)])
    first.write([Outcome("code-1", {"客户1": 11, "y": None}, ["x"], (), ["b"])], [])
    second = database.start(campaign_key="autumn", plan_id=5, run_id="[blue]run")
    second.write([], [database.intent("code-1", ["p", "q"])])
    second.write([Outcome("code-1", {"q": 12}, (), ["p"])], [])
    second.finish()
    return database


def test_all_campaigns_are_listed_with_their_counts(campaigns: SqlLedgers, command: Command) -> None:
    first, second = command.json("list")
    assert first.pop("started_at").endswith("+08:00")
    assert first == {
        "campaign_key": "春季",
        "plan_id": 1,
        "generation": 1,
        "dag_id": "dag",
        "run_id": "run",
        "ended_at": None,
        "finished": False,
        "pruned_at": None,
        **COUNTS,
    }
    assert (second["campaign_key"], second["plan_id"], second["finished"]) == ("autumn", 5, True)
    assert {name: second[name] for name in COUNTS} == NONE | {"accepted": 1, "not_sent": 1}
    assert second["ended_at"].endswith("+08:00")


def test_a_campaign_is_shown_with_its_requests_in_doubt(campaigns: SqlLedgers, command: Command) -> None:
    (found,) = command.json("show", "--campaign-key", "春季")
    assert {name: found[name] for name in COUNTS} == COUNTS
    alive = "dag/run/submit has not noted its end, and a process of it may still send"
    common = {"batch_num": "7", "may_be_sent": True, "why": alive}
    assert found["requests_in_doubt"] == [
        common
        | {"settle": "code-1", "recipients": 1, "biz_ids": ["b"], "written_at": "2023-11-15T06:13:20+08:00"},
        common
        | {
            "settle": "code-2",
            "recipients": 2,
            "biz_ids": ["c", "d "],
            "written_at": "2023-11-15T06:14:20+08:00",
        },
    ]
    assert "accepted_biz_ids" not in found


def test_accepted_ids_are_shown_when_they_are_asked_for(campaigns: SqlLedgers, command: Command) -> None:
    (found,) = command.json("show", "--campaign-key", "春季", "--biz-ids")
    assert found["accepted_biz_ids"] == ["客户1", "y"]


def test_every_generation_of_a_campaign_is_listed(database: SqlLedgers, command: Command) -> None:
    first = database.start()
    first.write([], [database.intent("one", "a")])
    first.finish()
    database.next_try(max_tries=1, resubmit=True)
    found = command.json("list", "--plan-id", "1")
    assert [(one["generation"], one["in_doubt"]) for one in found] == [(1, 1), (2, 0)]


def test_every_format_holds_the_same(campaigns: SqlLedgers, command: Command) -> None:
    plain = command("list", "--output", "plain")[1].splitlines()
    assert plain[0].split() == [
        *("campaign_key", "plan_id", "generation", "started_at", "ended_at"),
        *COUNTS,
    ]
    assert [line.split()[0] for line in plain[1:]] == ["春季", "autumn"]
    assert plain[1].split()[-len(COUNTS) :] == [str(count) for count in COUNTS.values()]
    table = command("list")[1]
    assert "autumn" in table and "====" in table
    assert yaml.safe_load(command("list", "--output", "yaml")[1]) == command.json("list")


def test_requests_in_doubt_are_a_table_of_their_own(campaigns: SqlLedgers, command: Command) -> None:
    _, printed, said = command("show", "--campaign-key", "春季", "--output", "plain")
    lines = printed.splitlines()
    assert lines[2] == ""
    assert [line.split()[0] for line in lines[3:]] == ["settle", "code-1", "code-2"]
    # Blanks count.
    assert 'c, "d "' in lines[5]
    assert "settle={CODE: 'accepted'}" in said


def test_a_name_is_no_markup_and_a_control_character_no_command(
    database: SqlLedgers, command: Command
) -> None:
    database.start(campaign_key="[red]\x1b[31m:smile:")
    for output in ("table", "plain"):
        assert r"[red]\u001b[31m:smile:" in command("list", "--output", output)[1]


def test_a_request_in_doubt_is_named_with_the_number_of_its_intent(
    campaigns: SqlLedgers, command: Command
) -> None:
    ledger = campaigns.start(campaign_key="third")
    for again in (False, True):
        ledger.write([Outcome("code-9", {}, (), ["x"])] if again else [], [])
        ledger.write([], [campaigns.intent("code-9", ["x"], again=again)])
    (found,) = command.json("show", "--campaign-key", "third")
    (request,) = found["requests_in_doubt"]
    assert request["settle"] == "code-9#2"


def test_a_request_that_no_process_can_send_any_more_says_so(database: SqlLedgers, command: Command) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("one", "a")])
    ledger.release()
    (request,) = command.json("show", "--plan-id", "1")[0]["requests_in_doubt"]
    assert (request["may_be_sent"], request["why"]) == (False, None)


def test_a_request_whose_recipients_are_all_settled_is_not_shown(
    campaigns: SqlLedgers, command: Command
) -> None:
    """The table of requests says how many are in doubt at most."""
    campaigns.sql("UPDATE lingyang_ledger_request SET in_doubt=2")
    assert command.json("show", "--campaign-key", "autumn")[0]["requests_in_doubt"] == []


def test_listing_changes_nothing(campaigns: SqlLedgers, command: Command) -> None:
    before = campaigns.everything()
    command.json("show", "--plan-id", "1", "--biz-ids")
    command.json("list")
    command.json("stats")
    assert campaigns.everything() == before


@pytest.mark.parametrize(
    "args",
    [["--campaign-key", "autum"], ["--campaign-key", "AUTUMN"], ["--campaign-key", "春季", "--plan-id", "5"]],
)
@pytest.mark.parametrize("name", ["list", "show"])
def test_a_campaign_that_is_not_there_is_an_error(
    campaigns: SqlLedgers, command: Command, args: list[str], name: str
) -> None:
    assert f"knows no campaign with campaign_key {args[1]!r}" in command.fails(name, *args)


def test_a_database_without_tables_says_that_no_campaign_has_used_it(
    database: SqlLedgers, command: Command
) -> None:
    assert "no campaign has used this database yet" in command.fails("list")


def test_tables_of_an_earlier_version_are_not_read(database: SqlLedgers, command: Command) -> None:
    database.start()
    database.sql("DELETE FROM lingyang_ledger_schema")
    database.sql("INSERT INTO lingyang_ledger_schema VALUES (2, 1.5)")
    said = command.fails("list")
    assert "are of version 2: the next try" in said


def test_a_database_that_does_not_answer_is_an_error(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": "/nowhere/ledger.db"})
    )
    assert "cannot be reached: OperationalError" in command.fails("list")


@pytest.mark.parametrize(
    ("name", "args", "said"),
    [
        ("show", [], "show needs --campaign-key or --plan-id"),
        ("show", ["--plan-id", "1", "--biz-ids"], "--biz-ids needs --output json or yaml"),
        (
            "settle",
            ["--campaign-key", "k", "--plan-id", "1", "CODE=maybe"],
            "must be 'accepted' or 'not_executed'",
        ),
        ("prune", ["--before", "soon"], "--before must be a date, such as 2026-01-31; it is 'soon'"),
        ("forget", [], "forget needs --biz-id or --contact"),
        ("forget", ["--biz-id", "a", "--contact"], "forget needs --biz-id or --contact"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(
    make_sql: Callable[[str], SqlLedgers], command: Command, name: str, args: list[str], said: str
) -> None:
    make_sql("sqlite").start()
    assert said in command.fails(name, *args, code=2)


@pytest.mark.parametrize("args", [["list", "--plan-id", "x"], ["list", "--output", "xml"], ["lists"]])
def test_a_command_line_that_cannot_be_read_ends_with_2(args: list[str]) -> None:
    from airflow_provider_lingyang.ledger.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main([*args, "--conn-id", "ledger"])
    assert caught.value.code == 2


def test_connections_are_found_wherever_airflow_keeps_them(airflow_cli: AirflowCli) -> None:
    from airflow_provider_lingyang.ledger.base import Header, Intent
    from airflow_provider_lingyang.ledger.sql import SqlLedger
    from airflow_provider_lingyang.ledger.task_try import TaskTry

    def run(*args: str, **env: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "airflow_provider_lingyang.ledger", *args]
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
    code, printed, said = run("list", "--conn-id", "stored")
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
    plan = ("--plan-id", "1")
    code, stored, _ = run("show", "--conn-id", "stored", *plan, "-o", "json")
    assert code == 0
    assert json.loads(stored)[0]["requests_in_doubt"][0]["biz_ids"] == ["客户"]
    assert run("show", "--conn-id", "ledger", *plan, "-o", "json", AIRFLOW_CONN_LEDGER=sqlite)[1] == stored
    assert r"\u5ba2\u6237" in run("show", "--conn-id", "stored", *plan, PYTHONIOENCODING="ascii")[1]

    code, printed, said = run("list", "--conn-id", "nowhere")
    assert (code, printed) == (2, "")
    assert "ledger: the Airflow connection 'nowhere' is not defined" in said
    gateway = json.dumps({"conn_type": "lingyang", "host": "https://gateway.test"})
    code, printed, said = run("list", "--conn-id", "gateway", AIRFLOW_CONN_GATEWAY=gateway)
    assert (code, printed) == (2, "")
    assert "not a SQL database" in said
