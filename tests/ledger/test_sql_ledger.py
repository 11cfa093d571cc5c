"""What a database adds: several task instances in one campaign, and everything that can be wrong with a database."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from airflow_provider_lingyang.errors import LedgerError, LedgerFencedError, LedgerRefusedError
from airflow_provider_lingyang.identity import digest
from airflow_provider_lingyang.ledger import sql_migrations, sql_tables
from airflow_provider_lingyang.ledger.base import WRITTEN_WITHIN, Opening, Outcome
from airflow_provider_lingyang.ledger.sql_tables import halves
from airflow_provider_lingyang.storage.database import Transaction
from tests.ledger.conftest import TABLES, SqlLedgers, no_wait, unexpected_wait


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def at_once(actions: list[Callable[[], Any]]) -> list[Any]:
    """Run actions in threads that start together; their results or errors."""
    start = threading.Barrier(len(actions))
    results: list[Any] = [None] * len(actions)

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = actions[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_many_first_task_instances_make_the_tables_and_the_campaign_together(
    database: SqlLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A connection of SQLite belongs to the thread that made it.
    def work(number: int) -> int:
        ledger = database.new(map_index=number)
        ledger.claim()
        generation: int = ledger.open(database.header()).generation
        ledger.write([], [database.intent(f"code-{number}", [f"{number}-{n}" for n in range(20)])])
        ledger.write([Outcome(f"code-{number}", {f"{number}-{n}": n for n in range(20)})], [])
        ledger.finish()
        ledger.close()
        return generation

    assert at_once([lambda number=number: work(number) for number in range(6)]) == [1] * 6  # type: ignore[misc]
    assert len(database.sql("SELECT * FROM lingyang_ledger_campaign")) == 1
    assert len(database.sql("SELECT * FROM lingyang_ledger_recipient WHERE state = 1")) == 120


def test_two_processes_of_one_task_instance_leave_one_owner(database: SqlLedgers) -> None:
    database.start()
    ledgers = [database.new() for _ in range(2)]

    def work(number: int) -> None:
        ledgers[number].claim()
        ledgers[number].close()

    assert at_once([lambda: work(0), lambda: work(1)]) == [None, None]
    outcomes = []
    for ledger in ledgers:
        try:
            ledger.open(database.header())
        except LedgerFencedError:
            outcomes.append("fenced")
        else:
            outcomes.append("owner")
    assert sorted(outcomes) == ["fenced", "owner"]


@pytest.mark.parametrize("again", [False, True])
def test_a_recipient_of_another_task_instance_is_refused_with_the_whole_write(
    database: SqlLedgers, again: bool
) -> None:
    first, second = database.start(map_index=0), database.start(map_index=1)
    first.write([], [database.intent("first", ["a1", "b1"])])
    second.write([], [database.intent("second", ["c1"])])
    with pytest.raises(LedgerFencedError, match="another task of the same campaign") as caught:
        second.write(
            [Outcome("second", {"c1": 1})],
            [database.intent("third", ["d1"]), database.intent("fourth", ["e1", "b1"], again=again)],
        )
    assert "b1" not in str(caught.value)
    assert database.states(second, ["a1", "b1", "c1", "d1", "e1"]) == "ddd--"
    assert {request.task_unique_code: request.is_own for request in second.history()} == {
        "first": False,
        "second": True,
    }
    # It may go on with others.
    second.write([Outcome("second", {"c1": 1})], [database.intent("third", ["d1"])])
    assert database.states(second, ["c1", "d1"]) == "ad"


def test_concurrent_task_instances_claim_a_recipient_once(database: SqlLedgers) -> None:
    def work(number: int) -> None:
        ledger = database.start(map_index=number)
        try:
            ledger.write([], [database.intent(f"code-{number}", [f"own-{number}", "both"])])
        finally:
            ledger.close()

    results = at_once([lambda: work(0), lambda: work(1)])
    assert [type(result) for result in results if result is not None] == [
        LedgerFencedError.__subclasses__()[0]
    ]
    assert len(database.sql("SELECT * FROM lingyang_ledger_recipient")) == 2


def test_a_replaced_process_can_write_accepted_recipients_only(database: SqlLedgers) -> None:
    first = database.start()
    first.write([], [database.intent("code", "ab")])
    database.start()
    for action in (
        lambda: first.write([Outcome("code", {"a": 1, "b": 2})], []),
        lambda: first.write([], [database.intent("other", "c")]),
        lambda: first.renew([database.intent("code", "ab", written_at=99)]),
        lambda: first.take_over(["code"]),
        lambda: first.finish(),
        lambda: first.open(database.header()),
    ):
        with pytest.raises(LedgerFencedError, match="taken over by another try of this task"):
            action()
    last = database.next_try()
    assert database.states(last, "abc") == "aa-"
    assert [request.written_at for request in last.history()] == [1.5]


def test_a_request_that_was_taken_over_is_no_longer_its_first_owners(database: SqlLedgers) -> None:
    first, second = database.start(map_index=0), database.start(map_index=1)
    first.write([], [database.intent("code", "ab"), database.intent("own", "c")])
    second.take_over(["code"])
    for action in (
        lambda: first.write([Outcome("code", {}, ["a"], (), ["b"])], [database.intent("next", "x")]),
        lambda: first.write([], [database.intent("code", "ab", again=True)]),
        lambda: first.renew([database.intent("own", "c", written_at=99), database.intent("code", "ab")]),
    ):
        with pytest.raises(LedgerFencedError):
            action()
    # No recipient of another owner's request is freed; its own it may settle.
    first.write([Outcome("code", {}, (), ["a", "b"]), Outcome("own", {"c": 3})], [])
    assert database.states(second, "abcx") == "dda-"
    assert [request.written_at for request in second.history()] == [1.5, 1.5]
    second.write([Outcome("code", {}, (), ["a"], ["b"])], [])
    second.write([], [database.intent("next", "a", again=True)])
    assert database.states(second, "abc") == "dda"


@pytest.mark.parametrize(
    "meanwhile", ["in doubt", "freed", "sent again", "in another request", "not executed again"]
)
def test_an_accepted_recipient_stays_so_although_the_request_was_taken_over(
    database: SqlLedgers, meanwhile: str
) -> None:
    first, second = database.start(map_index=0), database.start(map_index=1)
    first.write([], [database.intent("code", "ab"), database.intent("own", "c")])
    list(second.history())
    second.take_over(["code"])
    other = "code" if meanwhile == "sent again" else "other"
    if meanwhile != "in doubt":
        second.write([Outcome("code", {}, (), ["a", "b"])], [])
    if meanwhile not in ("in doubt", "freed"):
        second.write([], [database.intent(other, "ab", again=True)])
    if meanwhile == "not executed again":
        second.write([Outcome(other, {}, (), ["a", "b"])], [])
    with pytest.raises(LedgerFencedError, match="taken over by another task"):
        first.write(
            [Outcome("code", {"a": 1}, ["b"]), Outcome("own", {"c": 3})],
            [database.intent("x", "x")],
        )
    assert database.states(second, "acx") == "aa-"
    # Neither a word nor an outcome frees an accepted recipient, and no request to come holds it.
    second.write([Outcome(other, {}, (), ["a"])], [])
    with pytest.raises(LedgerFencedError):
        second.write([], [database.intent("last", "a", again=True)])
    assert database.states(second, "acx") == "aa-"


def test_only_the_intent_that_was_read_is_taken_over(database: SqlLedgers) -> None:
    first, second, third = (database.start(map_index=number) for number in range(3))
    first.write([], [database.intent("code", "ab")])
    assert [[each.number for each in ledger.history()] for ledger in (second, third)] == [[1], [1]]
    second.take_over(["code"])
    second.write([Outcome("code", {}, (), ["a", "b"])], [])
    second.write([], [database.intent("code", "ab", again=True)])
    with pytest.raises(LedgerFencedError, match="sent again by another task"):
        third.take_over(["code"])
    assert [each.number for each in third.history()] == [2]
    third.take_over(["code"])
    third.take_over(["code"])


def finish(ledger: Any) -> None:
    ledger.write([], [SqlLedgers.intent("own", ["m"])])
    ledger.write([Outcome("own", {"m": 1})], [])
    ledger.finish()


def test_a_campaign_that_others_share_is_not_started_anew(database: SqlLedgers) -> None:
    other, own = database.start(run_id="other"), database.start()
    other.write([], [database.intent("code", "ab")])
    finish(own)
    # Also where the other one's request in doubt was taken over, and sent again under its code.
    for _ in range(3):
        own = database.new(try_number=2, max_tries=5)
        own.claim()
        with pytest.raises(LedgerRefusedError, match="other tasks or runs"):
            own.open(database.header(), resubmit=True)
        own = database.start(try_number=2)
        own.take_over(["code"])
        own.write([], [database.intent("code", "ab", again=True)])
        own.finish()
    assert {request.task_unique_code: request.is_own for request in own.history()} == {
        "code": False,
        "own": True,
    }


def test_a_task_instance_without_requests_does_not_begin_with_a_generation_that_was_replaced(
    database: SqlLedgers,
) -> None:
    other, own = database.start(run_id="other"), database.start()
    finish(own)
    assert database.start(try_number=2, max_tries=5, resubmit=True).handle["generation"] == 2
    with pytest.raises(LedgerFencedError, match="started anew meanwhile"):
        other.write([], [database.intent("code", "ab")])
    other = database.start(run_id="other", try_number=2)
    other.write([], [database.intent("code", "ab")])
    assert database.states(other, "abm") == "dd-"


def test_either_a_task_instance_begins_with_a_generation_or_another_one_ends_it(database: SqlLedgers) -> None:
    def alone(ledger: Any, action: Callable[[], Any]) -> Any:
        # A connection of SQLite belongs to the thread that made it.
        try:
            return action()
        finally:
            ledger.close()

    for number in range(5):
        key = f"campaign-{number}"
        other = database.start(campaign_key=key, run_id="other")
        finish(database.start(campaign_key=key))
        again = database.new(campaign_key=key, try_number=2, max_tries=5)
        again.claim()
        again.close()
        other.close()
        results = at_once(
            [
                partial(alone, again, partial(again.open, database.header(), resubmit=True)),
                partial(alone, other, partial(other.write, [], [database.intent("code", "ab")])),
            ]
        )
        assert [type(result) for result in results] in (
            [Opening, LedgerFencedError],
            [LedgerRefusedError, type(None)],
        )


def test_a_recipient_accepted_meanwhile_is_not_freed_by_a_late_take_over(database: SqlLedgers) -> None:
    first, second = database.start(map_index=0), database.start(map_index=1)
    first.write([], [database.intent("code", "ab")])
    assert database.states(second, "ab") == "dd"
    first.write([Outcome("code", {"a": 1}, ["b"])], [])
    second.take_over(["code"])
    second.write([Outcome("code", {}, (), ["a", "b"])], [])
    assert database.states(second, "ab") == "ar"
    for code in ("code", "other"):
        with pytest.raises(LedgerFencedError):
            second.write([], [database.intent(code, "ab", again=True)])
    assert database.states(second, "ab") == "ar"


def test_another_task_instance_does_not_start_all_recipients_again(database: SqlLedgers) -> None:
    database.start(map_index=0).finish()
    other = database.new(map_index=1, max_tries=1)
    other.claim()
    assert other.open(database.header(), resubmit=True).generation == 1


def test_campaigns_with_keys_of_their_own_do_not_meet(database: SqlLedgers) -> None:
    first, second = database.start(campaign_key="one"), database.start(campaign_key="two")
    first.write([], [database.intent("code", "ab")])
    second.write([], [database.intent("code", "ab")])
    where = {"ledger_conn_id": "ledger", "campaign_key": "one", "plan_id": 1, "generation": 1}
    assert first.handle == where | {"worker": digest("one", first._task_try.task_instance_key)}
    first.write([Outcome("code", {"a": 1, "b": 2})], [])
    assert database.states(second, "ab") == "dd"


def test_task_ids_are_kept_where_the_answer_has_them(database: SqlLedgers) -> None:
    biz_ids = [f"order-{n}" for n in range(250)]
    ledger = database.start()
    ledger.write([], [database.intent("code", biz_ids)])
    ledger.write(
        [Outcome("code", {biz_id: 10**18 + n if n else None for n, biz_id in enumerate(biz_ids)})], []
    )
    kept = dict(database.sql("SELECT biz_id, task_id FROM lingyang_ledger_recipient"))
    assert kept == {biz_id: 10**18 + n if n else None for n, biz_id in enumerate(biz_ids)}


@pytest.mark.parametrize("number", [2**63, 10**25, -(2**63) - 1])
def test_a_task_id_that_no_number_of_the_platform_can_be_does_not_lose_the_outcome(
    database: SqlLedgers, number: int
) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", "ab")])
    ledger.write([Outcome("code", {"a": number, "b": 2})], [])
    kept = dict(database.sql("SELECT biz_id, task_id FROM lingyang_ledger_recipient"))
    assert kept == {"a": None, "b": 2}
    assert database.states(ledger, "ab") == "aa"


def test_a_database_that_does_not_enforce_keys_is_refused(
    make_sql: Callable[[str], SqlLedgers], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = make_sql("sqlite")
    # What Snowflake, Redshift and BigQuery make of a key.
    for table, columns in sql_tables.MIGRATIONS[3].items():
        database.sql(f"CREATE TABLE {table} ({columns.split('PRIMARY KEY')[0].rstrip().rstrip(',')})")
    monkeypatch.setattr(sql_migrations, "_ENFORCES_KEYS", set())
    for _ in range(2):
        with pytest.raises(LedgerRefusedError, match="took one primary key twice"):
            database.new().claim()
    assert database.everything() == []


def test_unique_key_probe_runs_once_and_leaves_no_row(
    database: SqlLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_migrations, "_ENFORCES_KEYS", set())
    asked: list[str] = []
    insert = Transaction.insert

    def counted(self: Any, table: str, *args: Any, **how: Any) -> None:
        asked.append(table)
        insert(self, table, *args, **how)

    monkeypatch.setattr(Transaction, "insert", counted)

    def claim(number: int) -> None:
        ledger = database.new(map_index=number)
        ledger.claim()
        ledger.close()

    assert at_once([partial(claim, number) for number in range(4)]) == [None] * 4
    asked.clear()
    claim(5)
    assert asked == ["lingyang_ledger_worker"]
    assert database.sql("SELECT * FROM lingyang_ledger_recipient") == []


def test_a_connection_that_was_cut_while_it_was_idle_is_replaced(
    database: SqlLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = database.start()
    database.interrupt()()
    monkeypatch.setattr("airflow_provider_lingyang.storage.database._IDLE", -1.0)
    assert list(ledger.history()) == []
    ledger.write([], [database.intent("code", "ab")])


def test_a_broken_connection_is_an_error_of_the_ledger_and_is_replaced(database: SqlLedgers) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", ["a1"])])
    mend = database.interrupt()
    with pytest.raises(LedgerError, match="'ledger'") as caught:
        ledger.write([Outcome("code", {"a1": 77})], [database.intent("other", ["b1"])])
    assert not isinstance(caught.value, LedgerFencedError)
    mend()
    ledger.write([Outcome("code", {"a1": 77})], [database.intent("other", ["b1"])])
    assert database.states(ledger, ["a1", "b1"]) == "ad"


@pytest.mark.parametrize("told_by", ["sqlstate", "pgcode", "number"])
def test_a_transaction_that_gave_way_to_another_one_is_run_again(
    make_sql: Callable[[str], SqlLedgers], monkeypatch: pytest.MonkeyPatch, told_by: str
) -> None:
    database = make_sql("sqlite")
    ledger = database.start()
    deadlock = Exception(1213, "Deadlock found") if told_by == "number" else Exception("40P01")
    if told_by != "number":
        setattr(deadlock, told_by, "40P01")
    calls, failing, count = 0, {3}, Transaction.execute

    def fail_in_the_middle(run: Transaction, *args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls in failing:
            raise deadlock
        return count(run, *args)

    monkeypatch.setattr(Transaction, "execute", fail_in_the_middle)
    ledger.write([], [database.intent("code", "ab")])
    assert database.states(ledger, "ab") == "dd"
    # It is not tried for ever.
    failing.update(range(100))
    with pytest.raises(LedgerError, match="failed: Exception"):
        ledger.write([Outcome("code", {"a": 1, "b": 2})], [])


def test_a_database_that_cannot_be_reached_is_an_error_of_the_ledger(
    database: SqlLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_LEDGER"])
    nowhere = {"host": "/nowhere/ledger.db"} if connection["conn_type"] == "sqlite" else {"port": free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection | nowhere))
    with pytest.raises(LedgerError, match=r"'ledger'.* cannot be reached"):
        database.new().claim()


def test_an_error_of_the_database_quotes_no_values(database: SqlLedgers) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", ["secret-a"])])
    # SQLite takes texts as numbers, the others quote them.
    wrong = [database.intent("other", ["secret-b"], written_at="secret-c")] if database.path is None else []
    database.drop_views()
    database.sql("DROP TABLE lingyang_ledger_recipient")
    for outcomes, intents in (([], wrong), ([Outcome("code", {"secret-a": 987654})], [])):
        if outcomes or intents:
            with pytest.raises(LedgerError, match="failed: ") as caught:
                ledger.write(outcomes, intents)
            assert "secret" not in str(caught.value)
            assert "987654" not in str(caught.value)


def test_a_table_that_cannot_be_made_is_named(database: SqlLedgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sql_tables, "MIGRATIONS", {3: {"lingyang_ledger_request": "code VARCHAR(36) NONSENSE ("}}
    )
    with pytest.raises(
        LedgerError, match=r"cannot be read, made or changed: .*Error.*CREATE TABLE lingyang_ledger_req"
    ):
        database.new().claim()


def test_a_database_that_changes_ids_is_found_out(database: SqlLedgers) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", ["客户1", "客户2"])])
    ledger.write([Outcome("code", {"客户1": 1}, (), (), ["客户2"])], [])
    database.sql("UPDATE lingyang_ledger_recipient SET biz_id = '??' WHERE state = 1")
    assert database.states(ledger, ["客户1", "客户2"]) == "ad"
    database.sql("UPDATE lingyang_ledger_recipient SET biz_id = '??'")
    with pytest.raises(LedgerRefusedError, match="does not give a biz_id back"):
        list(ledger.history())


def test_tables_hold_given_values_and_digests_only(database: SqlLedgers) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", ["order-1", "order-2"])])
    ledger.write(
        [Outcome("code", {"order-1": 5}, ["order-2"], reason="refused [isv.x]", request_id="request-id")], []
    )
    ledger.finish()
    values = database.everything()
    texts = {value for value in values if isinstance(value, str)}
    given = {
        "campaign",
        "https://gateway.test",
        "app",
        "code",
        "codecode",
        "7",
        "order-1",
        "order-2",
        "dag",
        "run",
    }
    given |= {"submit", "refused [isv.x]", "request-id"}
    # The rest are digests: of the task instance, its fencing token, the campaign and the App secret.
    rest = texts - given
    assert given <= texts
    assert all(len(text) == 32 and set(text) <= set("0123456789abcdef") for text in rest)
    assert len(rest) == 5
    # Hashes of the recipients, of the campaign and of the request.
    large = {value for value in values if isinstance(value, int) and abs(value) > 2**32}
    assert {number for biz_id in ("order-1", "order-2") for number in halves(biz_id)} <= large
    assert len(large) == 6


def test_two_task_instances_note_facts_of_one_campaign(database: SqlLedgers) -> None:
    def note(number: int) -> None:
        ledger = database.start(map_index=number)
        ledger.set_fact(f"fact-{number}", number)
        ledger.close()

    assert at_once([partial(note, number) for number in range(4)]) == [None] * 4
    ledger = database.start(map_index=9)
    assert [ledger.fact(f"fact-{number}") for number in range(4)] == [0, 1, 2, 3]


def test_a_replaced_process_notes_no_fact(database: SqlLedgers) -> None:
    first = database.start()
    database.start()
    with pytest.raises(LedgerFencedError):
        first.set_fact("limit", 1)


def test_processes_with_the_settings_before_are_ended_when_they_change(database: SqlLedgers) -> None:
    sends, idle, own = (database.start(map_index=number) for number in range(3))
    sends.write([], [database.intent("code", "ab")])
    own = database.new(map_index=2)
    own.claim()
    settings = database.header(host="https://other.test")
    with pytest.raises(LedgerRefusedError, match="when settle was given, another process could still send"):
        own.open(settings, not_executed={"code"}, wait=no_wait)
    assert database.states(own, "ab") == "dd"
    # A word that is given now is about what no process can send any more.
    own = database.new(map_index=2)
    own.claim()
    with pytest.raises(LedgerRefusedError, match=r'settle=\{"code#2": "not_executed"\}'):
        own.open(settings, not_executed={"code"}, wait=unexpected_wait)
    assert own.open(settings, not_executed={"code#2"}, wait=unexpected_wait).generation == 1
    with pytest.raises(LedgerFencedError, match="taken over by another try of this task, or emptied"):
        sends.write([], [database.intent("next", "c")])
    with pytest.raises(LedgerFencedError, match="another host, App key or secret meanwhile"):
        idle.write([], [database.intent("next", "c")])
    # A task that came with the new ones already goes on.
    other = database.new(map_index=3)
    other.claim()
    other.open(database.header(host="https://other.test"))
    other.write([], [database.intent("next", "c")])
    assert database.states(own, "abc") == "nnd"


def test_other_tasks_may_end_what_they_had_begun_before_the_settings_change(database: SqlLedgers) -> None:
    ended, own = database.start(map_index=0), database.start(map_index=1)
    for number, code in enumerate(("one", "two")):
        ended.write([], [replace(database.intent(code, code[0]), open_for=100.0 + number)])
    own.write([], [replace(database.intent("own", "x"), open_for=900.0)])
    own.release()
    own = database.new(map_index=1)
    own.claim()
    waited: list[float] = []
    words = {"one", "two", "own"}
    other = database.header(host="https://other.test")
    with pytest.raises(LedgerRefusedError, match="so find out again"):
        own.open(other, not_executed=words, wait=waited.append)
    assert waited == [101.0 + WRITTEN_WITHIN]
    own.release()
    own = database.new(map_index=1)
    own.claim()
    words = {"one#2", "two#2", "own"}
    assert own.open(other, not_executed=words, wait=waited.append).generation == 1
    assert database.states(own, "otx") == "nnn"
    # What changes nothing, and what no other has begun, is not waited for.
    again = database.new(map_index=1)
    again.claim()
    again.open(database.header(host="https://other.test"), not_executed=words, wait=waited.append)
    last = database.new(map_index=1)
    last.claim()
    last.open(database.header(host="https://third.test"), not_executed=words, wait=waited.append)
    assert waited == [101.0 + WRITTEN_WITHIN]


@pytest.mark.parametrize("meanwhile", ["a new request", "accepted", "nothing, and it is broken off"])
def test_settings_change_only_by_what_is_there_once_all_others_have_ended(
    database: SqlLedgers, meanwhile: str
) -> None:
    sends, idle, own = (database.start(map_index=number) for number in range(3))
    sends.write([], [database.intent("code", "ab")])
    own = database.new(map_index=2)
    own.claim()

    def wait(seconds: float) -> None:
        if meanwhile == "a new request":
            idle.write([], [database.intent("next", "c")])
        elif meanwhile == "accepted":
            with pytest.raises(LedgerFencedError, match="taken over by another try"):
                sends.write([Outcome("code", {"a": 1}, ["b"])], [database.intent("more", "d")])
        else:
            raise KeyboardInterrupt

    error = KeyboardInterrupt if meanwhile.startswith("nothing") else LedgerRefusedError
    with pytest.raises(error):
        own.open(database.header(host="https://other.test"), not_executed={"code"}, wait=wait)
    own.open(database.header())
    expected = {"a new request": "ddd-", "accepted": "ad--"}.get(meanwhile, "dd--")
    assert database.states(own, "abcd") == expected


def test_retry_of_another_process_for_this_task_is_waited_for(database: SqlLedgers) -> None:
    own, other = database.start(map_index=0), database.start(map_index=1)
    own.write([], [database.intent("code", "ab")])
    list(other.history())
    other.take_over(["code"])
    other.write([Outcome("code", {}, not_executed=["a", "b"])], [])
    other.write([], [replace(database.intent("code", "ab", again=True), open_for=50.0)])
    own = database.next_try(map_index=0)
    (request,) = own.history()
    assert (request.is_own, request.others_may_send, request.settle_key) == (True, True, "code#2")
    waited: list[float] = []
    with pytest.raises(LedgerRefusedError, match="so find out again"):
        own.open(database.header(host="https://other.test"), not_executed={"code#2"}, wait=waited.append)
    assert waited == [50.0 + WRITTEN_WITHIN]


def sent_again(database: SqlLedgers, ledger: Any) -> Any:
    """Send a request again that is this process's, and is in doubt; then end this process."""
    ledger.write([Outcome("code", {}, not_executed=["a", "b"])], [])
    ledger.write([], [database.intent("code", "ab", again=True)])
    ledger.release()


