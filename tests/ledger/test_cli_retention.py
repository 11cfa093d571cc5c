"""The commands that remove what the ledger holds: campaigns that are over, and single recipients."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from airflow_provider_lingyang.audience.parser import derived_id
from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.ledger import sql_retention
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.sql_tables import accepted_recipients
from airflow_provider_lingyang.storage.database import Database, Transaction
from tests.ledger.conftest import TABLES, Command, SqlLedgers, is_held_up

LATER, EARLIER = ("--before", "2099-01-01"), ("--before", "2001-01-01")
OWN = "spring"
COLUMNS = "biz_id, reason, kept, task_id"


def default_key(run_id: str) -> str:
    return f"dag/{run_id}/submit"


def finished(database: SqlLedgers, campaign_key: str, run_id: str = "run", **changes: Any) -> Any:
    """A campaign that is over: a and b accepted, c rejected; and what else is kept of it."""
    ledger = database.start(campaign_key=campaign_key, run_id=run_id, **changes)
    ledger.write([], [database.intent(f"one {run_id}", ["a", "b"]), database.intent(f"two {run_id}", ["c"])])
    ledger.write([Outcome(f"one {run_id}", {"a": 501, "b": None})], [])
    ledger.write([Outcome(f"two {run_id}", {}, ["c"], reason="refused [isv.x]")], [])
    ledger.finish()
    ledger.release()
    return ledger


def keep_columns(database: SqlLedgers, campaign_key: str) -> None:
    """Values of the audience's own columns, and rows that are in no request."""
    ((number,),) = database.sql(
        f"SELECT id FROM lingyang_ledger_campaign WHERE campaign_key='{campaign_key}' AND generation=1"
    )
    ((worker,),) = database.sql(
        f"SELECT worker FROM lingyang_ledger_worker WHERE campaign_key='{campaign_key}'"
    )
    database.sql(f"UPDATE lingyang_ledger_recipient SET kept='{{}}' WHERE campaign={number}")
    for row_no, biz_id in ((4, "'d'"), (5, "NULL"), (9000, "'A'")):
        database.sql(
            "INSERT INTO lingyang_ledger_row (campaign, worker, row_no, state, biz_id, reason, kept, written_at) "
            f"VALUES ({number}, '{worker}', {row_no}, 5, {biz_id}, 'missing', '{{}}', 1.5)"
        )


def rows(database: SqlLedgers) -> dict[str, int]:
    return {table: database.sql(f"SELECT count(*) FROM lingyang_ledger_{table}")[0][0] for table in TABLES}


def prune(command: Command, *args: str) -> dict[str, dict[str, int]]:
    return {line.pop("what"): line for line in command.json("prune", *args)}


def test_a_campaign_of_one_run_is_deleted(database: SqlLedgers, command: Command) -> None:
    finished(database, default_key("run"))
    keep_columns(database, default_key("run"))
    before = database.everything()
    counts = {"campaigns": 1, "recipients": 3, "requests": 2, "rows": 3}
    assert prune(command, *LATER) == {"deleted": counts}
    assert database.everything() == before
    assert "dry run" in command("prune", *LATER)[2]
    assert prune(command, *LATER, "--yes") == {"deleted": counts}
    assert rows(database) == {"worker": 0, "campaign": 1, "request": 0, "recipient": 0, "row": 0}
    assert prune(command, *LATER, "--yes") == {}
    (listed,) = command.json("list")
    assert (listed["accepted"], listed["finished"]) == (0, True)
    assert len(listed["pruned_at"]) == len("2026-11-30")


@pytest.mark.parametrize(
    "changes", [{"try_number": 2, "max_tries": 4}, {"map_index": 1}, {"task_id": "other"}]
)
@pytest.mark.parametrize("resubmit", [False, True])
def test_a_deleted_campaign_is_not_opened_again(
    database: SqlLedgers, command: Command, changes: dict[str, Any], resubmit: bool
) -> None:
    """Not by a Clear, a new instance of a mapped task, or another task with its key."""
    finished(database, default_key("run"))
    prune(command, *LATER, "--yes")
    ledger = database.new(campaign_key=default_key("run"), **changes)
    ledger.claim()
    with pytest.raises(
        LedgerRefusedError, match=r"were removed from the ledger on 20\d\d-\d\d-\d\d \(`prune`\)"
    ):
        ledger.open(database.header(), resubmit=resubmit)


