"""The command that writes a person's word about a request in doubt: only where no process can send it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from airflow_provider_lingyang.cli import ledger as ledger_commands
from airflow_provider_lingyang.errors import LedgerFencedError
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.sql_settle import Settlement
from airflow_provider_lingyang.storage.database import Database
from tests.ledger.conftest import Command, SqlLedgers, is_held_up, unexpected_wait

CODE = "0f3a-0001"
OTHER = "0f3a-0002"
CAMPAIGN = ("--campaign-key", "campaign", "--plan-id", "1")
ALIVE = "dag/run/submit has not noted its end, and a process of it may still send"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the command has waited for, in seconds; no time passes."""
    waited: list[float] = []
    monkeypatch.setattr(ledger_commands.time, "sleep", waited.append)
    return waited


def in_doubt(database: SqlLedgers, code: str = CODE, biz_ids: str = "ab", **changes: Any) -> Any:
    """A process that has written an intent, and runs."""
    ledger = database.start(**changes)
    ledger.write([], [database.intent(code, biz_ids)])
    return ledger


def settle(command: Command, *words: str, yes: bool = True, code: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = command.json(
        "settle", *CAMPAIGN, *words, *(["--yes"] if yes else []), code=code
    )
    return found


def states(database: SqlLedgers, biz_ids: str = "ab") -> str:
    return database.states(database.next_try(run_id="looks"), biz_ids)


@pytest.mark.parametrize(("word", "expected"), [("accepted", "aa"), ("not_executed", "nn")])
def test_a_word_settles_what_an_ended_process_has_left(
    database: SqlLedgers, command: Command, word: str, expected: str
) -> None:
    in_doubt(database).release()
    (verdict,) = settle(command, f"{CODE}={word}")
    assert verdict == {"request": CODE, "word": word, "recipients": 2, "settled": True, "note": ""}
    assert states(database) == expected
    ((doubtful, reached, open_for),) = database.sql(
        "SELECT in_doubt, reached, open_for FROM lingyang_ledger_request"
    )
    assert (doubtful, reached, open_for) == (0, expected.count("a"), 0)


def test_only_recipients_in_doubt_are_settled(database: SqlLedgers, command: Command) -> None:
    ledger = in_doubt(database, biz_ids="abcd")
    ledger.write([Outcome(CODE, {"a": 1}, ["b"], (), ["c", "d"])], [])
    ledger.release()
    assert settle(command, f"{CODE}=not_executed")[0]["recipients"] == 2
    assert states(database, "abcd") == "arnn"


def test_without_yes_nothing_changes(database: SqlLedgers, command: Command) -> None:
    in_doubt(database).release()
    before = database.everything()
    (verdict,) = settle(command, f"{CODE}=not_executed", yes=False)
    assert (verdict["settled"], verdict["recipients"]) == (True, 2)
    _, _, said = command("settle", *CAMPAIGN, f"{CODE}=not_executed")
    assert "Nothing was changed: this was a dry run" in said
    assert "no look-up was asked" in said
    assert database.everything() == before


def test_a_second_word_about_the_same_request_changes_nothing(database: SqlLedgers, command: Command) -> None:
    in_doubt(database).release()
    settle(command, f"{CODE}=accepted")
    (verdict,) = settle(command, f"{CODE}=not_executed", code=1)
    assert verdict["note"] == "it is not in doubt, or not any more: nothing is changed"
    assert states(database) == "aa"


def sends_again(database: SqlLedgers) -> None:
    ledger = in_doubt(database)
    ledger.write([Outcome(CODE, {}, (), ["a", "b"])], [])
    ledger.write([], [database.intent(CODE, "ab", again=True)])
    ledger.release()


@pytest.mark.parametrize(
    ("word", "note"),
    [
        (f"{CODE}=not_executed", f"in doubt now is {CODE}#2: find out about that one"),
        (f"{CODE}#3=not_executed", f"in doubt now is {CODE}#2: find out about that one"),
        (f"{OTHER}=not_executed", "the campaign has no such request"),
    ],
)
def test_a_word_is_about_one_intent(database: SqlLedgers, command: Command, word: str, note: str) -> None:
    sends_again(database)
    (verdict,) = settle(command, word, code=1)
    assert verdict["note"] == note
    assert states(database) == "dd"
    assert settle(command, f"{CODE}#2=not_executed")[0]["settled"]


# --- while a process may still send ------------------------------------------------------------------------


def running(database: SqlLedgers) -> None:
    in_doubt(database)


def killed_and_another_has_ended(database: SqlLedgers) -> None:
    in_doubt(database)
    database.start(run_id="other").release()


def killed_and_its_next_try_has_not_waited(database: SqlLedgers) -> None:
    in_doubt(database)
    ledger = database.next_try()
    ledger.take_over([CODE])
    ledger.release()  # writes nothing: the killed one may still send


def taken_over_by_one_that_runs(database: SqlLedgers) -> None:
    in_doubt(database, run_id="ended").release()
    database.start().take_over([CODE])


def none_can_send_it_and_its_owner_runs(database: SqlLedgers) -> None:
    ledger = in_doubt(database)
    ledger.end_others([CODE])


def sent_again_by_one_of_two_of_which_one_runs(database: SqlLedgers) -> None:
    in_doubt(database)
    first = database.start(run_id="first")
    # Of a later intent any task instance may have been the sender.
    first.take_over([CODE])
    first.write([], [database.intent(CODE, "ab", again=True)])
    first.release()


def lost_its_task_instance(database: SqlLedgers) -> None:
    in_doubt(database).release()
    database.start(run_id="other").release()
    database.sql("DELETE FROM lingyang_ledger_worker WHERE run_id='run'")


@pytest.mark.parametrize(
    "left",
    [
        running,
        killed_and_another_has_ended,
        killed_and_its_next_try_has_not_waited,
        taken_over_by_one_that_runs,
        none_can_send_it_and_its_owner_runs,
        sent_again_by_one_of_two_of_which_one_runs,
        lost_its_task_instance,
    ],
)
@pytest.mark.parametrize("word", ["accepted", "not_executed"])
def test_a_request_that_may_still_be_sent_is_not_settled(
    database: SqlLedgers, command: Command, left: Callable[[SqlLedgers], None], word: str
) -> None:
    left(database)
    ((number,),) = database.sql("SELECT intents FROM lingyang_ledger_request")
    key = CODE if number == 1 else f"{CODE}#{number}"
    before = database.sql("SELECT * FROM lingyang_ledger_recipient")
    (verdict,) = settle(command, f"{key}={word}", code=1)
    assert not verdict["settled"]
    why = "the ledger has lost the task instance" if left is lost_its_task_instance else ALIVE
    assert why in verdict["note"]
    assert (
        "Wait for the end of its task, and find out after that. If its process was killed, Clear the"
        in verdict["note"]
    )
    assert "--take-over: that waits 125 s" in verdict["note"] or left is none_can_send_it_and_its_owner_runs
    assert database.sql("SELECT * FROM lingyang_ledger_recipient") == before


def killed_and_its_next_try_has_waited(database: SqlLedgers) -> None:
    in_doubt(database)
    ledger = database.next_try()
    ledger.take_over([CODE])
    ledger.end_others([CODE])
    ledger.release()


def taken_over_by_one_that_ended(database: SqlLedgers) -> None:
    in_doubt(database, run_id="first").release()
    ledger = database.start()
    ledger.take_over([CODE])
    ledger.release()


@pytest.mark.parametrize("left", [killed_and_its_next_try_has_waited, taken_over_by_one_that_ended])
def test_a_request_that_is_proven_to_be_sent_no_more_is_settled(
    database: SqlLedgers, command: Command, left: Callable[[SqlLedgers], None]
) -> None:
    left(database)
    assert settle(command, f"{CODE}=not_executed")[0]["settled"]


def test_a_take_over_waits_and_asks_again_under_another_number(
    database: SqlLedgers, command: Command, waits: list[float]
) -> None:
    killed = in_doubt(database)
    (verdict,) = settle(command, f"{CODE}=not_executed", "--take-over", code=1)
    assert waits == [125.0]
    assert (verdict["request"], verdict["settled"]) == (f"{CODE}#2", False)
    assert "find out again whether they were executed" in verdict["note"]
    # From the take-over on it cannot send: it must renew its intent before.
    with pytest.raises(LedgerFencedError):
        killed.renew([database.intent(CODE, "ab")])
    (verdict,) = settle(command, f"{CODE}#2=not_executed")
    assert verdict["settled"]
    assert states(database) == "nn"


def test_accepted_counts_at_once_after_a_take_over(
    database: SqlLedgers, command: Command, waits: list[float]
) -> None:
    in_doubt(database)
    assert settle(command, f"{CODE}=accepted", "--take-over")[0]["settled"]
    assert waits == []
    assert states(database) == "aa"


def test_what_was_answered_while_it_waited_stays_accepted(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = in_doubt(database)

    def answered(seconds: float) -> None:
        with pytest.raises(LedgerFencedError):
            killed.write([Outcome(CODE, {"a": 11}, (), (), ["b"])], [])

    monkeypatch.setattr(ledger_commands.time, "sleep", answered)
    settle(command, f"{CODE}=not_executed", "--take-over", code=1)
    assert settle(command, f"{CODE}#2=not_executed")[0]["recipients"] == 1
    assert states(database) == "an"


def test_an_interrupted_wait_leaves_the_request_in_doubt(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_doubt(database)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger_commands.time, "sleep", interrupt)
    said = command.fails("settle", *CAMPAIGN, f"{CODE}=not_executed", "--take-over", "--yes", code=130)
    assert "interrupted" in said
    assert states(database) == "dd"
    assert settle(command, f"{CODE}=not_executed", code=1)[0]["settled"] is False


def test_a_try_that_takes_it_over_meanwhile_keeps_it(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_doubt(database)
    taken = []

    def take(seconds: float) -> None:
        taken.append(database.next_try())
        taken[0].take_over([CODE])

    monkeypatch.setattr(ledger_commands.time, "sleep", take)
    (verdict,) = settle(command, f"{CODE}=not_executed", "--take-over", code=1)
    assert verdict["note"] == "a try has taken it over meanwhile: wait for its end"
    taken[0].renew([database.intent(CODE, "ab")])


# --- beside tries that run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "left"), [("not_executed", "nn"), ("accepted", "aa")])
def test_a_try_that_has_read_a_request_as_in_doubt_cannot_take_it_over_after_a_word(
    database: SqlLedgers, command: Command, word: str, left: str
) -> None:
    in_doubt(database).release()
    slow = database.start(run_id="slow")
    settle(command, f"{CODE}={word}")
    with pytest.raises(LedgerFencedError, match="settled by a command"):
        slow.take_over([CODE])
    assert states(database) == left


def test_a_late_answer_outranks_the_word(database: SqlLedgers, command: Command) -> None:
    killed = in_doubt(database)
    database.sql("UPDATE lingyang_ledger_worker SET ended=1")  # as a process does that ends in an error
    settle(command, f"{CODE}=not_executed")
    with pytest.raises(LedgerFencedError):
        killed.write([Outcome(CODE, {"a": 11}, (), (), ["b"])], [])
    assert states(database) == "an"


def test_no_process_claims_its_task_instance_between_the_proof_and_the_word(
    database: SqlLedgers, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_doubt(database).release()
    write, ledger = Settlement._write, database.new(try_number=2)

    def claim() -> None:
        ledger.claim()
        ledger.close()  # SQLite's connections are a thread's own

    thread = threading.Thread(target=claim)

    def while_another_claims(*args: Any) -> None:
        thread.start()
        assert is_held_up(thread)
        write(*args)

    monkeypatch.setattr(Settlement, "_write", staticmethod(while_another_claims))
    settle(command, f"{CODE}=not_executed")
    thread.join()
    ledger.open(database.header())
    assert database.states(ledger, "ab") == "nn"


@pytest.mark.parametrize("rounds", [8])
def test_two_commands_and_a_next_try_at_once_free_recipients_for_one_request(
    database: SqlLedgers, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    """Both commands and a try that claims, reads and sends again: whoever comes first, each recipient is in one
    request at a time, and the word is applied at most once.
    """
    for number in range(rounds):
        code = f"0f3a-{number:04}"
        run_id, biz_ids = f"run {number}", [f"a{number}", f"b{number}"]
        first = database.start(run_id=run_id)
        first.write([], [database.intent(code, biz_ids)])
        first.release()
        barrier = threading.Barrier(3)
        settled: list[bool] = []
        resent: list[bool] = []

        def settle_it(
            code: str = code, barrier: threading.Barrier = barrier, settled: list[bool] = settled
        ) -> None:
            with closing(Database(database.hook(), "ledger")) as own:
                settlement = Settlement(
                    own, "campaign", 1, execute=True, take_over=False, wait=unexpected_wait
                )
                barrier.wait()
                settled.append(settlement.settle(code, "not_executed").settled)

        def try_it(
            code: str = code,
            barrier: threading.Barrier = barrier,
            resent: list[bool] = resent,
            run_id: str = run_id,
            biz_ids: list[str] = biz_ids,
        ) -> None:
            barrier.wait()
            ledger = database.new(run_id=run_id, try_number=2)
            ledger.claim()
            ledger.open(database.header())
            (request,) = [one for one in ledger.history() if one.task_unique_code == code]
            resent.append(bool(request.not_executed))
            if resent[0]:
                ledger.write([], [database.intent(code, biz_ids, again=True)])

        threads = [threading.Thread(target=each) for each in (settle_it, settle_it, try_it)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(resent) == 1
        assert len(settled) == 2
        assert sum(settled) <= 1
        rows = database.sql(
            "SELECT request.intents, recipient.state FROM lingyang_ledger_recipient recipient "
            "JOIN lingyang_ledger_request request ON request.request=recipient.request "
            f"WHERE request.task_unique_code='{code}'"
        )
        # Sent again: in doubt under number 3, for a word takes one. Settled and not read in time: free. Else as before.
        expected = (3, 4) if resent[0] else (2, 3) if sum(settled) else (1, 4)
        assert [tuple(row) for row in rows] == [expected] * 2