def others_may_send(ledger: Any) -> list[bool]:
    return [request.others_may_send for request in ledger.history()]


def test_retry_of_this_task_alone_waits_for_no_other_process(database: SqlLedgers) -> None:
    own = database.start(map_index=0)
    own.write([], [database.intent("code", "ab")])
    sent_again(database, own)
    own = database.next_try(map_index=0)
    assert others_may_send(own) == [False]
    assert own.number("code") == 2
    own.release()
    # A word about it counts at once, also where the settings are to change.
    own = database.new(map_index=0)
    own.claim()
    own.open(database.header(host="https://other.test"), not_executed={"code#2"}, wait=unexpected_wait)
    assert database.states(own, "ab") == "nn"


def test_request_of_another_live_task_is_waited_for_after_a_retry_of_this_one(
    database: SqlLedgers,
) -> None:
    own, other = database.start(map_index=0), database.start(map_index=1)
    own.write([], [database.intent("code", "ab")])
    own.release()
    list(other.history())
    other.take_over(["code"])
    sent_again(database, other)
    for number in (2, 3):
        own = database.next_try(map_index=0)
        assert others_may_send(own) == [True]
        assert own.number("code") == number
        own.take_over(["code"])
        # As where the gateway knows the code: at once.
        own.write([], [database.intent("code", "ab", again=True)])
        own.release()
    own = database.next_try(map_index=0)
    own.take_over(["code"])
    own.end_others(["code"])
    sent_again(database, own)
    assert others_may_send(database.next_try(map_index=0)) == [False]
    assert others_may_send(database.next_try(map_index=1)) == [True]


