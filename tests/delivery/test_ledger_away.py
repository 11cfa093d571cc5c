"""A ledger that is away for a while: the same try goes on, sends nothing meanwhile, and forgets nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.cancellation import GRACE_PERIOD, Cancellation
from airflow_provider_lingyang.delivery.dispatch import NotDispatched, RetriedRequest
from airflow_provider_lingyang.delivery.dispatcher import Dispatcher
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.progress import Progress
from airflow_provider_lingyang.delivery.reconciler import Resolution, UnresolvedRequest
from airflow_provider_lingyang.delivery.requests import BatchRequest
from airflow_provider_lingyang.delivery.schedule import DeferSending, SendSchedule
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.delivery.sender_pool import SenderPool
from airflow_provider_lingyang.errors import (
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    LedgerUnusableError,
    SubmissionStopped,
)
from airflow_provider_lingyang.gateway import errors
from airflow_provider_lingyang.gateway.attempts import RetryPolicy
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.ledger.base import Intent, Ledger, Outcome, RecordedRequest
from airflow_provider_lingyang.ledger.patience import Patience, patient
from airflow_provider_lingyang.storage.database import UniqueViolationError
from airflow_provider_lingyang.turns import Ask, Grant, Turns
from tests.delivery.test_dispatcher import receipt


class Time:
    """Seconds that pass when something waits for them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Memory(Ledger):
    """A ledger that refuses a key which is there, as a database does, and is away when it is told so.

    :param away: numbers of the calls that fail.
    :param stays: whether what a failed call wrote is there all the same.
    """

    is_durable = True

    def __init__(
        self,
        away: Sequence[int] = (),
        *,
        stays: bool = False,
        error: Callable[[], BaseException] = lambda: LedgerError("the ledger is away"),
    ) -> None:
        super().__init__()
        self.states: dict[str, str] = {}
        self.codes: dict[str, str] = {}
        self.calls = 0
        self.failed = 0
        self._away, self._stays, self._error = away, stays, error

    def _write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        self._call(lambda: self._commit(outcomes, intents))

    def _call(self, work: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls - 1 not in self._away:
            return work()
        self.failed += 1
        if self._stays:
            work()
        raise self._error()

    def _commit(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        states, codes = dict(self.states), dict(self.codes)
        for outcome in outcomes:
            for state, biz_ids in (
                ("accepted", outcome.accepted),
                ("rejected", outcome.rejected),
                ("free", outcome.not_executed),
            ):
                for biz_id in biz_ids:
                    if codes.get(biz_id) == outcome.task_unique_code and states[biz_id] == "in doubt":
                        states[biz_id] = state
        for intent in intents:
            for biz_id in intent.biz_ids:
                if states.get(biz_id, "free") != "free":
                    raise UniqueViolationError("another worker")
                states[biz_id], codes[biz_id] = "in doubt", intent.task_unique_code
        self.states, self.codes = states, codes

    def holds(self, intents: Sequence[Intent]) -> set[str]:
        def found() -> set[str]:
            return {
                intent.task_unique_code
                for intent in intents
                if all(
                    (self.codes.get(each), self.states.get(each)) == (intent.task_unique_code, "in doubt")
                    for each in intent.biz_ids
                )
            }

        there: set[str] = self._call(found)
        return there

    def renew(self, intents: Sequence[Intent]) -> None:
        self._call(lambda: None)

    def count(self, state: str) -> int:
        return list(self.states.values()).count(state)


class Sending:
    """Requests of two recipients each, sent in logical time."""

    def __init__(self, ledger: Memory, **policy: Any) -> None:
        self.ledger = ledger
        self.time = Time()
        self.sent: list[str] = []
        self.away_when_sent: list[int] = []
        self.told: float | None = None
        self.policy = Policy(**{"max_attempts": 1, "ledger_patience": 60.0} | policy)
        self.answers: dict[int, Any] = {}
        self.connect: Callable[[], object] = lambda: None
        self.manifest = Manifest("key", [], {}, ids_limit=1000)
        self.limiter = RateLimiter(monotonic=self.time)
        self.reconciler: Any = None
        self.retried: dict[str, RetriedRequest] = {}

    def submit_struct(self, struct: str, *, before_send: Any) -> SubmitReceipt:
        self.connect()
        number = len(self.sent)
        answer = self.answers.get(number)
        if not isinstance(answer, NotDispatched):
            before_send()
        self.sent.append(struct)
        self.away_when_sent.append(self.ledger.failed)
        if callable(answer):
            answer = answer()
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, SubmitReceipt) else receipt(*struct.split())

    def close(self) -> None:
        pass

    def run(self, count: int) -> BaseException | None:
        self.manifest.audience = 2 * count
        requests = [BatchRequest(f"code{n}", "1", (f"{n}a", f"{n}b"), f"{n}a {n}b") for n in range(count)]
        stop = Cancellation(lambda: self.told, monotonic=self.time, sleep=self.time.sleep)
        with (
            SenderPool(lambda: self, self.policy.max_in_flight) as sender_pool,
            AudienceStore() as audience,
        ):
            submission = Dispatcher(
                sender_pool=sender_pool,
                ledger=self.ledger,
                queue=SendQueue(audience),
                manifest=self.manifest,
                progress=Progress(self.manifest, 2 * count, monotonic=self.time),
                schedule=SendSchedule(limiter=self.limiter),
                retry=RetryPolicy(self.policy.max_attempts, random.Random(1)),
                policy=self.policy,
                cancellation=stop,
                reconciler=self.reconciler,
                retried=self.retried,
                monotonic=self.time,
            )
            try:
                submission.send_batch(BatchTally("1", 2 * count), lambda _: requests)
            except BaseException as error:
                return error
        return None


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("times", [1, 3, 7])
def test_same_try_continues_after_a_ledger_outage(
    stays: bool, in_flight: int, first: int, times: int
) -> None:
    ledger = Memory(range(first, first + times), stays=stays)
    sending = Sending(ledger, max_in_flight=in_flight)
    assert sending.run(12) is None
    assert sorted(sending.sent) == sorted(f"{n}a {n}b" for n in range(12))
    assert sending.manifest.counts()["accepted"] == ledger.count("accepted") == 24
    assert sending.manifest.ledger_lacks == {}
    # While it is away, only what was handed out before can leave.
    for number in range(1, ledger.failed):
        assert sending.away_when_sent.count(number) <= in_flight


class Row:
    """The row of a shared rate limit, which is away for some calls while the ledger is well."""

    patience = 60.0

    def __init__(self, time: Time, away: int) -> None:
        self.time, self.away, self.failed = time, away, 0

    def exchange(self, ask: Ask) -> Grant:
        if self.failed < self.away:
            self.failed += 1
            raise LedgerError("the row is away")
        return Grant(self.time(), 0.0)


@pytest.mark.parametrize("rate", [None, 5.0])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_nothing_is_sent_while_the_rate_limit_is_unknown(in_flight: int, rate: float | None) -> None:
    sending = Sending(Memory(), max_in_flight=in_flight)
    row = Row(sending.time, away=7)
    sending.limiter = RateLimiter(rate, monotonic=sending.time, turns=Turns(row))
    sent_before: list[int] = []
    sending.connect = lambda: sent_before.append(row.failed)
    assert sending.run(12) is None
    assert sending.manifest.counts()["accepted"] == 24
    assert sent_before == [7] * 12


def test_a_rate_limit_that_stays_unknown_ends_the_try() -> None:
    sending = Sending(Memory())
    row = Row(sending.time, away=1000)
    sending.limiter = RateLimiter(5.0, monotonic=sending.time, turns=Turns(row))
    assert isinstance(sending.run(12), LedgerError)
    assert (sending.sent, sending.manifest.in_doubt) == ([], 0)
    assert 5 < row.failed < 100
    assert 1060 <= sending.time.now < 1070


def test_waits_for_the_ledger_no_longer_than_its_patience() -> None:
    ledger = Memory(range(2, 1000))
    sending = Sending(ledger, ledger_patience=60.0)
    raised = sending.run(12)
    assert isinstance(raised, LedgerError)
    assert 5 < ledger.failed < 100
    assert 1060 <= sending.time.now < 1070
    accepted = sending.manifest.accepted
    assert accepted > ledger.count("accepted")
    assert sending.manifest.in_doubt == 0
    lacks = accepted - ledger.count("accepted")
    assert sending.manifest.ledger_lacks["accepted"] == lacks
    assert f"The ledger does not know of {lacks} accepted" in sending.manifest.in_words()
    assert sending.manifest.to_json()["ledger_lacks"]["accepted"] == lacks
    # The counts are of what happened: the manifest's add up, the ledger's doubts are more.
    assert sum(sending.manifest.counts()[state] for state in ("accepted", "not_sent")) == 24


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        # Once more for whom the gateway accepted, which no fence forbids.
        (LedgerFencedError("taken over"), 1),
        (LedgerRefusedError("no"), 0),
        # Once more without the intents, which may be what cannot be written.
        (LedgerUnusableError("no such table"), 1),
    ],
)
def test_permanent_ledger_error_is_not_retried(error: LedgerError, calls: int) -> None:
    ledger = Memory([2, 3], error=lambda: error)
    sending = Sending(ledger)
    assert sending.run(12) is error
    assert ledger.calls == 3 + calls
    assert sending.time.now == 1000
    assert sending.manifest.ledger_lacks["accepted"] == sending.manifest.accepted - ledger.count("accepted")


