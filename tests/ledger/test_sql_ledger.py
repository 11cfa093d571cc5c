"""What a database adds: several workers in one campaign, and everything that can be wrong with a database."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from airflow_provider_lingyang.ledger import sql
from airflow_provider_lingyang.ledger.base import (
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    Outcome,
    digest,
    key_of,
)
from airflow_provider_lingyang.storage.database import Statements
from tests.ledger.conftest import SqlLedgers


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


def test_many_first_workers_make_the_tables_and_the_campaign_together(
    database: Any, monkeypatch: Any
) -> None:
    # A connection of SQLite belongs to the thread that made it.
    def work(number: int) -> int:
        ledger = database.new(map_index=number)
        ledger.claim()
        generation: int = ledger.open(database.header())
        ledger.write([], [database.intent(f"code-{number}", [f"{number}-{n}" for n in range(20)])])
        ledger.write([Outcome(f"code-{number}", {f"{number}-{n}": n for n in range(20)})], [])
        ledger.finish()
        ledger.close()
        return generation

    assert at_once([lambda number=number: work(number) for number in range(6)]) == [1] * 6  # type: ignore[misc]
    assert len(database.sql("SELECT * FROM lingyang_ledger_campaign")) == 1
    assert len(database.sql("SELECT * FROM lingyang_ledger_recipient WHERE state = 'accepted'")) == 120


def test_two_processes_of_one_worker_leave_one_owner(database: Any) -> None:
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
def test_a_recipient_whom_another_worker_has_is_refused_with_the_whole_write(
    database: Any, again: bool
) -> None:
    first, second = database.start(map_index=0), database.start(map_index=1)
    first.write([], [database.intent("first", ["a1", "b1"])])
    second.write([], [database.intent("second", ["c1"])])
    with pytest.raises(LedgerFencedError, match="another worker") as caught:
        second.write(
            [Outcome("second", {"c1": 1})],
            [database.intent("third", ["d1"]), database.intent("fourth", ["e1", "b1"], again=again)],
        )
    assert "b1" not in str(caught.value)
    assert database.states(second, ["a1", "b1", "c1", "d1", "e1"]) == "ddd--"
    assert {request.task_unique_code: request.mine for request in second.past()} == {
        "first": False,
        "second": True,
    }
    # It may go on with others.
    second.write([Outcome("second", {"c1": 1})], [database.intent("third", ["d1"])])
    assert database.states(second, ["c1", "d1"]) == "ad"


def test_of_two_workers_that_want_one_recipient_at_once_one_gets_it(database: Any) -> None:
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


def test_a_replaced_process_can_write_nothing_more(database: Any) -> None:
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
    assert database.states(last, "abc") == "dd-"
    assert [request.written_at for request in last.past()] == [1.5]


def test_a_request_that_was_taken_over_is_out_of_its_first_workers_hands(database: Any) -> None:
    first, second = database.start(map_index=0), database.start(map_index=1)
    first.write([], [database.intent("code", "ab"), database.intent("mine", "c")])
    second.take_over(["code"])
    for action in (
        lambda: first.write([Outcome("code", {"a": 1, "b": 2}), Outcome("mine", {"c": 3})], []),
        lambda: first.write([], [database.intent("code", "ab", again=True)]),
        lambda: first.renew([database.intent("mine", "c", written_at=99), database.intent("code", "ab")]),
    ):
        with pytest.raises(LedgerFencedError):
            action()
    # Nobody that another worker answers for is freed; what is its own, it may settle.
    first.write([Outcome("code", {}, (), ["a", "b"]), Outcome("mine", {"c": 3})], [])
    assert database.states(second, "abc") == "dda"
    assert [request.written_at for request in second.past()] == [1.5, 1.5]
    second.write([Outcome("code", {}, (), ["a"], ["b"])], [])
    second.write([], [database.intent("next", "a", again=True)])
    assert database.states(second, "abc") == "dda"


def finish(ledger: Any) -> None:
    ledger.write([], [SqlLedgers.intent("mine", ["m"])])
    ledger.write([Outcome("mine", {"m": 1})], [])
    ledger.finish()


def test_a_campaign_that_others_share_is_not_started_anew(database: Any) -> None:
    other, own = database.start(run_id="other"), database.start()
    other.write([], [database.intent("code", "ab")])
    finish(own)
    # Also where the other one's request in doubt was taken over, and sent again by who knows its code.
    for _ in range(3):
        own = database.new(try_number=2, max_tries=5)
        own.claim()
        with pytest.raises(LedgerRefusedError, match="other tasks or runs"):
            own.open(database.header(), resubmit=True)
        own = database.start(try_number=2)
        own.take_over(["code"])
        own.write([], [database.intent("code", "ab", again=True)])
        own.finish()
    assert {request.task_unique_code: request.mine for request in own.past()} == {"code": False, "mine": True}


def test_a_worker_without_requests_does_not_begin_with_a_generation_that_was_replaced(database: Any) -> None:
    other, own = database.start(run_id="other"), database.start()
    finish(own)
    assert database.start(try_number=2, max_tries=5, resubmit=True).handle["generation"] == 2
    with pytest.raises(LedgerFencedError, match="started anew meanwhile"):
        other.write([], [database.intent("code", "ab")])
    other = database.start(run_id="other", try_number=2)
    other.write([], [database.intent("code", "ab")])
    assert database.states(other, "abm") == "dd-"


def test_either_a_worker_begins_with_a_generation_or_another_one_ends_it(database: Any) -> None:
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
            [int, LedgerFencedError],
            [LedgerRefusedError, type(None)],
        )


def test_who_was_accepted_meanwhile_is_not_freed_by_who_takes_over_too_late(database: Any) -> None:
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


def test_another_worker_does_not_start_everybody_again(database: Any) -> None:
    database.start(map_index=0).finish()
    other = database.new(map_index=1, max_tries=1)
    other.claim()
    assert other.open(database.header(), resubmit=True) == 1


def test_campaigns_with_keys_of_their_own_do_not_meet(database: Any) -> None:
    first, second = database.start(campaign_key="one"), database.start(campaign_key="two")
    first.write([], [database.intent("code", "ab")])
    second.write([], [database.intent("code", "ab")])
    where = {"ledger_conn_id": "ledger", "campaign_key": "one", "plan_id": 1, "generation": 1}
    assert first.handle == where | {"worker": digest("one", first._attempt.worker)}
    first.write([Outcome("code", {"a": 1, "b": 2})], [])
    assert database.states(second, "ab") == "dd"


def test_task_ids_are_kept_where_they_were_told(database: Any) -> None:
    people = [f"order-{n}" for n in range(250)]
    ledger = database.start()
    ledger.write([], [database.intent("code", people)])
    ledger.write(
        [Outcome("code", {biz_id: 10**18 + n if n else None for n, biz_id in enumerate(people)})], []
    )
    kept = dict(database.sql("SELECT biz_id, task_id FROM lingyang_ledger_recipient"))
    assert kept == {biz_id: str(10**18 + n) if n else None for n, biz_id in enumerate(people)}


@pytest.mark.parametrize("number", [2**63, 10**25, -(2**63) - 1])
def test_a_task_id_that_no_number_of_the_platform_can_be_does_not_lose_the_outcome(
    database: Any, number: int
) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", "ab")])
    ledger.write([Outcome("code", {"a": number, "b": 2})], [])
    kept = dict(database.sql("SELECT biz_id, task_id FROM lingyang_ledger_recipient"))
    assert kept == {"a": None, "b": "2"}
    assert database.states(ledger, "ab") == "aa"


def test_a_database_that_does_not_enforce_keys_is_refused(make_sql: Any, monkeypatch: Any) -> None:
    database = make_sql("sqlite")
    # What Snowflake, Redshift and BigQuery make of a key.
    for table, columns in sql._TABLES.items():
        database.sql(f"CREATE TABLE {table} ({columns.split('PRIMARY KEY')[0].rstrip().rstrip(',')})")
    monkeypatch.setattr(sql, "_ENFORCES_KEYS", set())
    for _ in range(2):
        with pytest.raises(LedgerRefusedError, match="took one primary key twice"):
            database.new().claim()
    assert database.everything() == []


def test_whether_keys_are_enforced_is_asked_once_and_leaves_nothing(database: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sql, "_ENFORCES_KEYS", set())
    asked: list[str] = []
    insert = Statements.insert

    def counted(self: Any, table: str, *args: Any) -> None:
        asked.append(table)
        insert(self, table, *args)

    monkeypatch.setattr(Statements, "insert", counted)

    def claim(number: int) -> None:
        ledger = database.new(map_index=number)
        ledger.claim()
        ledger.close()

    assert at_once([partial(claim, number) for number in range(4)]) == [None] * 4
    asked.clear()
    claim(5)
    assert asked == ["lingyang_ledger_worker"]
    assert database.sql("SELECT * FROM lingyang_ledger_recipient") == []


def test_a_connection_that_was_cut_while_it_was_idle_is_replaced(database: Any, monkeypatch: Any) -> None:
    ledger = database.start()
    database.interrupt()()
    monkeypatch.setattr("airflow_provider_lingyang.storage.database._IDLE", -1.0)
    assert list(ledger.past()) == []
    ledger.write([], [database.intent("code", "ab")])


def test_a_broken_connection_is_an_error_of_the_ledger_and_is_replaced(database: Any) -> None:
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
    make_sql: Callable[[str], Any], monkeypatch: Any, told_by: str
) -> None:
    database = make_sql("sqlite")
    ledger = database.start()
    deadlock = Exception(1213, "Deadlock found") if told_by == "number" else Exception("40P01")
    if told_by != "number":
        setattr(deadlock, told_by, "40P01")
    calls, failing, count = 0, {3}, Statements.count

    def fail_in_the_middle(run: Statements, *args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls in failing:
            raise deadlock
        return count(run, *args)

    monkeypatch.setattr(Statements, "count", fail_in_the_middle)
    ledger.write([], [database.intent("code", "ab")])
    assert database.states(ledger, "ab") == "dd"
    # It is not tried for ever.
    failing.update(range(100))
    with pytest.raises(LedgerError, match="failed: Exception"):
        ledger.write([Outcome("code", {"a": 1, "b": 2})], [])


def test_a_database_that_cannot_be_reached_is_an_error_of_the_ledger(database: Any, monkeypatch: Any) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_LEDGER"])
    nowhere = {"host": "/nowhere/ledger.db"} if connection["conn_type"] == "sqlite" else {"port": free_port()}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection | nowhere))
    with pytest.raises(LedgerError, match=r"'ledger'.* cannot be reached"):
        database.new().claim()


def test_an_error_of_the_database_quotes_no_values(database: Any) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", ["secret-a"])])
    # SQLite takes texts as numbers, the others quote them.
    wrong = [database.intent("other", ["secret-b"], written_at="secret-c")] if database.path is None else []
    database.sql("DROP TABLE lingyang_ledger_recipient")
    for outcomes, intents in (([], wrong), ([Outcome("code", {"secret-a": 987654})], [])):
        if outcomes or intents:
            with pytest.raises(LedgerError, match="failed: ") as caught:
                ledger.write(outcomes, intents)
            assert "secret" not in str(caught.value)
            assert "987654" not in str(caught.value)


def test_a_table_that_cannot_be_made_is_named(database: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sql._TABLES, "lingyang_ledger_request", "code VARCHAR(36) NONSENSE (")
    with pytest.raises(
        LedgerError, match=r"table lingyang_ledger_request cannot be read or created: .*Error"
    ):
        database.new().claim()


def test_a_database_that_changes_ids_is_found_out(database: Any) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", ["客户1", "客户2"])])
    ledger.write([Outcome("code", {"客户1": 1}, (), (), ["客户2"])], [])
    database.sql("UPDATE lingyang_ledger_recipient SET biz_id = '??' WHERE state = 'accepted'")
    assert database.states(ledger, ["客户1", "客户2"]) == "ad"
    database.sql("UPDATE lingyang_ledger_recipient SET biz_id = '??'")
    with pytest.raises(LedgerRefusedError, match="does not give a biz_id back"):
        list(ledger.past())


def test_the_tables_hold_what_they_were_given_and_nothing_secret(database: Any) -> None:
    ledger = database.start()
    ledger.write([], [database.intent("code", ["order-1", "order-2"])])
    ledger.write([Outcome("code", {"order-1": 5}, ["order-2"])], [])
    ledger.finish()
    texts = {value for value in database.everything() if isinstance(value, str)}
    given = {"campaign", "https://gateway.test", "app", "code", "codecode", "7", "order-1", "order-2", "5"}
    given |= {"accepted", "rejected"} | {key_of(biz_id).hex() for biz_id in ("order-1", "order-2")}
    # The rest are digests: of the worker, its owner, the campaign and the App secret.
    rest = texts - given
    assert given <= texts
    assert all(len(text) == 32 and set(text) <= set("0123456789abcdef") for text in rest)
    assert len(rest) == 5