def test_a_request_that_was_taken_over_is_not_ended_by_its_first_owner(database: SqlLedgers) -> None:
    first, second = database.start(map_index=0), database.start(map_index=1)
    first.write([], [database.intent("code", "ab")])
    list(second.history())
    second.take_over(["code"])
    first.end_others(["code"], ["code"])
    third = database.start(map_index=2)
    assert [(each.others_may_send, each.number) for each in third.history()] == [(True, 1)]


def test_intents_that_are_skipped_may_have_been_another_task_s(database: SqlLedgers) -> None:
    own = database.start()
    own.skip_numbers({"code": 1})
    own.write([], [database.intent("code", "ab"), database.intent("first", "c")])
    own.release()
    requests = {request.task_unique_code: request for request in database.next_try().history()}
    assert {code: each.others_may_send for code, each in requests.items()} == {"code": True, "first": False}


@pytest.mark.parametrize("how", ["its requests were taken over", "it begins during the wait"])
def test_no_process_goes_on_with_the_settings_before(database: SqlLedgers, how: str) -> None:
    sends, taker, own = (database.start(map_index=number) for number in range(3))
    sends.write([], [database.intent("code", "ab")])
    late: list[Any] = []

    def wait(seconds: float) -> None:
        if how == "it begins during the wait":
            late.append(database.start(map_index=0, try_number=2))
            late[0].write([], [database.intent("two", "c")])
            late[0].write([Outcome("two", {}, not_executed=["c"])], [])

    if how == "its requests were taken over":
        list(taker.history())
        taker.take_over(["code"])
    own = database.new(map_index=2)
    own.claim()
    other = database.header(host="https://other.test")
    with pytest.raises(LedgerRefusedError, match="so find out again"):
        own.open(other, not_executed={"code"}, wait=wait)
    own = database.new(map_index=2)
    own.claim()
    own.open(other, not_executed={"code#2"}, wait=unexpected_wait)
    with pytest.raises(
        LedgerFencedError, match=r"another host, App key or secret meanwhile|taken over by another try"
    ):
        (late[0] if late else sends).write([], [database.intent("three", "d")])


