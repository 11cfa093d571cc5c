"""What every ledger keeps from one try to the next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.base import OPEN_FOR, WRITTEN_WITHIN, Ledger, Outcome
from tests.ledger.conftest import Ledgers, no_wait


def test_a_request_comes_back_as_it_was_written(ledgers: Ledgers) -> None:
    biz_ids = [f"客户-{n}" for n in (3, 1, 2)]
    first = ledgers.start()
    first.write([], [ledgers.intent("code", biz_ids, written_at=1700000000.123456)])
    (request,) = ledgers.next_try().history()
    assert request.task_unique_code == "code"
    assert request.batch_num == "7"
    assert request.struct_digest == "codecode"
    assert request.written_at == 1700000000.123456
    assert list(request.in_doubt) == biz_ids
    assert request.is_own
    assert not (request.accepted or request.rejected or request.not_executed)


def test_a_request_without_batch_num_has_none_later_either(ledgers: Ledgers) -> None:
    first = ledgers.start()
    first.write([], [replace(ledgers.intent("code", ["a"]), batch_num=None)])
    assert [request.batch_num for request in ledgers.next_try().history()] == [None]


def test_ids_that_look_alike_are_different_recipients(ledgers: Ledgers) -> None:
    biz_ids = ["a1", "A1", "a1 ", " a1", "á1", "ａ1", "客户", "客戶", "😀", "😁", "'; --", "?%s"]
    ledgers.start().write([], [ledgers.intent("code", biz_ids)])
    second = ledgers.next_try()
    assert [list(request.in_doubt) for request in second.history()] == [biz_ids]
    second.take_over(["code"])
    second.write([Outcome("code", {"A1": None}, ["客戶"], ["a1 "], [])], [])
    assert ledgers.states(second, biz_ids) == "dandddd" + "rdddd"


def test_outcomes_settle_a_request_part_by_part(ledgers: Ledgers) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "abcde")])
    first.write([Outcome("code", {"a": 9223372036854775807}, ["b"], ["c"], ["d", "e"])], [])
    second = ledgers.next_try()
    assert ledgers.states(second, "abcde") == "arndd"
    (request,) = list(second.history())[-1:]
    assert (request.batch_num, request.struct_digest, request.written_at) == ("7", "codecode", 1.5)
    assert list(request.in_doubt) == ["d", "e"]
    second.take_over(["code"])
    second.write([Outcome("code", {"e": None}, ["d"])], [])
    assert ledgers.states(ledgers.next_try(), "abcde") == "arnra"


def test_outcomes_and_the_next_intents_are_written_together(ledgers: Ledgers) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("one", "ab"), ledgers.intent("two", "cd")])
    ledger.write(
        [Outcome("one", {"a": 1, "b": 2}), Outcome("two", {}, ["c", "d"])], [ledgers.intent("three", "ef")]
    )
    assert ledgers.states(ledgers.next_try(), "abcdefg") == "aarrdd-"


def test_a_renewed_intent_is_as_old_as_it_was(ledgers: Ledgers) -> None:
    ledger = ledgers.start()
    intent = ledgers.intent("code", "ab", written_at=1)
    ledger.write([], [intent])
    ledger.renew([intent])
    (request,) = ledgers.next_try().history()
    assert request.written_at == 1
    assert list(request.in_doubt) == ["a", "b"]


@pytest.mark.parametrize("code", ["code", "other"])
def test_recipients_not_executed_may_be_sent_to_again(ledgers: Ledgers, code: str) -> None:
    ledgers.start().write([], [ledgers.intent("code", "abc")])
    second = ledgers.next_try()
    second.take_over(["code"])
    second.write([Outcome("code", {}, (), ["a", "b", "c"])], [])
    biz_ids = "abc" if code == "code" else "cb"
    second.write([], [ledgers.intent(code, biz_ids, again=True)])
    assert ledgers.states(second, biz_ids) == "d" * len(biz_ids)
    second.write([Outcome(code, dict.fromkeys(biz_ids))], [])
    assert ledgers.states(ledgers.next_try(), biz_ids) == "a" * len(biz_ids)


def test_a_request_in_doubt_may_be_sent_again_under_its_code(ledgers: Ledgers) -> None:
    ledgers.start().write([], [ledgers.intent("code", "abc", written_at=1)])
    second = ledgers.next_try()
    second.take_over(["code"])
    second.write([], [ledgers.intent("code", "abc", again=True, written_at=2)])
    second.write([Outcome("code", {"a": 1, "b": 2, "c": 3})], [])
    assert ledgers.states(ledgers.next_try(), "abc") == "aaa"


def test_recipient_accepted_in_a_retry_stays_accepted_when_the_first_request_is_settled(
    ledgers: Ledgers,
) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("one", "ab")])
    first.write([Outcome("one", {}, (), ["a"], ["b"])], [])
    first.write([], [ledgers.intent("two", "a", again=True)])
    first.write([Outcome("two", {"a": 1})], [])
    second = ledgers.next_try()
    second.take_over(["one"])
    second.write([Outcome("one", {"b": None})], [])
    assert ledgers.states(ledgers.next_try(), "ab") == "aa"


def test_recipient_not_executed_stays_free_when_the_request_is_settled(ledgers: Ledgers) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "abc")])
    ledger.write([Outcome("code", {}, (), ["a"], ["b", "c"])], [])
    ledger.write([Outcome("code", {"b": 1}, (), (), ["c"])], [])
    ledger.write([Outcome("code", {}, ["c"])], [])
    assert ledgers.states(ledgers.next_try(), "abc") == "nar"


def test_taking_back_an_intent_that_was_never_written_hinders_no_other_outcome(ledgers: Ledgers) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "ab")])
    ledger.write([Outcome("never", {}, (), ["c"]), Outcome("code", {"a": 1, "b": 2})], [])
    assert ledgers.states(ledgers.next_try(), "ab") == "aa"


@pytest.mark.parametrize("size", [99, 100, 101, 1500])
def test_a_request_may_be_large(ledgers: Ledgers, size: int) -> None:
    biz_ids = [f"order-{n}" for n in range(size)]
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", biz_ids)])
    ledger.write(
        [Outcome("code", {biz_id: n for n, biz_id in enumerate(biz_ids[2:])}, biz_ids[:1], (), biz_ids[1:2])],
        [],
    )
    assert ledgers.states(ledgers.next_try(), biz_ids) == "rd" + "a" * (size - 2)


@pytest.mark.parametrize("changes", [{"try_number": 2}, {"resumed": True}])
def test_unknown_history_stays_unknown_until_it_is_read(ledgers: Ledgers, changes: dict[str, Any]) -> None:
    assert not ledgers.new(**changes).claim()
    ledger = ledgers.new(**changes)
    assert not ledger.claim()
    ledger.mark_history_known()
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
def test_a_campaign_is_not_continued_by_another_app(
    ledgers: Ledgers, changes: dict[str, str], name: str
) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    second = ledgers.new(try_number=2)
    second.claim()
    with pytest.raises(LedgerRefusedError, match=f"begun with another {name}( |$)"):
        second.open(ledgers.header(**changes))
    assert second.open(ledgers.header()).generation == 1


def test_a_secret_with_a_typo_that_reached_no_recipient_can_be_corrected(ledgers: Ledgers) -> None:
    first = ledgers.start(app_secret="typo")
    first.write([], [ledgers.intent("code", "ab")])
    first.write([Outcome("code", {}, not_executed="ab")], [])
    second = ledgers.start(try_number=2)
    second.write([], [ledgers.intent("code", "ab", again=True)])
    third = ledgers.new(try_number=3)
    third.claim()
    with pytest.raises(LedgerRefusedError, match="another App secret"):
        third.open(ledgers.header(app_secret="typo"))


def test_two_plans_are_two_campaigns(ledgers: Ledgers) -> None:
    ledgers.start(plan_id=1).write([], [ledgers.intent("code", "ab")])
    assert ledgers.states(ledgers.next_try(plan_id=2), "ab") == "--"
    assert ledgers.states(ledgers.next_try(plan_id=1), "ab") == "dd"


@pytest.mark.parametrize(
    ("finished", "max_tries", "resubmit", "generation"),
    [
        pytest.param(True, 1, True, 2, id="a Clear of a finished one"),
        pytest.param(True, 1, False, 1, id="a Clear that reuses"),
        pytest.param(True, 0, True, 1, id="a retry of a finished one"),
        pytest.param(True, None, True, 1, id="whether it was cleared is unknown"),
        pytest.param(False, 1, True, 1, id="a Clear of an unfinished one"),
    ],
)
def test_all_recipients_are_sent_to_again_only_after_a_clear_of_a_finished_submission(
    ledgers: Ledgers, finished: bool, max_tries: int | None, resubmit: bool, generation: int
) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    first.write([Outcome("code", {"a": 1, "b": 2})], [])
    if finished:
        first.finish()
    second = ledgers.new(try_number=2, max_tries=max_tries)
    second.claim()
    assert second.open(ledgers.header(), resubmit=resubmit).generation == generation
    assert ledgers.states(second, "ab") == ("aa" if generation == 1 else "--")
    if generation == 2:
        second.write([], [ledgers.intent("again", "ab")])
        # A retry of it goes on in its generation.
        third = ledgers.next_try(max_tries=1, resubmit=True)
        assert ledgers.states(third, "ab") == "dd"


def test_a_submission_that_goes_on_is_not_finished_any_more(ledgers: Ledgers) -> None:
    ledgers.start().finish()
    ledgers.next_try()
    third = ledgers.new(try_number=3, max_tries=1)
    third.claim()
    assert third.open(ledgers.header(), resubmit=True).generation == 1


def test_recipients_are_known_by_keys_that_are_no_biz_ids(ledgers: Ledgers) -> None:
    ledger = ledgers.start()
    ledger.write([], [ledgers.intent("code", "ab")])
    ledger.write([Outcome("code", {"a": 1}, ["b"])], [])
    request = list(ledgers.next_try().history())[-1]
    assert (request.accepted, request.rejected) == ([recipient_hash("a")], [recipient_hash("b")])


def test_facts_are_kept_within_a_generation(ledgers: Ledgers) -> None:
    first = ledgers.start()
    assert first.fact("limit") is None
    first.set_fact("limit", {"began": 12.5})
    first.set_fact("客户", ["a", 1])
    first.set_fact("gone", 1)
    first.set_fact("gone", None)
    first.write([], [ledgers.intent("code", "ab")])
    second = ledgers.next_try()
    assert [second.fact(name) for name in ("limit", "客户", "gone")] == [{"began": 12.5}, ["a", 1], None]
    second.take_over(["code"])
    second.write([Outcome("code", {"a": 1, "b": 2})], [])
    second.finish()
    assert ledgers.next_try(plan_id=2).fact("limit") is None
    cleared = ledgers.start(try_number=3, max_tries=5, resubmit=True)
    assert cleared.fact("limit") is None


def test_a_ledger_that_remembers_nothing_keeps_facts_for_its_try() -> None:
    ledger = Ledger()
    ledger.set_fact("limit", 1)
    assert (ledger.fact("limit"), ledger.fact("other"), Ledger().fact("limit")) == (1, None, None)


def numbers(ledger: Any) -> dict[str, int]:
    return {request.task_unique_code: request.number for request in ledger.history()}


def not_executed(ledger: Any, code: str, biz_ids: str) -> None:
    ledger.write([Outcome(code, {}, (), list(biz_ids))], [])


def test_intents_of_a_code_are_counted_over_tries(ledgers: Ledgers) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab"), ledgers.intent("other", "c")])
    assert [first.number(code) for code in ("code", "other", "never")] == [1, 1, 1]
    not_executed(first, "code", "ab")
    first.write([Outcome("other", {"c": 1})], [ledgers.intent("code", "ab", again=True)])
    first.renew([ledgers.intent("code", "ab", again=True)])
    assert first.number("code") == 2
    second = ledgers.next_try()
    assert numbers(second) == {"code": 2, "other": 1}
    assert second.number("code") == 2
    second.take_over(["code"])
    not_executed(second, "code", "ab")
    third = ledgers.next_try()
    third.write([], [ledgers.intent("code", "ab", again=True)])
    # In doubt, and sent again under its code, which the gateway knows.
    fourth = ledgers.next_try()
    fourth.take_over(["code"])
    fourth.write([], [ledgers.intent("code", "ab", again=True)])
    assert (third.number("code"), fourth.number("code")) == (3, 4)
    assert ledgers.states(ledgers.next_try(), "abc") == "dda"


def test_intents_are_counted_although_their_recipients_went_to_other_requests(ledgers: Ledgers) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    not_executed(first, "code", "ab")
    first.write([], [ledgers.intent("part", "a", again=True)])
    not_executed(first, "part", "a")
    second = ledgers.next_try()
    second.write([], [ledgers.intent("code", "ab", again=True)])
    assert ledgers.next_try().number("code") == 2


def test_intents_are_counted_within_a_generation(ledgers: Ledgers) -> None:
    first = ledgers.start()
    for again in (False, True):
        first.write([], [ledgers.intent("code", "ab", again=again)])
        not_executed(first, "code", "ab")
    first.finish()
    second = ledgers.start(try_number=2, max_tries=5, resubmit=True)
    second.write([], [ledgers.intent("code", "ab")])
    assert (second.handle or {}).get("generation", 2) == 2
    assert numbers(ledgers.next_try(max_tries=5)) == {"code": 1}


@pytest.mark.parametrize("again", [False, True])
def test_numbers_that_were_skipped_are_given_to_no_later_intent(ledgers: Ledgers, again: bool) -> None:
    first = ledgers.start()
    if again:
        first.write([], [ledgers.intent("code", "ab")])
        not_executed(first, "code", "ab")
    first.skip_numbers({"code": 3, "other": 1})
    first.skip_numbers({"code": 2})
    second = ledgers.next_try()
    second.write([], [ledgers.intent("code", "ab", again=again), ledgers.intent("fresh", "c")])
    assert second.number("code") == 4
    assert numbers(ledgers.next_try())["code"] == 4
    assert numbers(second)["fresh"] == 1


def test_request_open_time_is_kept(ledgers: Ledgers) -> None:
    first = ledgers.start()
    ended = replace(ledgers.intent("ended", "e"), open_for=0.0)
    first.write(
        [], [replace(ledgers.intent("code", "abc"), open_for=70.5), ledgers.intent("other", "d"), ended]
    )
    first.write([Outcome("code", {"a": 1}, (), (), ["b", "c"])], [])
    kept = {request.task_unique_code: request.open_for for request in ledgers.next_try().history()}
    assert kept == {"code": 70.5, "other": OPEN_FOR, "ended": 0.0}


@pytest.mark.parametrize("changes", [{"host": "https://other.test"}, {"app_key": "x"}, {"app_secret": "x"}])
@pytest.mark.parametrize(
    ("outcome", "words", "goes_on"),
    [
        pytest.param(None, {"code"}, True, id="settled"),
        pytest.param(None, {"code", "code#2", "stranger"}, True, id="settled among others"),
        pytest.param(None, set(), False, id="not settled"),
        pytest.param(None, {"code#2"}, False, id="another intent is settled"),
        pytest.param(Outcome("code", {}, (), ["a", "b"]), set(), True, id="not executed"),
        pytest.param(Outcome("code", {}, (), ["a"], ["b"]), {"code"}, True, id="the rest is settled"),
        pytest.param(Outcome("code", {}, (), ["a"], ["b"]), set(), False, id="the rest is not settled"),
        pytest.param(Outcome("code", {"a": None}, (), (), ["b"]), {"code"}, False, id="one is accepted"),
        pytest.param(Outcome("code", {}, ["a"], (), ["b"]), {"code"}, False, id="one is rejected"),
    ],
)
def test_a_campaign_that_reached_no_recipient_goes_on_with_other_settings(
    ledgers: Ledgers, changes: dict[str, str], outcome: Outcome | None, words: set[str], goes_on: bool
) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    if outcome is not None:
        first.write([outcome], [])
    first.release()
    second = ledgers.new(try_number=2)
    second.claim()
    if not goes_on:
        with pytest.raises(LedgerRefusedError) as caught:
            second.open(ledgers.header(**changes), not_executed=words, wait=no_wait)
        reached = outcome is not None and bool(outcome.accepted or outcome.rejected)
        assert ('settle={"code": "not_executed"}' in str(caught.value)) is not reached
        assert second.open(ledgers.header(), not_executed=words, wait=no_wait).generation == 1
        return
    assert second.open(ledgers.header(**changes), not_executed=words, wait=no_wait).generation == 1
    assert ledgers.states(second, "ab") == "nn"
    second.write([], [ledgers.intent("new", "ab", again=True)])
    assert ledgers.states(ledgers.start(try_number=3, header=ledgers.header(**changes)), "ab") == "dd"


def test_settle_alone_changes_nothing_with_the_same_settings(ledgers: Ledgers) -> None:
    ledgers.start().write([], [ledgers.intent("code", "ab")])
    second = ledgers.new(try_number=2)
    second.claim()
    assert second.open(ledgers.header(), not_executed={"code"}, wait=no_wait).generation == 1
    assert ledgers.states(second, "ab") == "dd"


@pytest.mark.parametrize("before", ["it ended", "it did not end", "the one before it did not end"])
def test_ledger_knows_whether_an_earlier_process_may_still_run(ledgers: Ledgers, before: str) -> None:
    first = ledgers.start()
    first.write([], [ledgers.intent("code", "ab")])
    if before == "it ended":
        first.release()
    second = ledgers.next_try()
    if before == "the one before it did not end":
        second.release()
        second = ledgers.start(try_number=3)
    may_run = before != "it ended"
    assert second.others_may_run is may_run
    assert [request.others_may_send for request in second.history()] == [may_run]
    waited: list[float] = []
    other = ledgers.header(host="https://other.test")
    if may_run:
        # It may have sent after the word was given.
        with pytest.raises(
            LedgerRefusedError, match="when settle was given, another process could still send"
        ):
            second.open(other, not_executed={"code"}, wait=waited.append)
        assert waited == [120.0 + WRITTEN_WITHIN]
        assert ledgers.states(second, "ab") == "dd"
        second.release()
        second = ledgers.start(try_number=4)
        waited.clear()
    key = "code#2" if may_run else "code"
    assert second.open(other, not_executed={key}, wait=waited.append).settled == [key]
    assert waited == []


@pytest.mark.parametrize("end", ["no end", "an end", "an end after a word"])
def test_ledger_knows_requests_that_no_process_can_send(ledgers: Ledgers, end: str) -> None:
    ledgers.start().write([], [ledgers.intent("code", "ab"), ledgers.intent("other", "c")])
    second = ledgers.next_try()
    assert [request.others_may_send for request in second.history()] == [True, True]
    second.take_over(["code", "other"])
    if end != "no end":
        second.end_others(["code", "other"], ["code"] if end.endswith("word") else [])
    assert second.number("code") == 1 + end.endswith("word")
    second.release()
    third = ledgers.start(try_number=3)
    latest = {request.task_unique_code: request for request in third.history()}
    assert [request.others_may_send for request in latest.values()] == [end == "no end"] * 2
    assert third.others_may_run is (end == "no end")
    assert latest["code"].settle_key == ("code#2" if end.endswith("word") else "code")
    assert ledgers.states(third, "abc") == "ddd"
    third.take_over(["code"])
    third.write([Outcome("code", {}, (), ["a", "b"])], [ledgers.intent("code", "ab", again=True)])
    assert third.number("code") == 2 + end.endswith("word")


def test_replaced_process_records_no_end(ledgers: Ledgers) -> None:
    first = ledgers.start()
    second = ledgers.next_try()
    first.release()
    assert second.others_may_run
    assert ledgers.start(try_number=3).others_may_run


def test_process_without_a_claim_records_no_end(ledgers: Ledgers) -> None:
    ledgers.new(try_number=2).release()
    later = ledgers.new(try_number=3)
    assert not later.claim()
    assert later.others_may_run
