"""What every ledger keeps from one try to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_lingyang.ledger.base import LedgerRefusedError, Outcome, key_of


def test_a_request_comes_back_as_it_was_written(ledgers: Any) -> None:
    people = [f"客户-{n}" for n in (3, 1, 2)]
    first = ledgers.start()
    first.write([], [ledgers.intent("code", people, written_at=1700000000.123456)])
    (request,) = ledgers.next_try().past()
    assert request.task_unique_code == "code"
    assert request.batch_num == "7"
    assert request.struct_digest == "codecode"
    assert request.written_at == 1700000000.123456
    assert list(request.in_doubt) == people
    assert request.mine
    assert not (request.accepted or request.rejected or request.not_executed)


def test_a_request_without_batch_num_has_none_later_either(ledgers: Any) -> None:
    first = ledgers.start()
    first.write([], [replace(ledgers.intent("code", ["a"]), batch_num=None)])
    assert [request.batch_num for request in ledgers.next_try().past()] == [None]


def test_ids_that_look_alike_are_different_recipients(ledgers: Any) -> None:
    people = ["a1", "A1", "a1 ", " a1", "á1", "ａ1", "客户", "客戶", "😀", "😁", "'; --", "?%s"]
    ledgers.start().write([], [ledgers.intent("code", people)])
    second = ledgers.next_try()
    assert [list(request.in_doubt) for request in second.past()] == [people]
    second.take_over(["code"])
    second.write([Outcome("code", {"A1": None}, ["客戶"], ["a1 "], [])], [])
    assert ledgers.states(second, people) == "dandddd" + "rdddd"


def test_outcomes_settle_a_request_part_by_part(ledgers: Any) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "abcde")])
    first.write([Outcome("code", {"a": 9223372036854775807}, ["b"], ["c"], ["d", "e"])], [])
    second = ledgers.next_try()
    assert ledgers.states(second, "abcde") == "arndd"
    (request,) = list(second.past())[-1:]
    assert (request.batch_num, request.struct_digest, request.written_at) == ("7", "codecode", 1.5)
    assert list(request.in_doubt) == ["d", "e"]
    second.take_over(["code"])
    second.write([Outcome("code", {"e": None}, ["d"])], [])
    assert ledgers.states(ledgers.next_try(), "abcde") == "arnra"


def test_outcomes_and_the_next_intents_are_written_together(ledgers: Any) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("one", "ab"), ledgers.intent("two", "cd")])
    ledger.write(
        [Outcome("one", {"a": 1, "b": 2}), Outcome("two", {}, ["c", "d"])], [ledgers.intent("three", "ef")]
    )
    assert ledgers.states(ledgers.next_try(), "abcdefg") == "aarrdd-"


def test_a_renewed_intent_is_as_old_as_it_was(ledgers: Any) -> None:
    ledger = ledgers.start()
    intent = ledgers.intent("code", "ab", written_at=1)
    ledger.write([], [intent])
    ledger.renew([intent])
    (request,) = ledgers.next_try().past()
    assert request.written_at == 1
    assert list(request.in_doubt) == ["a", "b"]


@pytest.mark.parametrize("code", ["code", "other"])
def test_whoever_was_not_executed_may_be_sent_to_again(ledgers: Any, code: str) -> None:
    ledgers.start().write([], [ledgers.intent("code", "abc")])
    second = ledgers.next_try()
    second.take_over(["code"])
    second.write([Outcome("code", {}, (), ["a", "b", "c"])], [])
    people = "abc" if code == "code" else "cb"
    second.write([], [ledgers.intent(code, people, again=True)])
    assert ledgers.states(second, people) == "d" * len(people)
    second.write([Outcome(code, dict.fromkeys(people))], [])
    assert ledgers.states(ledgers.next_try(), people) == "a" * len(people)


def test_a_request_in_doubt_may_be_sent_again_under_its_code(ledgers: Any) -> None:
    ledgers.start().write([], [ledgers.intent("code", "abc", written_at=1)])
    second = ledgers.next_try()
    second.take_over(["code"])
    second.write([], [ledgers.intent("code", "abc", again=True, written_at=2)])
    second.write([Outcome("code", {"a": 1, "b": 2, "c": 3})], [])
    assert ledgers.states(ledgers.next_try(), "abc") == "aaa"


def test_who_was_sent_to_again_stays_accepted_when_the_first_request_is_settled_at_last(ledgers: Any) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("one", "ab")])
    first.write([Outcome("one", {}, (), ["a"], ["b"])], [])
    first.write([], [ledgers.intent("two", "a", again=True)])
    first.write([Outcome("two", {"a": 1})], [])
    second = ledgers.next_try()
    second.take_over(["one"])
    second.write([Outcome("one", {"b": None})], [])
    assert ledgers.states(ledgers.next_try(), "ab") == "aa"


def test_who_is_free_stays_free_when_the_rest_of_the_request_is_settled(ledgers: Any) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "abc")])
    ledger.write([Outcome("code", {}, (), ["a"], ["b", "c"])], [])
    ledger.write([Outcome("code", {"b": 1}, (), (), ["c"])], [])
    ledger.write([Outcome("code", {}, ["c"])], [])
    assert ledgers.states(ledgers.next_try(), "abc") == "nar"


def test_taking_back_an_intent_that_was_never_written_hinders_no_other_outcome(ledgers: Any) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "ab")])
    ledger.write([Outcome("never", {}, (), ["c"]), Outcome("code", {"a": 1, "b": 2})], [])
    assert ledgers.states(ledgers.next_try(), "ab") == "aa"


@pytest.mark.parametrize("size", [99, 100, 101, 1500])
def test_a_request_may_be_large(ledgers: Any, size: int) -> None:
    people = [f"order-{n}" for n in range(size)]
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", people)])
    ledger.write(
        [Outcome("code", {biz_id: n for n, biz_id in enumerate(people[2:])}, people[:1], (), people[1:2])], []
    )
    assert ledgers.states(ledgers.next_try(), people) == "rd" + "a" * (size - 2)


@pytest.mark.parametrize("changes", [{"try_number": 2}, {"resumed": True}])
def test_a_try_with_a_past_that_nobody_knows_stays_one_until_it_is_known(
    ledgers: Any, changes: dict[str, Any]
) -> None:
    assert not ledgers.new(**changes).claim()
    ledger = ledgers.new(**changes)
    assert not ledger.claim()
    ledger.know_past()
    assert ledgers.new(**changes).claim()
    assert ledgers.new(task_id="another").claim()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"host": "https://other.test"}, "host"),
        ({"app_key": "other"}, "App key"),
        ({"app_secret": "other"}, "App secret"),
    ],
)
def test_a_campaign_is_not_continued_by_another_app(ledgers: Any, changes: dict[str, str], name: str) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    second = ledgers.new(try_number=2)
    second.claim()
    with pytest.raises(LedgerRefusedError, match=f"begun with another {name} than"):
        second.open(ledgers.header(**changes))
    assert second.open(ledgers.header()) == 1


def test_a_secret_with_a_typo_that_reached_nobody_can_be_corrected(ledgers: Any) -> None:
    first = ledgers.start(app_secret="typo")
    first.write([], [ledgers.intent("code", "ab")])
    first.write([Outcome("code", {}, not_executed="ab")], [])
    second = ledgers.start(try_number=2)
    second.write([], [ledgers.intent("code", "ab", again=True)])
    third = ledgers.new(try_number=3)
    third.claim()
    with pytest.raises(LedgerRefusedError, match="another App secret"):
        third.open(ledgers.header(app_secret="typo"))


def test_two_plans_are_two_campaigns(ledgers: Any) -> None:
    ledgers.start(plan_id=1).write([], [ledgers.intent("code", "ab")])
    assert ledgers.states(ledgers.next_try(plan_id=2), "ab") == "--"
    assert ledgers.states(ledgers.next_try(plan_id=1), "ab") == "dd"


@pytest.mark.parametrize(
    ("finished", "max_tries", "resubmit", "generation"),
    [
        pytest.param(True, 1, True, 2, id="a Clear of a finished one"),
        pytest.param(True, 1, False, 1, id="a Clear that reuses"),
        pytest.param(True, 0, True, 1, id="a retry of a finished one"),
        pytest.param(True, None, True, 1, id="nobody knows whether it was cleared"),
        pytest.param(False, 1, True, 1, id="a Clear of an unfinished one"),
    ],
)
def test_everybody_is_sent_to_again_only_after_a_clear_of_a_finished_submission(
    ledgers: Any, finished: bool, max_tries: int | None, resubmit: bool, generation: int
) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    first.write([Outcome("code", {"a": 1, "b": 2})], [])
    if finished:
        first.finish()
    second = ledgers.new(try_number=2, max_tries=max_tries)
    second.claim()
    assert second.open(ledgers.header(), resubmit=resubmit) == generation
    assert ledgers.states(second, "ab") == ("aa" if generation == 1 else "--")
    if generation == 2:
        second.write([], [ledgers.intent("again", "ab")])
        # A retry of it goes on in its generation.
        third = ledgers.next_try(max_tries=1, resubmit=True)
        assert ledgers.states(third, "ab") == "dd"


def test_a_submission_that_goes_on_is_not_finished_any_more(ledgers: Any) -> None:
    ledgers.start().finish()
    ledgers.next_try()
    third = ledgers.new(try_number=3, max_tries=1)
    third.claim()
    assert third.open(ledgers.header(), resubmit=True) == 1


def test_recipients_are_known_by_keys_that_are_no_biz_ids(ledgers: Any) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "ab")])
    ledger.write([Outcome("code", {"a": 1}, ["b"])], [])
    request = list(ledgers.next_try().past())[-1]
    assert (request.accepted, request.rejected) == ([key_of("a")], [key_of("b")])