def test_a_ledger_that_was_emptied_under_a_try_knows_no_recipient(database: SqlLedgers) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", "ab")])
    for table in TABLES:
        database.sql(f"DELETE FROM lingyang_ledger_{table}")
    outcome = Outcome("code", {"a": 1, "b": None})
    with pytest.raises(LedgerFencedError) as caught:
        ledger.write([outcome], [])
    assert caught.value.unwritten == [outcome]


def test_a_replaced_process_writes_accepted_recipients_and_returns_the_rest(database: SqlLedgers) -> None:
    first = database.start()
    first.write([], [database.intent("code", "abc")])
    second = database.next_try()
    with pytest.raises(LedgerFencedError) as caught:
        first.write([Outcome("code", {"a": 1}, ["b"], ["c"])], [database.intent("next", "d")])
    assert caught.value.unwritten == [Outcome("code", {}, ["b"], ["c"])]
    assert database.states(second, "abcd") == "add-"


def test_ledger_knows_whether_an_earlier_process_found_the_ledger_lost(database: SqlLedgers) -> None:
    tries = [database.new(try_number=number) for number in (2, 3, 4)]
    assert [(ledger.claim(), ledger.found_lost_before) for ledger in tries[:2]] == [
        (False, False),
        (False, True),
    ]
    tries[1].mark_history_known()
    assert (tries[2].claim(), tries[2].found_lost_before) == (True, False)