def test_keys_and_states_of_a_campaign_with_a_key_of_its_own_stay(
    database: SqlLedgers, command: Command
) -> None:
    finished(database, OWN)
    keep_columns(database, OWN)
    counts = {"campaigns": 1, "recipients": 3, "requests": 0, "rows": 3}
    assert prune(command, *LATER) == {"erased": counts}
    assert "have a campaign_key of their own" in command("prune", *LATER)[2]
    assert prune(command, *LATER, "--yes") == {"erased": counts}
    assert prune(command, *LATER, "--yes") == {}
    assert rows(database) == {"worker": 1, "campaign": 1, "request": 2, "recipient": 3, "row": 0}
    assert {tuple(row) for row in database.sql(f"SELECT {COLUMNS} FROM lingyang_ledger_recipient")} == {
        ("", None, None, None)
    }
    # A later run contacts none of them again.
    later = database.start(campaign_key=OWN, run_id="later")
    assert database.states(later, "abcz") == "aar-"
    (listed,) = command.json("list")
    assert (listed["accepted"], listed["rejected"]) == (2, 1)


def test_a_key_of_its_own_is_deleted_where_that_is_asked_for(database: SqlLedgers, command: Command) -> None:
    finished(database, OWN)
    counts = {"campaigns": 1, "recipients": 3, "requests": 2, "rows": 0}
    assert prune(command, *LATER, "--close-campaigns", "--yes") == {"deleted": counts}
    later = database.new(campaign_key=OWN, run_id="later")
    later.claim()
    with pytest.raises(LedgerRefusedError, match="were removed from the ledger"):
        later.open(database.header())


def test_instances_of_a_mapped_task_are_a_campaign_of_one_run(database: SqlLedgers, command: Command) -> None:
    key = default_key("run")
    finished(database, key, map_index=0)
    other = database.start(campaign_key=key, map_index=1)
    other.finish()
    other.release()
    assert prune(command, *LATER, "--yes")["deleted"]["recipients"] == 3
    assert rows(database)["worker"] == 0


def sent_in_part(database: SqlLedgers, key: str) -> None:
    """An instance that has not come to all of its recipients."""
    ledger = database.start(campaign_key=key, map_index=1)
    ledger.write([], [database.intent("part", ["x", "y"])])
    ledger.write([Outcome("part", {"x": 1}, not_executed=["y"])], [])
    ledger.release()


def only_read(database: SqlLedgers, key: str) -> None:
    database.start(campaign_key=key, map_index=1).release()


def only_claimed(database: SqlLedgers, key: str) -> None:
    ledger = database.new(campaign_key=key, map_index=1)
    ledger.claim()
    ledger.release()


def cleared(database: SqlLedgers, key: str) -> None:
    ledger = database.start(campaign_key=key, map_index=1)
    ledger.finish()
    ledger.release()
    ledger = database.new(campaign_key=key, map_index=1, try_number=2)
    ledger.claim()
    ledger.release()


def left_after_sending(database: SqlLedgers, key: str) -> None:
    sent_in_part(database, key)
    ledger = database.next_try(campaign_key=key, map_index=1)
    ledger.leave(1)
    ledger.release()