def test_a_collision_of_intents_keeps_no_outcome_from_being_written() -> None:
    ledger = Memory()
    sending = Sending(ledger)

    def other_task() -> None:
        ledger.states["2a"], ledger.codes["2a"] = "in doubt", "other"

    sending.answers = {0: other_task}
    assert isinstance(sending.run(4), UniqueViolationError)
    assert sending.manifest.accepted == ledger.count("accepted") == 2 * len(sending.sent) > 0
    assert sending.manifest.ledger_lacks == {}


@pytest.mark.parametrize("in_flight", [1, 2])
def test_accepted_recipients_are_written_after_the_try_was_fenced(in_flight: int) -> None:
    class Fenced(Memory):
        fenced = False

        def renew(self, intents: Sequence[Intent]) -> None:
            self.fenced = True
            raise LedgerFencedError("taken over")

        def _commit(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
            if not self.fenced:
                return super()._commit(outcomes, intents)
            super()._commit([replace(each, rejected=(), not_executed=()) for each in outcomes], [])
            raise LedgerFencedError("taken over", [replace(each, accepted={}) for each in outcomes])

    ledger = Fenced()
    sending = Sending(ledger, max_in_flight=in_flight)

    def slow() -> None:
        sending.time.now += 31

    sending.answers = {0: slow}
    assert isinstance(sending.run(8), LedgerFencedError)
    assert sending.manifest.accepted == ledger.count("accepted") == 2 * len(sending.sent) > 0
    assert "accepted" not in sending.manifest.ledger_lacks


def test_outcomes_are_written_before_a_throttle_is_waited_out() -> None:
    ledger = Memory()
    sending = Sending(ledger, max_in_flight=4, max_attempts=3)
    sending.answers = {n: errors.ThrottledError("x", retry_after=55) for n in range(1, 4)}
    waits, sleep = [], sending.time.sleep

    def noting(seconds: float) -> None:
        waits.append(ledger.count("accepted"))
        sleep(seconds)

    sending.time.sleep = noting  # type: ignore[method-assign]
    assert sending.run(8) is None
    assert len(waits) > 1
    assert min(waits) == 2


@pytest.mark.parametrize("back", [False, True])
def test_cancellation_leaves_four_seconds_for_the_ledger(back: bool) -> None:
    sending = Sending(Memory())

    def away() -> LedgerError:
        sending.told = sending.told or sending.time.now
        return LedgerError("away")

    sending.ledger = ledger = Memory(range(2, 4 if back else 1000), error=away)
    raised = sending.run(12)
    assert isinstance(raised, SubmissionStopped)
    assert "asked to stop" in str(raised)
    assert ledger.failed > 1
    if back:
        assert ledger.count("in doubt") == 0
        assert ledger.count("accepted") == sending.manifest.accepted > 0
        assert sending.manifest.ledger_lacks == {}
    else:
        assert 1000 + GRACE_PERIOD <= sending.time.now <= 1000 + GRACE_PERIOD + 1
        assert sending.manifest.ledger_lacks["accepted"] == sending.manifest.accepted - ledger.count(
            "accepted"
        )


class TimeOut(BaseException):
    """What Airflow raises anywhere when ``execution_timeout`` has passed."""


@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("works", [False, True])
def test_writes_once_after_an_execution_time_out(first: int, works: bool, stays: bool) -> None:
    errors_ = iter([TimeOut(), *[LedgerError("away")] * 99])
    ledger = Memory([first] if works else range(first, 99), stays=stays, error=lambda: next(errors_))
    sending = Sending(ledger)
    assert isinstance(sending.run(12), TimeOut)
    assert ledger.calls <= first + 2
    if works:
        # Whatever the broken call has written, the one write has settled it.
        assert ledger.count("in doubt") == 0
        assert ledger.count("accepted") == sending.manifest.accepted
    assert sending.manifest.in_doubt == 0
    assert sending.time.now == 1000


def test_outcomes_are_written_after_an_execution_timeout() -> None:
    answered = threading.Event()
    ledger = Memory()
    sending = Sending(ledger)
    write = ledger.write

    def writes(outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        if ledger.calls == 1:
            # While the second window is written, the first request's answer arrives.
            assert answered.wait(30)
            raise TimeOut
        write(outcomes, intents)

    submit = sending.submit_struct

    def submit_struct(struct: str, *, before_send: Any) -> SubmitReceipt:
        try:
            return submit(struct, before_send=before_send)
        finally:
            threading.Timer(0.2, answered.set).start()

    sending.submit_struct = submit_struct  # type: ignore[method-assign]
    ledger.write = writes  # type: ignore[method-assign]
    raised = sending.run(12)
    assert isinstance(raised, TimeOut)
    assert sending.manifest.accepted == 2 * len(sending.sent)
    assert sending.manifest.in_doubt == 0


def test_a_limit_of_one_receiver_is_not_waited_for_without_knowing_since_when() -> None:
    class Forgetful(Memory):
        def fact(self, name: str) -> Any:
            raise LedgerUnusableError("no such table")

    class NoneFound:
        def resolve(self, questions: Sequence[UnresolvedRequest]) -> list[Resolution]:
            return [Resolution(not_executed=list(question.biz_ids)) for question in questions]

    sending = Sending(Forgetful())
    sending.reconciler = NoneFound()
    sending.answers = {0: errors.ReceiverLimitedError("x", retry_after=1)}
    assert isinstance(sending.run(2), LedgerUnusableError)
    assert sending.sent == ["0a 0b"]
    assert sending.ledger.count("free") == sending.manifest.not_sent == 4


def test_does_not_defer_while_outcomes_are_only_in_memory() -> None:
    ledger = Memory(range(1, 1000))
    sending = Sending(ledger)
    sending.answers = {1: errors.ThrottledError("x", retry_after=31_062)}
    raised = sending.run(2)
    assert type(raised) is LedgerError
    assert sending.manifest.ledger_lacks == {"accepted": 2, "not_executed": 2}


def test_defers_once_the_outcomes_are_written() -> None:
    ledger = Memory(range(1, 4))
    sending = Sending(ledger)
    sending.answers = {1: errors.ThrottledError("x", retry_after=31_062)}
    assert isinstance(sending.run(2), DeferSending)
    assert (ledger.count("accepted"), ledger.count("free")) == (2, 2)


def test_request_waits_until_its_intent_is_renewed() -> None:
    ledger = Memory([1, 2, 3])
    sending = Sending(ledger)
    # The first window is old when the second of its requests could leave.
    sending.answers = {0: lambda: sending.time.sleep(100)}
    assert sending.run(2) is None
    assert ledger.failed == 3
    assert ledger.count("accepted") == 4


def test_an_intent_that_grew_old_while_its_request_waited_for_a_connection_is_renewed_first() -> None:
    ledger = Memory()
    sending = Sending(ledger)
    connections: list[float] = []

    def slow() -> None:
        connections.append(sending.time.now)
        if len(connections) == 1:
            sending.time.sleep(100)

    sending.connect = slow
    assert sending.run(2) is None
    assert len(connections) == 3
    assert len(sending.sent) == 2
    assert ledger.count("accepted") == sending.manifest.accepted == 4


class Flaky(Ledger):
    """Fails a few times at each call, before it or after it."""

    def __init__(self, fails: int) -> None:
        super().__init__()
        self.fails, self.calls = fails, 0

    def _call(self, result: Any) -> Any:
        self.calls += 1
        if self.calls <= self.fails:
            raise LedgerError("away")
        return result

    def claim(self) -> bool:
        return bool(self._call(True))

    def open(self, *args: Any, **how: Any) -> int:
        return int(self._call(7))

    def history(self, audience: Any = None) -> Any:
        yield RecordedRequest("one", None, "", 0.0)
        yield self._call(RecordedRequest("two", None, "", 0.0))

    def requests(self, task_unique_codes: Collection[str]) -> Any:
        return self.history()

    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        self._call(None)

    def finish(self) -> None:
        self._call(None)


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda ledger: ledger.claim(), True),
        (lambda ledger: ledger.open(None), 7),
        (lambda ledger: {each.task_unique_code for each in ledger.history()}, {"one", "two"}),
        (lambda ledger: {each.task_unique_code for each in ledger.requests(["one"])}, {"one", "two"}),
        (lambda ledger: ledger.take_over(["code"]), None),
        (lambda ledger: ledger.finish(), None),
    ],
)
@pytest.mark.parametrize("fails", [0, 1, 5, 1000])
def test_first_and_last_ledger_calls_of_a_try_wait_too(call: Any, result: Any, fails: int) -> None:
    time = Time()
    flaky = Flaky(fails)
    patience = Patience(60.0, Cancellation(lambda: None, monotonic=time, sleep=time.sleep), monotonic=time)
    ledger = patient(flaky, patience)
    if fails < 1000:
        assert call(ledger) == result
    else:
        with pytest.raises(LedgerError, match="away"):
            call(ledger)
        assert 1060 <= time.now < 1070
    assert not ledger.is_durable


def test_retried_write_with_a_lost_answer_is_not_taken_for_another_workers() -> None:
    time = Time()
    memory = Memory([0], stays=True)
    patience = Patience(60.0, Cancellation(lambda: None, monotonic=time, sleep=time.sleep), monotonic=time)
    patient(memory, patience).write([], [Intent("code", None, ["a"], "", 0.0)])
    assert memory.states == {"a": "in doubt"}
