"""What frees a recipient to be sent to again, and what does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from airflow_provider_lingyang.audience.parser import Recipient
from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.delivery.dispatch import NotDispatched, RetriedRequest
from airflow_provider_lingyang.delivery.reconciler import Resolution, UnresolvedRequest
from airflow_provider_lingyang.delivery.request_state import RequestState
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.errors import SubmissionStopped
from airflow_provider_lingyang.gateway import errors
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.base import RecordedRequest
from tests.delivery.test_dispatcher import receipt
from tests.delivery.test_ledger_away import Memory, Sending


class Looking:
    """A look-up that finds nothing, and notes from when that would count."""

    def __init__(self) -> None:
        self.questions: list[UnresolvedRequest] = []

    def resolve(self, questions: Sequence[UnresolvedRequest]) -> list[Resolution]:
        self.questions += questions
        return [Resolution(in_doubt=list(question.biz_ids)) for question in questions]


SETTLE = 60.0


def looked_up(sending: Sending) -> UnresolvedRequest:
    sending.reconciler = looking = Looking()
    assert isinstance(sending.run(1), SubmissionStopped)
    (question,) = looking.questions
    return question


def test_absence_counts_from_the_end_of_the_attempt() -> None:
    """A request may be executed at any moment until its sender has given up."""
    sending = Sending(Memory(), lookup_settle=SETTLE)

    def slow() -> Exception:
        sending.time.sleep(30)
        return errors.AnswerLostError("not in time")

    sending.answers = {0: slow}
    question = looked_up(sending)
    assert question.settled_at == 1000 + 30 + SETTLE


def test_absence_counts_from_the_end_of_the_last_attempt() -> None:
    sending = Sending(Memory(), lookup_settle=SETTLE, max_attempts=3)
    ends: list[float] = []

    def slow(error: Exception) -> Any:
        def answer() -> Exception:
            sending.time.sleep(7)
            ends.append(sending.time.now)
            return error

        return answer

    sending.answers = {0: slow(errors.NotSentError("x")), 1: slow(errors.AnswerLostError("x"))}
    question = looked_up(sending)
    assert len(ends) == 2
    assert question.settled_at == ends[1] + SETTLE


def test_absence_of_an_earlier_tries_request_counts_from_the_end_of_its_sender() -> None:
    sending = Sending(Memory(), lookup_settle=SETTLE, dedupes_by_code=True)
    doubt = sending.manifest.doubt("code0", "1", 2)
    sending.retried = {"code0": RetriedRequest(doubt, 5.0, settled_at=2000.0)}
    sending.answers = {0: errors.AnswerLostError("x")}
    question = looked_up(sending)
    assert (question.settled_at, question.since) == (2000.0, 5.0)


@pytest.mark.parametrize(
    ("echoes", "accepted", "rejected", "in_doubt"),
    [
        ([], [], [], 2),
        (["0a"], ["0a"], ["0b"], 0),
        (["0b", "0a"], ["0a", "0b"], [], 0),
        (["0a", "nobody"], ["0a"], [], 1),
        (["nobody"], [], [], 2),
        (["0A"], [], [], 2),
    ],
)
def test_echoes_of_a_success_settle_its_tasks(
    echoes: list[str], accepted: list[str], rejected: list[str], in_doubt: int
) -> None:
    ledger = Memory()
    sending = Sending(ledger, on_in_doubt="continue")
    sending.answers = {0: lambda: receipt(*echoes)}
    assert sending.run(1) is None
    manifest = sending.manifest
    assert (manifest.biz_ids, manifest.rejected_ids, manifest.in_doubt) == (accepted, rejected, in_doubt)
    assert [ledger.count(state) for state in ("accepted", "rejected", "in doubt", "free")] == [
        len(accepted),
        len(rejected),
        in_doubt,
        0,
    ]


REFUSALS = [
    errors.RequestRefusedError("x", code="15", sub_code="isv.x"),
    errors.CallRefusedError("x", code="25"),
    errors.ThrottledError("x", retry_after=31_062),
    errors.ThrottledError("x", retry_after=1),
    errors.ReceiverLimitedError("x", retry_after=1),
    errors.ReceiverLimitedError("x", retry_after=120),
    errors.NotSentError("x"),
    errors.NotSentError("x", replay=errors.Replay.NEVER),
    errors.LingyangConfigError("x"),
    errors.RequestInvalidError("x"),
    NotDispatched(),
    receipt("0a"),
]


@pytest.mark.parametrize("second", REFUSALS, ids=lambda each: f"{type(each).__name__}")
def test_attempt_after_an_ambiguous_one_frees_or_rejects_no_recipient(second: Any) -> None:
    """The first attempt may have been executed, whatever the gateway says of the second."""
    ledger = Memory()
    sending = Sending(ledger, dedupes_by_code=True, max_attempts=2)
    sending.answers = {0: errors.AnswerLostError("x")} | dict.fromkeys(range(1, 9), second)
    if isinstance(second, NotDispatched):
        sending.answers |= {n: errors.AnswerLostError("x") for n in range(2, 9)}
    assert sending.run(1) is not None
    accepted = ["0a"] if isinstance(second, SubmitReceipt) else []
    assert sending.manifest.biz_ids == accepted
    assert (sending.manifest.rejected, sending.manifest.not_sent) == (0, 0)
    assert ledger.count("in doubt") == sending.manifest.in_doubt == 2 - len(accepted)


@pytest.mark.parametrize("later", ["rejected", "not_executed", "in_doubt"])
@pytest.mark.parametrize("at_once", [False, True])
def test_accepted_recipient_stays_accepted_whatever_the_ledger_records_later(
    later: str, at_once: bool
) -> None:
    with AudienceStore() as audience:
        audience.add(Recipient(1, "a", False, "1", "contact", "{}"))
        accepted = {"accepted": [recipient_hash("a")]}
        other: dict[str, Any] = {later: ["a"] if later == "in_doubt" else [recipient_hash("a")]}
        requests = [accepted | other] if at_once else [accepted, other]
        queue = SendQueue(audience)
        history = queue.load_history(
            RecordedRequest(f"code{n}", "1", "", 0.0, **each) for n, each in enumerate(requests)
        )
        assert queue.batches() == []
        assert list(queue.ids_in_state(RequestState.ACCEPTED)) == ["a"]
        assert history.vanished == 0
