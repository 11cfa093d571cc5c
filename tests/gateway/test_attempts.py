"""The attempts of one call, driven without a network."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_provider_lingyang.errors import LedgerError, LedgerUnusableError
from airflow_provider_lingyang.gateway.attempts import Attempts, Call, RetryPolicy, Send, Sleep, Synchronise
from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    LingyangError,
    NotSentError,
    RequestRefusedError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.transport import SECOND_ANSWER
from airflow_provider_lingyang.turns import Ask, Grant, Turns
from tests.gateway.conftest import NOON, Time

SETTINGS = GatewaySettings(url="https://gateway.example/", app_key="k", app_secret="s")
ANSWER = b'{"a_response":{"data":"mine"}}'
OTHERS = b'{"a_response":{"data":"another call\'s"}}'
THROTTLED = b'{"error_response":{"code":7,"sub_msg":"This ban will last for 9 more seconds"}}'
REFUSED = b'{"error_response":{"code":15,"sub_code":"isv.invalid-parameter"}}'
FAILED = b'{"error_response":{"code":10}}'


def call(method: str = "a.method", **fields: Any) -> Call[str]:
    return Call(method, {}, lambda answer: answer.payload["data"], **fields)


def run(
    time: Time, asked: Call[str], *replies: bytes | LingyangError, reused: bool = False, **options: Any
) -> tuple[str, list[Any]]:
    """Answer what is sent with one reply after the other; return the value, and sleeps and sends in order."""
    retry = RetryPolicy(3, random.Random(0))
    steps = Attempts(SETTINGS, retry, lambda: NOON, lambda: time.seconds, **options).of(asked)
    came, done = iter(replies), []
    try:
        step: Any = next(steps)
        while True:
            if isinstance(step, Sleep):
                if step.seconds:
                    time.sleep(step.seconds)
                    done.append(step.seconds)
                step = next(steps)
                continue
            if isinstance(step, Synchronise):
                done.append("synchronised")
                try:
                    step.run()
                except LedgerError as error:
                    step = steps.throw(error)
                else:
                    step = next(steps)
                continue
            done.append("kept" if step.may_reuse else "new")
            step.reused = reused and step.may_reuse
            try:
                value = answered(step, next(came))
            except LingyangError as error:
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as end:
        return end.value, done


def answered(send: Send[str], reply: bytes | LingyangError) -> str:
    if isinstance(reply, LingyangError):
        raise reply
    send.read(200, {}, reply)
    return send.result(followed=False)


def shared(time: Time) -> RateLimiter:
    return RateLimiter(monotonic=lambda: time.seconds)


def test_throttle_is_waited_out_by_one_call(time_machine: Time) -> None:
    assert run(time_machine, call(), THROTTLED, ANSWER) == ("mine", ["new", 10.0, "new"])


def test_throttle_pauses_a_shared_rate_limiter(time_machine: Time) -> None:
    limiter = shared(time_machine)
    found = run(time_machine, call(), THROTTLED, ANSWER, limiter=limiter)
    assert found == ("mine", ["new", 10.0, "new"])
    assert limiter.delay() == 0.0
    limiter.pause(5)
    assert run(time_machine, call(), ANSWER, limiter=limiter) == ("mine", [5.0, "new"])


class Pace:
    """What processes share, in memory; raises its errors first."""

    patience = 60.0

    def __init__(self, time: Time, *errors: LedgerError) -> None:
        self.time, self.errors, self.asked = time, list(errors), list[Ask]()
        self.free_at = self.banned_until = 0.0

    def exchange(self, ask: Ask) -> Grant:
        if self.errors:
            raise self.errors.pop(0)
        self.asked.append(ask)
        now = self.time.seconds
        if ask.ban:
            self.banned_until = max(self.banned_until, now + ask.ban)
        first = max(self.free_at, self.banned_until, now)
        if ask.turns:
            self.free_at = first + ask.turns * ask.interval
        return Grant(first, self.banned_until)


def paced(time: Time, pace: Pace, rate: float | None = None) -> RateLimiter:
    return RateLimiter(rate, monotonic=lambda: time.seconds, turns=Turns(pace))


def test_attempts_take_turns_of_a_shared_pace(time_machine: Time) -> None:
    pace = Pace(time_machine)
    pace.free_at = 30.0
    limiter = paced(time_machine, pace, 0.1)
    value, done = run(time_machine, call(idempotent=True), AnswerLostError("lost"), ANSWER, limiter=limiter)
    assert (value, done[0], done.count("new")) == ("mine", "synchronised", 2)
    # The second attempt waits for a turn of its own.
    assert time_machine.seconds == pytest.approx(40.0)
    assert sum(ask.turns for ask in pace.asked) == 2


def test_nothing_is_sent_while_the_shared_pace_is_away(time_machine: Time) -> None:
    pace = Pace(time_machine, *[LedgerError("away")] * 5)
    value, done = run(time_machine, call(), ANSWER, limiter=paced(time_machine, pace))
    assert (value, done.count("synchronised"), done[-1]) == ("mine", 6, "new")
    assert 5 < time_machine.seconds < 60


@pytest.mark.parametrize(
    ("errors", "least"), [([LedgerError("away")] * 100, 60.0), ([LedgerUnusableError("denied")], 0.0)]
)
def test_a_shared_pace_that_stays_away_ends_the_call(
    time_machine: Time, errors: list[LedgerError], least: float
) -> None:
    with pytest.raises(NotSentError, match="nothing was sent: the shared rate limit is unknown"):
        run(time_machine, call(), ANSWER, limiter=paced(time_machine, Pace(time_machine, *errors)))
    assert least <= time_machine.seconds <= least + 10


@pytest.mark.parametrize("seconds", [9, 3600])
def test_a_throttle_is_shared_at_once(time_machine: Time, seconds: int) -> None:
    answers = [THROTTLED.replace(b"for 9", b"for %d" % seconds)]
    pace = Pace(time_machine)
    with pytest.raises(ThrottledError) as caught:
        # The last attempt, too, says so to the others.
        run(time_machine, call(), *answers * 3, limiter=paced(time_machine, pace))
    assert caught.value.retry_after == seconds
    bans = [ask.ban for ask in pace.asked if ask.ban]
    assert bans == [pytest.approx(seconds + 1)] * (3 if seconds == 9 else 1)
    assert pace.banned_until == pytest.approx(time_machine.seconds + seconds + 1)


OF_THE_APP, OF_ONE_API = (
    b"accesscontrol.limited-by-app-access-count",
    b"isv.access-limited-by-api-access-count",
)


@pytest.mark.parametrize(
    ("sub_code", "seconds", "method", "all_calls", "submits"),
    [
        (OF_THE_APP, 3600, "a.method", 3601, 0),
        (OF_THE_APP, 3600, SUBMIT_METHOD, 3601, 0),
        (OF_ONE_API, 9, "a.method", 10, 0),
        # Look-ups go on while submitting is banned for hours, and the other way round.
        (OF_ONE_API, 3600, "a.method", 0, 0),
        (OF_ONE_API, 3600, SUBMIT_METHOD, 0, 3601),
    ],
)
def test_a_long_ban_of_one_api_holds_no_other(
    time_machine: Time, sub_code: bytes, seconds: int, method: str, all_calls: float, submits: float
) -> None:
    body = b'{"error_response":{"code":7,"sub_code":"%s","sub_msg":"This ban will last for %d more seconds"}}'
    pace = Pace(time_machine)
    limiter = paced(time_machine, pace)
    retry = RetryPolicy(1, random.Random(0))
    steps = Attempts(SETTINGS, retry, lambda: NOON, lambda: time_machine.seconds, limiter).of(call(method))
    with pytest.raises(ThrottledError):
        for step in steps:
            if isinstance(step, Synchronise):
                step.run()
            elif isinstance(step, Send):
                with pytest.raises(ThrottledError) as caught:
                    answered(step, body % (sub_code, seconds))
                step = steps.throw(caught.value)
                if isinstance(step, Synchronise):
                    step.run()
    assert limiter.pause_left == pytest.approx(all_calls)
    assert limiter.submits_pause_left == pytest.approx(max(all_calls, submits))
    assert (max(ask.ban for ask in pace.asked), max(ask.submits_ban for ask in pace.asked)) == (
        all_calls,
        submits,
    )


def test_a_ban_that_lasts_too_long_is_not_waited_for_by_others(time_machine: Time) -> None:
    pace = Pace(time_machine)
    pace.banned_until = 3600.0
    with pytest.raises(ThrottledError, match="nothing was sent: the App key is throttled") as caught:
        run(time_machine, call(), ANSWER, limiter=paced(time_machine, pace))
    assert caught.value.retry_after == 3600
    pace.banned_until = 61.0
    found = run(time_machine, call(), ANSWER, limiter=paced(time_machine, pace))
    assert found == ("mine", ["synchronised", 61.0, "synchronised", "new"])


def test_write_is_not_retried_where_it_may_have_been_executed(time_machine: Time) -> None:
    with pytest.raises(AnswerLostError):
        run(time_machine, call(), AnswerLostError("lost"), ANSWER)
    found, done = run(time_machine, call(idempotent=True), AnswerLostError("lost"), ANSWER)
    assert (found, len(done)) == ("mine", 3)


OURS = {"idempotent": True, "is_ours": lambda value: value == "mine"}


@pytest.mark.parametrize("late", [OTHERS, REFUSED, FAILED, b"<html></html>"])
def test_late_answer_on_a_kept_connection_is_asked_again_on_a_new_one(
    time_machine: Time, late: bytes
) -> None:
    found = run(time_machine, call(**OURS), late, ANSWER, reused=True)
    assert found == ("mine", ["kept", "new"])


@pytest.mark.parametrize("late", [THROTTLED, AnswerLostError("lost")])
def test_throttle_or_lost_answer_on_a_kept_connection_is_an_attempt(time_machine: Time, late: Any) -> None:
    found, done = run(time_machine, call(**OURS), late, ANSWER, reused=True)
    assert (found, done[0], done[2]) == ("mine", "kept", "kept")


def test_new_connection_answers_for_itself(time_machine: Time) -> None:
    assert run(time_machine, call(**OURS), OTHERS) == ("another call's", ["kept"])
    with pytest.raises(RequestRefusedError):
        run(time_machine, call(**OURS), REFUSED, ANSWER)


def test_kept_connections_are_for_calls_that_know_their_answers(time_machine: Time) -> None:
    assert run(time_machine, call(idempotent=True), ANSWER)[1] == ["new"]
    assert run(time_machine, call(**OURS), ANSWER)[1] == ["kept"]


@pytest.mark.parametrize(
    ("idempotent", "body", "patience"),
    [(False, ANSWER, None), (True, ANSWER, 0.0), (False, REFUSED, SECOND_ANSWER), (True, REFUSED, 0.0)],
)
def test_second_answer_contradicts_a_refusal_but_no_accepted_write(
    idempotent: bool, body: bytes, patience: float | None
) -> None:
    retry = RetryPolicy(1, random.Random(0))
    send = next(Attempts(SETTINGS, retry, lambda: NOON, lambda: 0.0).of(call(idempotent=idempotent)))
    assert isinstance(send, Send)
    assert send.read(200, {}, body) == patience
    with pytest.raises(AnswerUnreadableError, match="answered more than once"):
        send.result(followed=True)


def test_each_attempt_is_signed_anew(time_machine: Time) -> None:
    moments = iter([NOON, NOON, NOON.replace(minute=1), NOON])
    retry = RetryPolicy(2, random.Random(0))
    steps = Attempts(SETTINGS, retry, lambda: next(moments), lambda: 0.0).of(call())
    first = next(steps)
    assert isinstance(first, Send)
    with pytest.raises(ThrottledError) as caught:
        first.read(200, {}, THROTTLED)
        first.result(followed=False)
    assert isinstance(steps.throw(caught.value), Sleep)
    second = next(steps)
    assert isinstance(second, Send)
    assert b"14:01:00" in second.form
    assert b"14:00:00" in first.form