def test_a_claim_that_is_repeated_is_no_earlier_process(database: SqlLedgers) -> None:
    ledger = database.new(try_number=2)
    for _ in range(2):  # as after a commit whose answer was lost
        assert (ledger.claim(), ledger.found_lost_before) == (False, False)
    third = database.new(try_number=3)
    assert (third.claim(), third.found_lost_before) == (False, True)


def test_what_an_earlier_request_proves_counts_for_recipients_of_a_later_one(database: SqlLedgers) -> None:
    first = database.start(map_index=0)
    first.write([], [database.intent("one", "ab")])
    # Freed behind it, and sent again.
    database.sql("UPDATE lingyang_ledger_recipient SET state=3")
    database.start(map_index=1).write([], [database.intent("two", "ab", again=True)])
    first.write([Outcome("one", {"a": 1, "b": 2})], [])
    assert database.states(database.start(map_index=2), "ab") == "aa"


@pytest.mark.parametrize("text", ["拒绝 [isv.x]", "x" * 1000])
def test_a_reason_that_the_database_cannot_take_does_not_lose_the_outcome(
    database: SqlLedgers, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("one", "abc")])
    execute = Transaction.execute

    def ascii_only(run: Transaction, sql: str, parameters: Sequence[Any]) -> int:
        ",".join(map(str, parameters)).encode("ascii")
        return execute(run, sql, parameters)

    monkeypatch.setattr(Transaction, "execute", ascii_only)
    ledger.write([Outcome("one", {"a": 1}, ["b"], ["c"], reason=text, request_id="请求-7")], [])
    assert database.states(ledger, "abc") == "arn"
    kept = database.sql("SELECT reason FROM lingyang_ledger_recipient WHERE biz_id='b'")
    assert [tuple(row) for row in kept] == [(text[:250] if text.isascii() else None,)]
    assert [tuple(row) for row in database.sql("SELECT request_id FROM lingyang_ledger_request")] == [("-7",)]
