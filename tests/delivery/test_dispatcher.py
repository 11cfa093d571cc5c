"""Requests in order, every outcome booked before anything else happens."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.cancellation import GRACE_PERIOD, Cancellation
from airflow_provider_lingyang.delivery.dispatch import NotDispatched
from airflow_provider_lingyang.delivery.dispatcher import Dispatcher
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.progress import Progress
from airflow_provider_lingyang.delivery.requests import BatchRequest
from airflow_provider_lingyang.delivery.schedule import DeferSending, SendSchedule
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.delivery.sender_pool import SenderPool
from airflow_provider_lingyang.errors import LedgerError, LedgerFencedError, SubmissionStopped
from airflow_provider_lingyang.gateway import errors
from airflow_provider_lingyang.gateway.attempts import RetryPolicy
from airflow_provider_lingyang.gateway.errors import Replay
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt, read_receipt
from airflow_provider_lingyang.ledger.base import Intent, Ledger, Outcome


def receipt(*biz_ids: str) -> SubmitReceipt:
    from airflow_provider_lingyang.gateway.protocol import Answer
    from airflow_provider_lingyang.gateway.scrub import Scrubber

    data = [{"task_id": number, "task_request": {"biz_id": biz_id}} for number, biz_id in enumerate(biz_ids)]
    return read_receipt(Answer({"result": {"success": True, "data": data}}, "r1", Scrubber({}, {})))


class Wire:
    """Answers each request with the next of some outcomes."""

    def __init__(self, outcomes: list[Any]) -> None:
        self.outcomes = outcomes

    def submit_struct(self, struct: str, *, before_send: Any) -> SubmitReceipt:
        if self.outcomes and isinstance(self.outcomes[0], NotDispatched):
            raise self.outcomes.pop(0)
        before_send()
        return self.answer(struct)

    def answer(self, struct: str) -> SubmitReceipt:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return receipt(*(outcome or struct.split()))

    def close(self) -> None:
        pass


class Unanswered(Exception):
    """The answer to a request never comes."""


class AtOnce(SenderPool):
    """Runs each job when it is queued, so that all answers have come when the first is read."""

    def __init__(self, new_wire: Callable[[], Any], count: int = 1) -> None:
        super().__init__(new_wire, 0)
        self._wire = new_wire()

    def submit(self, token: object, job: Callable[[Any], Any]) -> None:
        try:
            result: Any = job(self._wire)
        except Unanswered:
            return
        except Exception as error:
            result = error
        self._results.put((token, result))


class Diary(Ledger):
    """Remembers the order of what it was told; fails at the writes with the given numbers."""

    def __init__(self, fails: Collection[int] = ()) -> None:
        self.written: list[tuple[list[str], list[str]]] = []
        self._fails = fails

    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        if len(self.written) in self._fails:
            self.written.append(([], ["failed"]))
            raise LedgerError("the ledger is away")
        self.written.append(([o.task_unique_code for o in outcomes], [i.task_unique_code for i in intents]))


def send(
    outcomes: list[Any],
    told_at: Callable[[], float | None] = lambda: None,
    ledger: Ledger | None = None,
    new_wire: Callable[[list[Any]], Wire] = Wire,
    requests: int | None = None,
    policy_class: type[Policy] = Policy,
    pool: type[SenderPool] = SenderPool,
    max_attempts: int = 1,
    **policy: Any,
) -> tuple[Manifest, Any]:
    """Send requests of two tasks, as many as there are outcomes; return the account and what was raised."""
    count = len(outcomes) if requests is None else requests
    manifest = Manifest("key", [], {}, ids_limit=1000, audience=2 * count)
    to_send = [BatchRequest(f"code{n}", "1", (f"{n}a", f"{n}b"), f"{n}a {n}b") for n in range(count)]
    raised = None
    told = policy_class(max_attempts=max_attempts, **policy)
    with (
        pool(lambda: new_wire(list(outcomes)), told.max_in_flight) as sender_pool,
        AudienceStore() as audience,
    ):
        submission = Dispatcher(
            sender_pool=sender_pool,
            ledger=ledger or Ledger(),
            queue=SendQueue(audience),
            manifest=manifest,
            progress=Progress(manifest, manifest.audience),
            schedule=SendSchedule(),
            retry=RetryPolicy(max_attempts, random.Random(1)),
            policy=told,
            cancellation=Cancellation(told_at),
        )
        try:
            submission.send_batch(BatchTally("1", manifest.audience), lambda _: to_send)
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
def test_error_settles_its_request_and_the_remaining_ones(error: BaseException, state: str) -> None:
    manifest, raised = send([None, error, None])
    counts = {name: count for name, count in manifest.counts().items() if count}
    expected = {"audience": 6, "accepted": 2, "not_sent": 4}
    if state == "in_doubt":
        expected |= {"not_sent": 2, "in_doubt": 2}
        assert manifest.to_json()["in_doubt"] == [{"task_unique_code": "code1", "batch_num": "1", "tasks": 2}]
    assert counts == expected
    if isinstance(error, errors.LingyangError):
        assert isinstance(raised, DeferSending if error.retry_after else SubmissionStopped)
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


def test_task_without_an_echo_is_rejected_and_unmatched_echo_is_ignored() -> None:
    manifest, raised = send([["0b"], ["nobody", "1a", "1b", "1b"]])
    assert raised is None
    assert (manifest.accepted, manifest.rejected) == (3, 1)
    assert manifest.biz_ids == ["0b", "1a", "1b"]


def test_no_request_is_sent_after_cancellation() -> None:
    told: list[float] = []

    class Telling(Wire):
        def answer(self, struct: str) -> SubmitReceipt:
            told.append(time.monotonic())
            return super().answer(struct)

    manifest, raised = send([None, None, None], lambda: told[0] if told else None, new_wire=Telling)
    assert isinstance(raised, SubmissionStopped)
    assert not raised.final
    assert (manifest.accepted, manifest.not_sent) == (2, 4)


def test_no_request_is_sent_after_cancellation_during_the_intent_write() -> None:
    told: list[float] = []

    class Telling(Diary):
        def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
            super().write(outcomes, intents)
            told.append(time.monotonic())

    diary = Telling()
    manifest, raised = send([None, None], lambda: told[0] if told else None, diary)
    assert isinstance(raised, SubmissionStopped)
    assert (manifest.accepted, manifest.in_doubt, manifest.not_sent) == (0, 0, 4)
    assert diary.written == [([], ["code0", "code1"]), (["code0", "code1"], [])]


def test_grace_period_counts_from_cancellation() -> None:
    told: list[float] = []

    class Deaf(Wire):
        def answer(self, struct: str) -> SubmitReceipt:
            told.append(time.monotonic() - GRACE_PERIOD)  # only noticed now
            time.sleep(1)
            return super().answer(struct)

    manifest, raised = send([None], lambda: told[0] if told else None, new_wire=Deaf)
    assert "asked to stop while request code0" in str(raised)
    assert manifest.in_doubt == 2


def test_only_requests_in_flight_are_in_doubt_when_the_grace_period_ends() -> None:
    told: list[float] = []
    under_way = threading.Barrier(2)

    class Deaf(Wire):
        def answer(self, struct: str) -> SubmitReceipt:
            under_way.wait(5)
            told.append(time.monotonic() - GRACE_PERIOD)
            time.sleep(1)
            return super().answer(struct)

    manifest, raised = send([None] * 5, lambda: told[0] if told else None, new_wire=Deaf, max_in_flight=2)
    assert "asked to stop while request code" in str(raised)
    assert (manifest.in_doubt, manifest.not_sent) == (4, 6)


@pytest.mark.parametrize("in_flight", [1, 4, 12])
def test_ledger_write_covers_max_in_flight_requests(in_flight: int) -> None:
    diary = Diary()
    send([None] * (5 * in_flight), ledger=diary, max_in_flight=in_flight)
    windows = [len(intents) for _, intents in diary.written if intents]
    assert windows[0] == 2 * in_flight
    assert all(in_flight <= window <= 2 * in_flight for window in windows[1:-1])
    assert sum(windows) == 5 * in_flight


def test_no_request_is_sent_after_a_failure_that_came_with_other_answers() -> None:
    refused = errors.CallRefusedError("x", code="25")
    manifest, raised = send([None, refused, *[None] * 10], pool=AtOnce, max_in_flight=4)
    assert "code1 of batch_num 1" in str(raised)
    assert (manifest.accepted, manifest.not_sent, manifest.in_doubt) == (6, 18, 0)


def test_no_request_is_sent_on_a_slow_connection_after_cancellation() -> None:
    requested: list[float] = []
    written: list[str] = []

    class SlowToConnect(Wire):
        def submit_struct(self, struct: str, *, before_send: Any) -> SubmitReceipt:
            if struct == "1a 1b":
                requested.append(time.monotonic())
            before_send()
            written.append(struct)
            return self.answer(struct)

    diary = Diary()
    manifest, raised = send(
        [None] * 3, lambda: requested[0] if requested else None, diary, new_wire=SlowToConnect
    )
    assert "asked to stop; no further request left" in str(raised)
    assert written == ["0a 0b"]
    assert (manifest.accepted, manifest.not_sent, manifest.in_doubt) == (2, 4, 0)
    assert manifest.batches[0].requests == 1
    assert {code for outcomes, _ in diary.written for code in outcomes} == {"code0", "code1", "code2"}


def test_intents_are_written_before_requests_and_outcomes_with_the_next_intents() -> None:
    diary = Diary()
    send([None] * 5, ledger=diary)
    assert diary.written[0] == ([], ["code0", "code1"])
    assert [code for _, intents in diary.written for code in intents] == [f"code{n}" for n in range(5)]
    assert [code for outcomes, _ in diary.written for code in outcomes] == [f"code{n}" for n in range(5)]
    known: set[str] = set()
    for outcomes, intents in diary.written:
        known.update(intents)
        known.difference_update(outcomes)
        assert len(known) <= 2
    assert not known


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_request_without_a_written_intent_is_not_sent(fails: int) -> None:
    sent: list[str] = []

    class Noting(Wire):
        def answer(self, struct: str) -> SubmitReceipt:
            sent.append(struct)
            return super().answer(struct)

    diary = Diary([fails])
    manifest, raised = send([None] * 5, ledger=diary, new_wire=Noting, ledger_patience=0)
    assert isinstance(raised, LedgerError)
    intended = {code for _, intents in diary.written[:fails] for code in intents}
    assert {f"code{struct[0]}" for struct in sent} <= intended
    assert manifest.accepted == 2 * len(sent)
    assert manifest.in_doubt == 0
    # What is known is still written down: also that the last window did not leave, and what was handed out in vain.
    outcomes = {code for written, _ in diary.written for code in written}
    assert outcomes >= intended


def test_a_ledger_that_fails_after_the_last_answer_fails_the_try() -> None:
    manifest, raised = send([None], ledger=Diary([1, 2]), ledger_patience=0)
    assert isinstance(raised, LedgerError)
    assert manifest.accepted == 2


def test_an_outcome_is_written_a_second_time_where_the_first_fails() -> None:
    diary = Diary([1])
    _, raised = send([None], ledger=diary)
    assert raised is None
    assert diary.written[-1] == (["code0"], [])


def test_old_intent_is_renewed_before_its_request_is_sent() -> None:
    written: list[Intent] = []
    renewed: list[Intent] = []

    class Renewing(Ledger):
        def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
            written.extend(intents)

        def renew(self, intents: Sequence[Intent]) -> None:
            renewed.extend(intents)

    # An intent lives for half of lookup_settle: here for no time at all until it is renewed.
    lives = iter([0.0, *[60.0] * 20])

    class Short(Policy):
        intent_life = property(lambda self: next(lives))  # type: ignore[assignment]
        open_for = 60.0  # type: ignore[assignment]

    manifest, raised = send([None], ledger=Renewing(), policy_class=Short)
    assert raised is None
    # As it was, its time too: what a look-up finds may be of a request that left before.
    assert renewed == written
    assert manifest.accepted == 2


def test_a_try_that_was_replaced_sends_nothing_under_an_old_intent() -> None:
    class Fenced(Ledger):
        def renew(self, intents: Sequence[Intent]) -> None:
            raise LedgerFencedError("taken over")

    class Short(Policy):
        intent_life = property(lambda self: 0.0)  # type: ignore[assignment]

    manifest, raised = send([None], ledger=Fenced(), policy_class=Short)
    assert isinstance(raised, LedgerFencedError)
    assert (manifest.accepted, manifest.in_doubt, manifest.not_sent) == (0, 0, 2)


def test_on_in_doubt_continue_records_the_request_and_sends_the_others() -> None:
    manifest, raised = send([None, errors.AnswerLostError("x"), None], on_in_doubt="continue")
    assert raised is None
    assert (manifest.accepted, manifest.in_doubt, manifest.not_sent) == (4, 2, 0)


def test_on_rejected_fail_ends_the_campaign_after_the_batch() -> None:
    refused = errors.RequestRefusedError("refused", code="15", sub_code="isv.x")
    manifest, raised = send([refused, None], on_rejected="fail")
    assert isinstance(raised, SubmissionStopped)
    assert raised.final
    assert (manifest.accepted, manifest.rejected) == (2, 2)


def test_a_gateway_that_dedupes_gets_the_same_request_again() -> None:
    lost = errors.AnswerLostError("x")
    structs: list[str] = []

    class Noting(Wire):
        def answer(self, struct: str) -> SubmitReceipt:
            structs.append(struct)
            return super().answer(struct)

    manifest, raised = send([lost, None], requests=1, new_wire=Noting, dedupes_by_code=True, max_attempts=3)
    assert raised is None
    assert structs == ["0a 0b", "0a 0b"]
    assert (manifest.accepted, manifest.in_doubt) == (2, 0)


@pytest.mark.parametrize(
    "second",
    [
        errors.NotSentError("x"),
        errors.CallRefusedError("x", code="25"),
        errors.RequestRefusedError("x", code="15", sub_code="isv.x"),
        errors.ThrottledError("x", retry_after=31_062),
    ],
)
def test_no_later_refusal_proves_that_a_request_in_doubt_was_not_executed(second: Exception) -> None:
    lost = errors.AnswerLostError("x")
    diary = Diary()
    manifest, raised = send(
        [lost, second, second], requests=1, dedupes_by_code=True, max_attempts=2, ledger=diary
    )
    assert isinstance(raised, SubmissionStopped)
    assert (manifest.in_doubt, manifest.rejected, manifest.not_sent) == (2, 0, 0)
    assert not any(outcomes for outcomes, _ in diary.written)


def test_ids_beyond_the_xcom_limit_are_not_pushed() -> None:
    manifest = Manifest("key", [], {}, ids_limit=3, audience=4)
    manifest.settle(manifest.doubt("c", "1", 2), BatchTally("1", 2), accepted={"1": 7, "2": None})
    assert (manifest.biz_ids, manifest.task_ids) == (["1", "2"], [7, None])
    manifest.settle(manifest.doubt("d", "2", 2), BatchTally("2", 2), accepted={"3": 8, "4": 9})
    assert (manifest.biz_ids, manifest.task_ids) == (None, None)
    assert len(manifest._accepted_ids) == 3


def test_the_manifest_stays_small_whatever_happens() -> None:
    manifest = Manifest("key", [], {}, ids_limit=3, audience=10_000)
    for number in range(1000):
        tally = BatchTally(str(number), 10)
        manifest.batches.append(tally)
        manifest.settle(manifest.doubt("c", str(number), 10), tally, rejected=[str(number)] * 10)
        manifest.add_reason("rejected", f"reason {number}", 10)
    account = manifest.to_json()
    assert (len(account["batches"]), account["batches_left_out"]) == (100, 900)
    assert len(account["reasons"]["rejected"]) == 21
    assert sum(account["reasons"]["rejected"].values()) == 10_000


def test_a_try_that_is_broken_off_books_what_is_answered_beside_a_request_that_was_not_sent() -> None:
    class TimeOut(BaseException):
        """What Airflow raises in the main thread when ``execution_timeout`` has passed."""

    class Interrupted(AtOnce):
        def next_result(self, timeout: float) -> tuple[Any, Any] | None:
            if timeout:
                raise TimeOut
            return super().next_result(timeout)

    diary = Diary()
    refused = errors.CallRefusedError("x", code="25")
    manifest, raised = send(
        [refused, Unanswered(), NotDispatched()], ledger=diary, pool=Interrupted, max_in_flight=3
    )
    assert isinstance(raised, TimeOut)
    # The one under way is in doubt; what was refused, and what was not sent, is not, in the ledger neither.
    assert (manifest.in_doubt, manifest.not_sent) == (2, 4)
    outcomes, _ = diary.written[-1]
    assert sorted(outcomes) == ["code0", "code2"]
