"""When a call is repeated: a table."""

from __future__ import annotations

import random

import pytest

from airflow_provider_lingyang.gateway.attempts import LONGEST_WAIT, RetryPolicy
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
def test_write_is_retried_only_when_not_executed(error: LingyangError, write: bool, look_up: bool) -> None:
    assert (POLICY.delay(error, 1, idempotent=False) is not None) is write
    assert (POLICY.delay(error, 1, idempotent=True) is not None) is look_up


@pytest.mark.parametrize(
    ("max_attempts", "attempt", "again"), [(1, 1, False), (3, 2, True), (3, 3, False), (3, 4, False)]
)
def test_attempts_are_limited_to_max_attempts(max_attempts: int, attempt: int, again: bool) -> None:
    policy = RetryPolicy(max_attempts, random.Random(0))
    for error in (NotSentError("x"), ThrottledError("x", retry_after=1)):
        assert (policy.delay(error, attempt, idempotent=True) is not None) is again


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [(None, 2.0), (0.0, 2.0), (1.0, 2.0), (30.0, 31.0), (60.0, 61.0), (61.0, None), (31062.0, None)],
)
def test_short_ban_is_waited_out_and_long_ban_is_raised(
    retry_after: float | None, wait: float | None
) -> None:
    assert POLICY.delay(ThrottledError("x", retry_after=retry_after), 1, idempotent=False) == wait
    assert wait is None or wait <= LONGEST_WAIT + 1


def test_backoff_grows_with_jitter_up_to_a_maximum() -> None:
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
def test_error_classes_say_whether_a_retry_is_safe(error: type[LingyangError], replay: Replay) -> None:
    assert error("x").replay is replay
    assert error("x", replay=Replay.AMBIGUOUS).replay is Replay.AMBIGUOUS


def test_an_error_reads_as_a_sentence_with_its_facts_and_advice() -> None:
    error = LingyangError(
        "it failed", code="15", sub_code="isv.x", msg="m", sub_msg="s", request_id="r", hint="Do y."
    )
    assert str(error) == "it failed [code 15, sub_code isv.x, msg m, sub_msg s, request_id r]. Do y"
    assert str(LingyangError("it failed")) == "it failed"