@pytest.mark.parametrize("key", [default_key("run"), OWN])
@pytest.mark.parametrize("other", [sent_in_part, only_read, only_claimed, cleared, left_after_sending])
@pytest.mark.parametrize("by_version_4", [False, True])
def test_a_campaign_stays_until_each_task_instance_has_finished_its_part(
    database: SqlLedgers,
    command: Command,
    key: str,
    other: Callable[[SqlLedgers, str], None],
    by_version_4: bool,
) -> None:
    other(database, key)
    finished(database, key, map_index=0)
    if by_version_4:
        database.sql("UPDATE lingyang_ledger_worker SET finished=NULL")
    was = database.sql("SELECT * FROM lingyang_ledger_recipient")
    assert list(prune(command, *LATER, "--close-campaigns", "--yes")) == [
        "stays: a task has not finished its part"
    ]
    assert database.sql("SELECT * FROM lingyang_ledger_recipient") == was
    # Its next try goes on, and then the campaign is over.
    ledger = database.next_try(campaign_key=key, map_index=1)
    ledger.finish()
    ledger.release()
    assert list(prune(command, *LATER, "--yes")) == (
        ["stays: a task has not finished its part"]
        if by_version_4
        else ["erased" if key == OWN else "deleted"]
    )


def test_a_campaign_of_a_single_task_that_version_4_finished_is_over(
    database: SqlLedgers, command: Command
) -> None:
    finished(database, default_key("run"))
    database.sql("UPDATE lingyang_ledger_worker SET finished=NULL")
    assert list(prune(command, *LATER, "--yes")) == ["deleted"]


def test_a_task_instance_that_was_skipped_keeps_no_campaign(database: SqlLedgers, command: Command) -> None:
    key = default_key("run")
    ledger = database.start(campaign_key=key, map_index=1)
    ledger.leave(1)
    ledger.release()
    finished(database, key, map_index=0)
    assert list(prune(command, *LATER, "--yes")) == ["deleted"]


def unfinished(database: SqlLedgers) -> Any:
    ledger = finished(database, OWN)
    database.start(campaign_key=OWN, run_id="again").release()
    return ledger


def running(database: SqlLedgers) -> Any:
    finished(database, OWN)
    ledger = database.start(campaign_key=OWN, run_id="again")
    ledger.finish()
    return ledger


def with_doubts(database: SqlLedgers) -> Any:
    finished(database, OWN)
    ledger = database.start(campaign_key=OWN, run_id="again")
    ledger.write([], [database.intent("three", ["x"])])
    ledger.finish()
    ledger.release()
    return ledger


@pytest.mark.parametrize(
    ("left", "before", "why"),
    [
        (unfinished, LATER, "stays: not finished"),
        (running, LATER, "stays: a task has not noted its end"),
        (with_doubts, LATER, "stays: recipients in doubt"),
        (lambda database: finished(database, OWN), EARLIER, "stays: active since 2001-01-01"),
    ],
)
def test_a_campaign_that_is_not_over_stays(
    database: SqlLedgers,
    command: Command,
    left: Callable[[SqlLedgers], Any],
    before: tuple[str, str],
    why: str,
) -> None:
    left(database)
    was = database.sql("SELECT * FROM lingyang_ledger_recipient")
    assert list(prune(command, *before, "--close-campaigns", "--yes")) == [why]
    assert database.sql("SELECT * FROM lingyang_ledger_recipient") == was


