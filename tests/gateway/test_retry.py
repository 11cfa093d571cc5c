"""When a call is repeated: a table."""

from __future__ import annotations

import random

import pytest

from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    CallRefusedError,
    LingyangConfigError,
    LingyangError,
    NotSentError,
    Replay,
    RequestInvalidError,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.retry import LONGEST_WAIT, RetryPolicy

POLICY = RetryPolicy(3, random.Random(0))


@pytest.mark.parametrize(
    ("error", "write", "look_up"),
    [
        (NotSentError("x"), True, True),
        (NotSentError("x", replay=Replay.NEVER), False, False),
        (ThrottledError("x"), True, True),
        (AnswerLostError("x"), False, True),
        (AnswerUnreadableError("x"), False, True),
        (AnswerUnreadableError("x", replay=Replay.NEVER), False, False),
        (ServiceError("x"), False, True),
        (ServiceError("x", replay=Replay.NEVER), False, False),
        (CallRefusedError("x"), False, False),
        (RequestRefusedError("x"), False, False),
        (LingyangConfigError("x"), False, False),
        (RequestInvalidError("x"), False, False),
        (LingyangError("x"), False, False),
    ],
    ids=lambda value: (
        f"{type(value).__name__}-{value.replay.value}" if isinstance(value, LingyangError) else None
    ),
)
def test_a_write_is_repeated_only_when_it_was_not_executed(
    error: LingyangError, write: bool, look_up: bool
) -> None:
    assert (POLICY.delay(error, 1, idempotent=False) is not None) is write
    assert (POLICY.delay(error, 1, idempotent=True) is not None) is look_up


@pytest.mark.parametrize(
    ("max_attempts", "attempt", "again"), [(1, 1, False), (3, 2, True), (3, 3, False), (3, 4, False)]
)
def test_nothing_is_tried_more_often_than_allowed(max_attempts: int, attempt: int, again: bool) -> None:
    policy = RetryPolicy(max_attempts, random.Random(0))
    for error in (NotSentError("x"), ThrottledError("x", retry_after=1)):
        assert (policy.delay(error, attempt, idempotent=True) is not None) is again


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [(None, 2.0), (0.0, 2.0), (1.0, 2.0), (30.0, 31.0), (60.0, 61.0), (61.0, None), (31062.0, None)],
)
def test_a_short_ban_is_waited_out_a_long_one_is_the_caller_s(
    retry_after: float | None, wait: float | None
) -> None:
    assert POLICY.delay(ThrottledError("x", retry_after=retry_after), 1, idempotent=False) == wait
    assert wait is None or wait <= LONGEST_WAIT + 1


def test_other_waits_grow_with_jitter_and_have_an_end() -> None:
    policy = RetryPolicy(100, random.Random(0))
    waits = [
        [policy.delay(NotSentError("x"), n, idempotent=False) or 0 for _ in range(50)] for n in range(1, 20)
    ]
    for number, found in enumerate(waits):
        most = min(10.0, 0.5 * 2**number)
        assert all(most / 2 <= wait <= most for wait in found)
        assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("error", "replay"),
    [
        (LingyangError, Replay.NEVER),
        (LingyangConfigError, Replay.NEVER),
        (RequestInvalidError, Replay.NEVER),
        (NotSentError, Replay.SAFE),
        (AnswerLostError, Replay.AMBIGUOUS),
        (AnswerUnreadableError, Replay.AMBIGUOUS),
        (ThrottledError, Replay.SAFE),
        (CallRefusedError, Replay.NEVER),
        (RequestRefusedError, Replay.NEVER),
        (ServiceError, Replay.AMBIGUOUS),
    ],
)
def test_each_class_says_by_itself_whether_to_send_again(error: type[LingyangError], replay: Replay) -> None:
    assert error("x").replay is replay
    assert error("x", replay=Replay.AMBIGUOUS).replay is Replay.AMBIGUOUS


def test_an_error_reads_as_a_sentence_with_its_facts_and_advice() -> None:
    error = LingyangError(
        "it failed", code="15", sub_code="isv.x", msg="m", sub_msg="s", request_id="r", hint="Do y."
    )
    assert str(error) == "it failed [code 15, sub_code isv.x, msg m, sub_msg s, request_id r]. Do y"
    assert str(LingyangError("it failed")) == "it failed"
