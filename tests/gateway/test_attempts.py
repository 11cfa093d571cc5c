"""The attempts of one call, driven without a network."""

from __future__ import annotations

import random
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.attempts import Attempts, Call, RetryPolicy, Send, Sleep
from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    LingyangError,
    RequestRefusedError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.transport import SECOND_ANSWER
from tests.gateway.conftest import NOON, Time

SETTINGS = GatewaySettings(url="https://gateway.example/", app_key="k", app_secret="s")
ANSWER = b'{"a_response":{"data":"mine"}}'
OTHERS = b'{"a_response":{"data":"another call\'s"}}'
THROTTLED = b'{"error_response":{"code":7,"sub_msg":"This ban will last for 9 more seconds"}}'
REFUSED = b'{"error_response":{"code":15,"sub_code":"isv.invalid-parameter"}}'
FAILED = b'{"error_response":{"code":10}}'


def call(**fields: Any) -> Call[str]:
    return Call("a.method", {}, lambda answer: answer.payload["data"], **fields)


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