def test_a_task_that_begins_while_prune_runs_keeps_its_campaign(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(database, default_key("run"))
    plan = sql_retention.Retention.plan

    def planned(self: Any) -> Any:
        for one in plan(self):
            database.next_try(campaign_key=default_key("run"))
            yield one

    monkeypatch.setattr(sql_retention.Retention, "plan", planned)
    assert list(prune(command, *LATER, "--yes")) == ["stays: not finished"]
    assert rows(database)["recipient"] == 3


def test_a_run_that_begins_while_prune_erases_keeps_its_recipients(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(database, OWN)
    keep_columns(database, OWN)
    begin = sql_retention.Retention._begin

    def begun(self: Any, *args: Any) -> Any:
        found = begin(self, *args)
        later = database.start(campaign_key=OWN, run_id="later")
        later.write([], [database.intent("nine", ["NEW"], written_at=self.before + 1)])
        later.write([Outcome("nine", {"NEW": 77})], [])
        database.sql(
            "INSERT INTO lingyang_ledger_row (campaign, worker, row_no, state, biz_id, written_at) "
            f"SELECT campaign, worker, 7, 5, 'z', {self.before + 1} FROM lingyang_ledger_request "
            "WHERE task_unique_code='nine'"
        )
        return found

    monkeypatch.setattr(sql_retention.Retention, "_begin", begun)
    assert prune(command, *LATER, "--yes")["erased"]["recipients"] == 3
    left = database.sql("SELECT task_id, biz_id FROM lingyang_ledger_recipient")
    assert sorted(map(tuple, left), key=str) == [(77, "NEW"), *[(None, "")] * 3]
    assert [tuple(row) for row in database.sql("SELECT biz_id FROM lingyang_ledger_row")] == [("z",)]


def test_an_interrupted_prune_goes_on_and_lets_no_try_in_between(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = database.start(campaign_key=default_key("run"))
    intents = [database.intent(f"code {number}", [f"B{number}"]) for number in range(250)]
    ledger.write([], intents)
    ledger.write([Outcome(intent.task_unique_code, dict.fromkeys(intent.biz_ids)) for intent in intents], [])
    ledger.finish()
    ledger.release()
    execute = Transaction.execute
    deleted = []

    def interrupted(self: Transaction, sql: str, parameters: Any) -> int:
        if sql.startswith("DELETE FROM lingyang_ledger_request"):
            deleted.append(len(parameters))
            if len(deleted) == 2:
                raise KeyboardInterrupt
        return execute(self, sql, parameters)

    monkeypatch.setattr(Transaction, "execute", interrupted)
    said = command.fails("prune", *LATER, "--yes", code=130)
    assert "run it again to go on" in said
    # Of two chunks that it began one is done, and of the other nothing.
    assert (rows(database)["request"], rows(database)["recipient"]) == (150, 150)
    monkeypatch.setattr(Transaction, "execute", execute)
    again = database.new(campaign_key=default_key("run"), try_number=2)
    again.claim()
    with pytest.raises(LedgerRefusedError):
        again.open(database.header())
    again.release()
    assert prune(command, *LATER, "--yes")["deleted"]["recipients"] == 150
    assert rows(database)["recipient"] == rows(database)["request"] == 0


def test_no_other_task_opens_a_campaign_between_the_proof_and_the_note_that_it_is_closed(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(database, default_key("run"))
    close, refused = sql_retention.Retention._close, []

    def new_instance() -> None:
        ledger = database.new(campaign_key=default_key("run"), map_index=1)
        ledger.claim()
        with pytest.raises(LedgerRefusedError):
            ledger.open(database.header())
        refused.append(True)

    thread = threading.Thread(target=new_instance)

    def while_another_opens(*args: Any) -> None:
        thread.start()
        assert is_held_up(thread)
        close(*args)

    monkeypatch.setattr(sql_retention.Retention, "_close", while_another_opens)
    prune(command, *LATER, "--yes")
    thread.join()
    assert refused == [True]


def test_a_try_that_comes_while_prune_begins_is_refused_or_finds_everything(database: SqlLedgers) -> None:
    for number in range(8):
        key = default_key(f"run {number}")
        finished(database, key, run_id=f"run {number}")
        barrier = threading.Barrier(2)
        pruned: list[bool] = []
        found: list[str] = []

        def prune_it(
            key: str = key, barrier: threading.Barrier = barrier, pruned: list[bool] = pruned
        ) -> None:
            with closing(Database(database.hook(), "ledger")) as own:
                retention = sql_retention.Retention(own, before=4e9)
                (planned,) = [one for one in retention.plan() if one.rows[0].campaign_key == key]
                barrier.wait()
                pruned.append(not retention.prune(planned).stays)

        def try_it(
            key: str = key,
            number: int = number,
            barrier: threading.Barrier = barrier,
            found: list[str] = found,
        ) -> None:
            ledger = database.new(campaign_key=key, run_id=f"run {number}", try_number=2)
            barrier.wait()
            ledger.claim()
            try:
                ledger.open(database.header())
            except LedgerRefusedError:
                found.append("refused")
            else:
                found.append(database.states(ledger, "abc"))
            ledger.close()

        threads = [threading.Thread(target=each) for each in (prune_it, try_it)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (pruned, found) in (([True], ["refused"]), ([False], ["aar"]))


# --- forget ------------------------------------------------------------------------------------------------


def forget(command: Command, *args: str, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = command.json("forget", *args, code=code)
    return found


def test_a_recipient_is_forgotten_and_not_contacted_again(database: SqlLedgers, command: Command) -> None:
    ledger = finished(database, OWN)
    keep_columns(database, OWN)
    found = {"campaign_key": OWN, "plan_id": 1, "generation": 1, "recipients": 1, "rows": 0, "in_doubt": []}
    before = database.everything()
    assert forget(command, "--biz-id", "a") == [found]
    assert database.everything() == before
    assert forget(command, "--biz-id", "a", "nobody", "--yes") == [found]
    assert forget(command, "--biz-id", "a", "--yes") == []
    left = {tuple(row) for row in database.sql(f"SELECT state, {COLUMNS} FROM lingyang_ledger_recipient")}
    assert left == {
        (1, "", None, None, None),
        (1, "b", None, "{}", None),
        (2, "c", "refused [isv.x]", "{}", None),
    }
    assert database.states(database.start(campaign_key=OWN, run_id="later"), "abc") == "aar"
    # No reader takes what is left for an id.
    shown = database.sql("SELECT biz_id FROM lingyang_recipients WHERE state='accepted'")
    assert {row[0] for row in shown} == {None, "b"}
    assert command.json("show", "--campaign-key", OWN, "--biz-ids")[0]["accepted_biz_ids"] == ["b"]
    hook = database.hook()
    for of_task_instance in (True, False):
        sql, parameters = accepted_recipients(
            ledger.handle, hook.placeholder, of_task_instance=of_task_instance
        )
        assert [row[0] for row in hook.get_records(sql, parameters)] == ["b"]


def test_rows_in_no_request_are_forgotten_in_exactly_that_spelling(
    database: SqlLedgers, command: Command
) -> None:
    finished(database, OWN)
    keep_columns(database, OWN)
    (found,) = forget(command, "--biz-id", "A", "d", "--yes")
    assert (found["recipients"], found["rows"]) == (0, 2)
    left = database.sql("SELECT biz_id, reason, kept FROM lingyang_ledger_row ORDER BY row_no")
    assert [tuple(row) for row in left] == [(None, None, None), (None, "missing", "{}"), (None, None, None)]
    assert database.sql("SELECT biz_id FROM lingyang_ledger_recipient WHERE biz_id='a'")[0][0] == "a"


def test_only_the_campaigns_that_are_asked_for_forget(database: SqlLedgers, command: Command) -> None:
    for key in (OWN, "autumn"):
        finished(database, key, run_id=key)
    (found,) = forget(command, "--biz-id", "a", "--campaign-key", OWN, "--yes")
    assert found["campaign_key"] == OWN
    assert [one["campaign_key"] for one in forget(command, "--biz-id", "a")] == ["autumn"]


def test_a_recipient_in_doubt_is_not_forgotten_before_it_is_settled(
    database: SqlLedgers, command: Command
) -> None:
    code = "0f3a-0001"
    ledger = database.start()
    ledger.write([], [database.intent(code, "ab")])
    ledger.release()
    (found,) = forget(command, "--biz-id", "a", "--yes", code=1)
    assert (found["recipients"], found["in_doubt"]) == (0, [code])
    assert "cannot be forgotten" in command("forget", "--biz-id", "a", "--yes")[2]
    campaign = ("--campaign-key", "campaign", "--plan-id", "1")
    command.json("settle", *campaign, f"{code}=accepted", "--yes")
    (found,) = forget(command, "--biz-id", "a", "--yes")
    assert (found["recipients"], found["in_doubt"]) == (1, [])


PHONE = "10000000001"


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection whose App secret the campaigns of these tests were sent with."""
    connection = {
        "conn_type": "lingyang",
        "host": "http://127.0.0.1:9/",
        "login": "app",
        "password": "secret",
    }
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(connection))


@pytest.mark.usefixtures("gateway")
def test_a_contact_finds_derived_ids_only_and_is_never_shown(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = "Someone@Example.com"
    ids = [
        derived_id(b"secret", f"{key}/1", [PHONE, contact, None, None])
        for key, contact in ((OWN, mail.lower()), ("autumn", mail.lower()), ("autumn", None))
    ]
    for key, secret in ((OWN, "secret"), ("autumn", "secret"), ("winter", "another")):
        ledger = database.start(campaign_key=key, run_id=key, app_secret=secret)
        ledger.write([], [database.intent(f"one {key}", [*ids, PHONE])])
        ledger.write([Outcome(f"one {key}", dict.fromkeys([*ids, PHONE]))], [])
    given = json.dumps({"phone_number": f"+86 {PHONE}", "email": mail, "outer_user_id": ""})
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    code, printed, said = command("forget", "--contact", "--yes", "--output", "json")
    assert code == 0, said
    assert [(one["campaign_key"], one["recipients"]) for one in json.loads(printed)] == [
        (OWN, 1),
        ("autumn", 1),
    ]
    assert "1 campaign(s) were sent with another App secret" in said
    assert "Only ids that were derived from exactly this contact were looked for" in said
    assert PHONE not in printed + said and "xample" not in printed + said
    left = [row[0] for row in database.sql("SELECT biz_id FROM lingyang_ledger_recipient")]
    # Each campaign's own id of that contact, and no other.
    assert sorted(left) == sorted(["", "", *ids[1:], PHONE, ids[0], ids[2], PHONE, *ids, PHONE])


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "reads a JSON object with some of phone_number"),
        ('{"mobile": "10000000001"}', "reads a JSON object with some of phone_number"),
        ('{"phone_number": "not-a-number-1000"}', "phone_number is not a phone number"),
        ("{}", "is missing"),
    ],
)
def test_a_contact_that_cannot_be_one_is_refused_without_its_value(
    make_sql: Callable[[str], SqlLedgers],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
    said: str,
) -> None:
    make_sql("sqlite").start()
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    found = command.fails("forget", "--contact", code=2)
    assert said in found
    assert "1000" not in found


# --- stats -------------------------------------------------------------------------------------------------


def test_statistics_count_what_there_is_and_what_prune_would_free(
    database: SqlLedgers, command: Command
) -> None:
    finished(database, default_key("run"))
    finished(database, OWN, run_id="second")
    ledger = database.start(campaign_key="open", run_id="third")
    ledger.write([], [database.intent("three", ["x", "y"])])
    facts = {line["name"]: line["value"] for line in command.json("stats", *LATER)}
    assert facts["oldest campaign"] <= facts["newest campaign"]
    assert facts.pop("bytes", 0) > 0 or database.conn_type == "sqlite"
    assert {name: value for name, value in facts.items() if not name.endswith("t campaign")} == {
        "campaigns": 3,
        "campaigns finished": 2,
        "campaigns pruned": 0,
        "requests": 5,
        "requests in doubt": 1,
        "audience rows": 0,
        "task instances": 3,
        "recipients": 8,
        "recipients accepted": 4,
        "recipients rejected": 2,
        "recipients not executed": 0,
        "recipients in doubt": 2,
        "prune: campaigns deleted": 1,
        "prune: campaigns erased but for keys and states": 1,
        "prune: recipients": 6,
    }
    assert {line["name"]: line["value"] for line in command.json("stats", *EARLIER)}["prune: recipients"] == 0
    prune(command, *LATER, "--yes")
    assert {line["name"]: line["value"] for line in command.json("stats")}["campaigns pruned"] == 1
