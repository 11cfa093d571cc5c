"""Requests in order, every outcome booked before anything else happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_lingyang.campaign.batches import BatchRequest
from airflow_provider_lingyang.campaign.manifest import BatchTally, Manifest
from airflow_provider_lingyang.campaign.submission import Pace, Submission, SubmissionStopped
from airflow_provider_lingyang.gateway import errors
from airflow_provider_lingyang.gateway.errors import Replay
from airflow_provider_lingyang.gateway.protocol import SubmitReceipt, read_receipt


def receipt(*biz_ids: str) -> SubmitReceipt:
    from airflow_provider_lingyang.gateway.protocol import Answer
    from airflow_provider_lingyang.gateway.scrub import Scrubber

    data = [{"task_id": number, "task_request": {"biz_id": biz_id}} for number, biz_id in enumerate(biz_ids)]
    return read_receipt(Answer({"result": {"success": True, "data": data}}, "r1"), Scrubber({}, {}))


def send(outcomes: list[Any], stopped: Callable[[], bool] = lambda: False) -> tuple[Manifest, Any]:
    """Send as many requests of two tasks as there are outcomes; return the account and what was raised."""
    manifest = Manifest("key", [], {}, ids_limit=1000, audience=2 * len(outcomes))
    pending = list(outcomes)

    def sender(struct: str) -> SubmitReceipt:
        outcome = pending.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return receipt(*(outcome or struct.split()))

    requests = [BatchRequest(f"code{n}", "1", (f"{n}a", f"{n}b"), f"{n}a {n}b") for n in range(len(outcomes))]
    raised = None
    try:
        Submission(sender, manifest, Pace(None), stopped).send_batch(
            BatchTally("1", manifest.audience), requests
        )
    except BaseException as error:
        raised = error
    return manifest, raised


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (errors.NotSentError("x"), "not_sent"),
        (errors.NotSentError("x", replay=Replay.NEVER), "not_sent"),
        (errors.ThrottledError("x", retry_after=31_062), "not_sent"),
        (errors.CallRefusedError("x", code="25"), "not_sent"),
        (errors.RequestInvalidError("x"), "not_sent"),
        (errors.LingyangConfigError("x"), "not_sent"),
        (errors.AnswerLostError("x"), "in_doubt"),
        (errors.AnswerUnreadableError("x"), "in_doubt"),
        (errors.ServiceError("x"), "in_doubt"),
        (errors.ServiceError("x", replay=Replay.NEVER), "in_doubt"),
        (KeyboardInterrupt(), "in_doubt"),
        (ZeroDivisionError(), "in_doubt"),
    ],
)
def test_what_an_error_means_for_its_request_and_the_rest(error: BaseException, state: str) -> None:
    manifest, raised = send([None, error, None])
    counts = {name: count for name, count in manifest.counts().items() if count}
    expected = {"audience": 6, "accepted": 2, "not_sent": 4}
    if state == "in_doubt":
        expected |= {"not_sent": 2, "in_doubt": 2}
        assert manifest.to_json()["in_doubt"] == [{"task_unique_code": "code1", "batch_num": "1", "tasks": 2}]
    assert counts == expected
    if isinstance(error, errors.LingyangError):
        assert isinstance(raised, SubmissionStopped)
        assert "code1 of batch_num 1" in str(raised)
    else:
        assert raised is error


def test_a_refused_request_rejects_its_tasks_finally_and_the_next_goes_on() -> None:
    refused = errors.RequestRefusedError(
        "refused", code="15", sub_code="isv.invalid-parameter", sub_msg="非法参数"
    )
    manifest, raised = send([None, refused, None])
    assert raised is None
    assert (manifest.accepted, manifest.rejected) == (4, 2)
    assert manifest.to_json()["reasons"] == {"rejected": {"refused [15 isv.invalid-parameter]: 非法参数": 2}}
    assert manifest.biz_ids == ["0a", "0b", "2a", "2b"]


def test_a_task_that_is_not_echoed_is_rejected_and_an_echo_of_nobody_changes_nothing() -> None:
    manifest, raised = send([["0b"], ["nobody", "1a", "1b", "1b"]])
    assert raised is None
    assert (manifest.accepted, manifest.rejected) == (3, 1)
    assert manifest.biz_ids == ["0b", "1a", "1b"]


def test_no_request_leaves_once_the_task_was_told_to_stop() -> None:
    answers = iter([False, True])
    manifest, raised = send([None, None, None], lambda: next(answers))
    assert isinstance(raised, SubmissionStopped)
    assert (manifest.accepted, manifest.not_sent) == (2, 4)


def test_more_ids_than_may_travel_are_not_handed_over() -> None:
    manifest = Manifest("key", [], {}, ids_limit=3, audience=4)
    manifest.settle(manifest.doubt("c", "1", 2), BatchTally("1", 2), accepted=["1", "2"])
    assert manifest.biz_ids == ["1", "2"]
    manifest.settle(manifest.doubt("d", "2", 2), BatchTally("2", 2), accepted=["3", "4"])
    assert manifest.biz_ids is None
    assert len(manifest._accepted_ids) == 3


def test_the_manifest_stays_small_whatever_happens() -> None:
    manifest = Manifest("key", [], {}, ids_limit=3, audience=10_000)
    for number in range(1000):
        tally = BatchTally(str(number), 10)
        manifest.batches.append(tally)
        manifest.settle(manifest.doubt("c", str(number), 10), tally, rejected=10)
        manifest.because("rejected", f"reason {number}", 10)
    account = manifest.to_json()
    assert (len(account["batches"]), account["batches_left_out"]) == (100, 900)
    assert len(account["reasons"]["rejected"]) == 21
    assert sum(account["reasons"]["rejected"].values()) == 10_000


def test_pace_spreads_requests_and_does_not_catch_up_in_a_burst() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(4, monotonic=lambda: now[0], sleep=sleep)
    for _ in range(3):
        pace.wait()
    assert slept == [0.25, 0.25]
    now[0] += 10
    pace.wait()
    pace.wait()
    assert slept == [0.25, 0.25, 0.25]
