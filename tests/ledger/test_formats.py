"""Goes on from what earlier versions of this package wrote (``formats/``), and refuses what newer ones write."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.errors import LedgerError, LedgerFencedError, LedgerRefusedError
from airflow_provider_lingyang.ledger import sql_migrations
from airflow_provider_lingyang.ledger.__main__ import main
from airflow_provider_lingyang.ledger.base import Outcome, RecordedRequest
from airflow_provider_lingyang.ledger.sql_tables import MIGRATIONS, accepted_recipients
from airflow_provider_lingyang.ledger.task_state import TaskStateLedger
from airflow_provider_lingyang.ledger.task_state_format import encode, read_segment, segment
from airflow_provider_lingyang.ledger.tombstone import Tombstone
from airflow_provider_lingyang.storage.database import UniqueViolationError
from tests.ledger.conftest import Command, Ledgers, SqlLedgers, Store, task_try
from tests.ledger.test_sql_ledger import at_once
from tests.ledger.test_tombstone import AssetStore

FORMATS = Path(__file__).parent / "formats"
NEWER = "of a newer version of airflow-provider-lingyang; .* install the newer version on this worker"
OPEN = ["A1", "R1", "N1", "D1", "N2", "N3", "D2"]
"""Recipients of the first task instance of the open campaign."""


def written_by_version_1(database: SqlLedgers) -> None:
    """Make and fill the tables of version 1."""
    on_mysql = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"
    for statement in FORMATS.joinpath("ledger_version_1.sql").read_text().split(";\n")[:-1]:
        is_table = statement.startswith("CREATE TABLE")
        database.sql(statement + on_mysql if is_table and database.conn_type == "mysql" else statement)


@pytest.fixture
def previous(database: SqlLedgers) -> SqlLedgers:
    written_by_version_1(database)
    return database


def versions(database: SqlLedgers) -> list[int]:
    return sorted(version for (version,) in database.sql("SELECT version FROM lingyang_ledger_schema"))


# --- tables --------------------------------------------------------------------------------------------------------


def test_an_unfinished_campaign_of_version_1_goes_on(previous: SqlLedgers) -> None:
    ledger = previous.next_try(campaign_key="open", map_index=0)
    assert versions(previous) == list(MIGRATIONS)
    assert previous.states(ledger, [*OPEN, "客户-P1", "P2"]) == "arndddd" + "ad"
    requests = {request.task_unique_code: request for request in ledger.history()}
    assert {code: (each.settle_key, each.is_own) for code, each in requests.items()} == {
        "o1": ("o1", True),
        "o2": ("o2#2", True),
        "o3": ("o3", True),
        "p1": ("p1", False),
    }
    # It was killed, so its requests may still be sent; the other task instance has not said what it does.
    assert all(each.others_may_send and each.open_for == 70 for each in requests.values())
    assert (requests["o2"].written_at, requests["o3"].batch_num) == (1_700_000_100.5, None)
    assert ledger.fact("limit") == {"until": 1_700_000_200}
    ledger.take_over(["o1", "o2", "o3"])
    ledger.end_others(["o1", "o2", "o3"])
    ledger.write(
        [Outcome("o1", {"D1": 302}), Outcome("o2", {}, not_executed=["N2", "N3"]), Outcome("o3", {}, ["D2"])],
        [previous.intent("o9", ["new"])],
    )
    ledger.write(
        [], [previous.intent("o2", ["N2", "N3"], again=True), previous.intent("o4", ["N1"], again=True)]
    )
    assert previous.states(ledger, [*OPEN, "new"]) == "ardaddr" + "d"
    assert (ledger.number("o2"), ledger.number("o9")) == (3, 3)
    accepted = {
        code: dict.fromkeys(ids) for code, ids in {"o2": ["N2", "N3"], "o4": ["N1"], "o9": ["new"]}.items()
    }
    ledger.write([Outcome(code, ids) for code, ids in accepted.items()], [])
    ledger.finish()
    ledger.release()
    sql, parameters = accepted_recipients(ledger.handle, "?", of_task_instance=True)
    for parameter in parameters:
        sql = sql.replace("?", str(parameter) if isinstance(parameter, int) else f"'{parameter}'", 1)
    assert {biz_id for biz_id, _ in previous.sql(sql)} == {"A1", "D1", "N1", "N2", "N3", "new"}
    # Cleared to send to all again: the other task instance has sent to recipients of its own.
    with pytest.raises(LedgerRefusedError, match="other tasks or runs"):
        previous.start(campaign_key="open", map_index=0, try_number=3, max_tries=2, resubmit=True)


def test_the_other_task_instance_of_version_1_goes_on(previous: SqlLedgers) -> None:
    ledger = previous.next_try(campaign_key="open", map_index=1)
    requests = {request.task_unique_code: request for request in ledger.history()}
    # It was released, so nothing can send its request any more.
    assert {code: each.others_may_send for code, each in requests.items() if each.is_own} == {"p1": False}
    ledger.take_over(["p1"])
    ledger.write([Outcome("p1", {}, not_executed=["P2"])], [])
    ledger.write([], [previous.intent("p2", ["P2"], again=True)])
    with pytest.raises(LedgerFencedError, match="another task of the same campaign"):
        ledger.write([], [previous.intent("p3", ["A1"])])
    assert previous.states(ledger, ["P2", "A1"]) == "da"


def test_finished_campaigns_of_version_1_repeat_no_recipient(previous: SqlLedgers) -> None:
    finished = previous.next_try(campaign_key="finished")
    assert previous.states(finished, ["F1", "客户-F2"]) == "ar"
    assert finished.handle["generation"] == 1
    again = previous.start(campaign_key="again", try_number=3, max_tries=1, resubmit=True)
    assert again.handle["generation"] == 2
    assert previous.states(again, ["G1", "G2"]) == "ad"


def old_ids(database: SqlLedgers) -> set[str]:
    return {biz_id for (biz_id,) in database.sql("SELECT biz_id FROM lingyang_ledger_recipient_2")}


def test_a_recipient_is_forgotten_in_the_tables_before_version_3_too(
    previous: SqlLedgers, command: Command
) -> None:
    previous.next_try(campaign_key="open", map_index=0).release()
    before = old_ids(previous)
    names = ("--biz-id", "A1", "D1", "客户-F2")
    counted = command.json("forget", *names, code=1)
    assert old_ids(previous) == before
    assert command.json("forget", *names, "--yes", code=1) == counted
    assert sorted((one["campaign_key"], one["recipients"]) for one in counted) == [
        ("finished", 1),
        ("open", 1),
    ]
    # D1 is in doubt.
    assert old_ids(previous) == before - {"A1", "客户-F2"} | {""}
    erased = previous.sql("SELECT state, task_id FROM lingyang_ledger_recipient_2 WHERE biz_id=''")
    assert sorted(map(tuple, erased)) == [("accepted", None), ("rejected", None)]
    # As an earlier version has left it.
    previous.sql("UPDATE lingyang_ledger_recipient_2 SET biz_id='A1' WHERE biz_id='' AND state='accepted'")
    assert [one["recipients"] for one in command.json("forget", "--biz-id", "A1", "--yes")] == [1]
    assert "A1" not in old_ids(previous)
    assert command.json("forget", "--biz-id", "A1", "--yes") == []


@pytest.mark.parametrize("closes", [True, False])
def test_prune_deletes_from_the_tables_before_version_3(
    previous: SqlLedgers, command: Command, closes: bool
) -> None:
    ledger = previous.next_try(campaign_key="finished")
    ledger.finish()
    ledger.release()
    before = old_ids(previous)
    pruned = ("prune", "--before", "2099-01-01", "--yes", *(["--close-campaigns"] if closes else []))
    (done,) = [line for line in command.json(*pruned) if line["what"] in ("erased", "deleted")]
    assert (done["what"], done["recipients"]) == ("deleted" if closes else "erased", 2)
    assert old_ids(previous) == before - {"F1", "客户-F2"}
    codes = {code for (code,) in previous.sql("SELECT task_unique_code FROM lingyang_ledger_request_2")}
    assert "f1" not in codes and {"g1", "o1"} <= codes
    facts = {line["name"]: line["value"] for line in command.json("stats")}
    (name,) = [name for name in facts if "may be dropped" in name]
    assert facts[name] == len(previous.sql("SELECT biz_id FROM lingyang_ledger_recipient_2")) > 0


def test_first_processes_after_an_upgrade_change_the_tables_together(previous: SqlLedgers) -> None:
    def claim(number: int) -> bool:
        with closing(previous.new(campaign_key="open", map_index=number)) as ledger:
            known: bool = ledger.claim()
            return known

    assert at_once([partial(claim, number) for number in range(6)]) == [True] * 6
    assert versions(previous) == list(MIGRATIONS)


def test_a_process_of_version_1_that_still_runs_writes_no_intent(previous: SqlLedgers) -> None:
    previous.next_try(campaign_key="open", map_index=1).release()
    # As version 1 writes them.
    for statement in FORMATS.joinpath("ledger_version_1.sql").read_text().split(";\n"):
        if statement.startswith("INSERT INTO lingyang_ledger_re"):
            with pytest.raises(Exception, match=r"(?i)column|value"):
                previous.sql(statement)


def test_recipients_are_moved_by_their_key_whatever_the_database_made_of_their_id(
    previous: SqlLedgers,
) -> None:
    previous.sql("UPDATE lingyang_ledger_recipient SET biz_id='??' WHERE biz_id IN ('A1', 'R1')")
    ledger = previous.next_try(campaign_key="open", map_index=0)
    assert previous.states(ledger, OPEN) == "arndddd"
    with pytest.raises(LedgerFencedError, match="another task of the same campaign"):
        ledger.write([], [previous.intent("o9", ["A1"])])


def test_rows_that_cannot_be_moved_end_every_try(
    previous: SqlLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UniqueViolationError("a key is there twice")

    with monkeypatch.context() as patch:
        patch.setattr(sql_migrations, "move", refuse)
        for _ in range(2):
            with pytest.raises(LedgerRefusedError, match=r"cannot be moved.*so nothing is sent"):
                previous.next_try(campaign_key="open", map_index=0)
        assert versions(previous) == []
    ledger = previous.next_try(campaign_key="open", map_index=0)
    assert previous.states(ledger, OPEN) == "arndddd"


def test_migrations_only_add_what_an_earlier_version_need_not_know() -> None:
    known: set[str] = set()
    for number, tables in MIGRATIONS.items():
        for table in tables.keys() & known:
            for column in tables[table].splitlines():
                assert number == 3 or "NOT NULL" not in column or "DEFAULT" in column
        known |= tables.keys()


def test_a_table_that_lacks_columns_gets_them(previous: SqlLedgers) -> None:
    for table, column in (("campaign", "facts"), ("request", "intents"), ("request", "open_for")):
        previous.sql(f"ALTER TABLE lingyang_ledger_{table} DROP COLUMN {column}")
    ledger = previous.next_try(campaign_key="open", map_index=0)
    assert {(each.number, each.open_for) for each in ledger.history()} == {(1, 120.0)}
    assert ledger.fact("limit") is None


@pytest.fixture
def newer(database: SqlLedgers) -> SqlLedgers:
    ledger = database.start()
    ledger.write([], [database.intent("code", "ab")])
    ledger.release()
    database.sql("INSERT INTO lingyang_ledger_schema (version, applied_at) VALUES (99, 1.5)")
    return database


def test_tables_of_a_newer_version_are_refused_before_anything_is_written(newer: SqlLedgers) -> None:
    before = newer.everything()
    with pytest.raises(LedgerRefusedError, match=rf"'ledger'\) has format 99, {NEWER}"):
        newer.new(try_number=2).claim()
    assert newer.everything() == before


def test_tables_of_a_newer_version_are_not_listed(
    newer: SqlLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--conn-id", "ledger"]) == 1
    assert "has format 99" in capsys.readouterr().err


@pytest.mark.proof
def test_missing_database_permissions_are_reported(
    make_sql: Callable[[str], SqlLedgers], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_sql("psycopg2")
    written_by_version_1(database)
    owner = os.environ["AIRFLOW_CONN_LEDGER"]
    role = "sends_only"
    database.sql(f"DROP ROLE IF EXISTS {role}")
    database.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'sends'")
    try:
        database.sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        account = json.dumps(json.loads(owner) | {"login": role, "password": "sends"})
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER", account)
        with pytest.raises(LedgerError, match="cannot be read, made or changed") as caught:
            database.new(campaign_key="open").claim()
        statements = (
            str(caught.value).partition("by one that may: ")[2].partition(". Do not drop")[0].split("; ")
        )
        assert [statement.split("(")[0].strip() for statement in statements] == [
            "ALTER TABLE lingyang_ledger_worker ADD finished INTEGER",
            *(
                f"ALTER TABLE lingyang_ledger_worker ADD {name}"
                for name in ("dag_id VARCHAR", "run_id VARCHAR")
            ),
            "ALTER TABLE lingyang_ledger_worker ADD task_id VARCHAR",
            "ALTER TABLE lingyang_ledger_worker ADD map_index INTEGER",
            "ALTER TABLE lingyang_ledger_campaign ADD id BIGINT",
            "ALTER TABLE lingyang_ledger_campaign ADD finished_at DOUBLE PRECISION",
            *(
                f"ALTER TABLE lingyang_ledger_campaign ADD {name}"
                for name in ("dag_id VARCHAR", "run_id VARCHAR")
            ),
            "ALTER TABLE lingyang_ledger_request RENAME TO lingyang_ledger_request_2",
            "CREATE TABLE lingyang_ledger_request",
            "ALTER TABLE lingyang_ledger_recipient RENAME TO lingyang_ledger_recipient_2",
            "CREATE TABLE lingyang_ledger_recipient",
            "CREATE TABLE lingyang_ledger_row",
            "CREATE TABLE lingyang_ledger_shard",
            "CREATE TABLE lingyang_ledger_schema",
            "CREATE TABLE lingyang_ledger_pace",
        ]
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER", owner)
        rights = "SELECT, INSERT, UPDATE, DELETE"
        for statement in [*statements, f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {role}"]:
            database.sql(statement)
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER", account)
        ledger = database.next_try(campaign_key="open", map_index=0)
        assert database.states(ledger, OPEN) == "arndddd"
    finally:
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER", owner)
        database.close()
        database.sql(f"DROP OWNED BY {role}")
        database.sql(f"DROP ROLE {role}")


# --- task state ----------------------------------------------------------------------------------------------------


@pytest.fixture
def written() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, Any]] = json.loads(FORMATS.joinpath("task_state_unversioned.json").read_text())
    return found


def store_of(values: dict[str, Any]) -> Store:
    store = Store()
    store.values = {key: json.dumps(value) for key, value in values.items()}
    return store


def test_unversioned_task_state_goes_on(
    written: dict[str, dict[str, object]], task_state_ledgers: Ledgers, store: Store
) -> None:
    store.values = store_of(written["task_state"]).values
    ledgers = task_state_ledgers
    ledger = ledgers.next_try()
    recipients = [*OPEN, "客户-P1", "D3"]
    assert ledgers.states(ledger, recipients) == "arndddn" + "dd"
    requests = {request.task_unique_code: request for request in ledger.history()}
    assert {code: each.settle_key for code, each in requests.items() if each.in_doubt} == {
        "o1": "o1",
        "o2": "o2#2",
        "o4": "o4",
    }
    assert all(each.others_may_send and each.open_for == 70 for each in requests.values() if each.in_doubt)
    assert ledger.fact("limit") == {"until": 1_700_000_200}
    ledger.end_others(["o1", "o2", "o4"], ["o4"])
    ledger.write(
        [
            Outcome("o1", {"D1": 1}),
            Outcome("o2", {}, not_executed=["N2", "N3"]),
            Outcome("o4", {}, ["D3"], (), ["客户-P1"]),
        ],
        [ledgers.intent("o3", ["D2"], again=True), ledgers.intent("o9", ["new"])],
    )
    assert [ledger.number(code) for code in ("o2", "o3", "o4", "o9")] == [2, 2, 2, 3]
    last = ledgers.next_try()
    assert ledgers.states(last, [*recipients, "new"]) == "arnannd" + "dr" + "d"
    assert store.segments()[:2] == [key for key in written["task_state"] if "/w" in key]
    assert all(store.get(key) == written["task_state"][key] for key in store.segments()[:2])
    assert json.loads(store.get(store.segments()[2]))["v"] == 2


def test_an_unversioned_note_outlives_unversioned_task_state(
    written: dict[str, dict[str, object]], task_state_ledgers: Ledgers
) -> None:
    asset = AssetStore()
    asset.values = store_of(written["asset_state"]).values
    third = task_try(try_number=3)
    ledger = TaskStateLedger(Store(), third, "never", Tombstone([asset], third))
    assert not ledger.claim()
    assert ledger.begun_at is not None and ledger.begun_at.isoformat() == "2026-01-05T09:30:00+00:00"
    with pytest.raises(LedgerRefusedError, match="another host, App key, App secret or plan"):
        ledger.open(task_state_ledgers.header(app_secret="other"))
    ledger.open(task_state_ledgers.header())


@pytest.mark.parametrize("key", ["lingyang", "lingyang/1", "lingyang/1/1/w000001"])
def test_task_state_of_a_newer_version_is_refused(
    task_state_ledgers: Ledgers, store: Store, key: str
) -> None:
    task_state_ledgers.start().write([], [task_state_ledgers.intent("code", "ab")])
    value = store.get(key)
    store.values[key] = json.dumps(
        value.replace('"v":2', '"v":99') if isinstance(value, str) else value | {"version": 99}
    )
    before = dict(store.values)
    with pytest.raises(LedgerRefusedError, match=f"under '{key}' has format 99, {NEWER}"):
        task_state_ledgers.next_try()
    assert key != "lingyang" or store.values == before


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"batch_num": "", "struct_digest": "x", "written_at": 1.5, "open_for": 0.0, "number": 7},
        {"accepted": [b"a" * 16], "rejected": [b"b" * 16], "not_executed": [b"c" * 16], "in_doubt": ["d"]},
    ],
)
def test_a_request_in_task_state_is_read_as_it_was_written(values: dict[str, Any]) -> None:
    request = RecordedRequest(
        **{"task_unique_code": "code", "batch_num": None, "struct_digest": "", "written_at": 0.0} | values
    )
    assert read_segment("key", segment([encode(request)])) == [request]
