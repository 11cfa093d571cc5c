"""Drives requests through the gateway, in order; writes the ledger ahead and books what became of them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from airflow_provider_lingyang.audience.store import Spool
from airflow_provider_lingyang.cancellation import Stop
from airflow_provider_lingyang.delivery.concurrency_limiter import Door, NotLeft
from airflow_provider_lingyang.delivery.manifest import BatchTally, Doubt, Manifest
from airflow_provider_lingyang.delivery.progress import Progress
from airflow_provider_lingyang.delivery.reconciler import Inquiry, Question, Verdict
from airflow_provider_lingyang.delivery.requests import BatchRequest
from airflow_provider_lingyang.delivery.schedule import Gate, Later, TooLate
from airflow_provider_lingyang.delivery.sender_pool import Couriers, StoppedError, Wire
from airflow_provider_lingyang.gateway.errors import (
    CallRefusedError,
    LingyangConfigError,
    LingyangError,
    NotSentError,
    Replay,
    RequestInvalidError,
    RequestRefusedError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.protocol import SubmitReceipt
from airflow_provider_lingyang.gateway.retry import LONGEST_WAIT, RetryPolicy
from airflow_provider_lingyang.ledger.base import (
    INTENT_LIFE,
    Intent,
    Ledger,
    LedgerError,
    LedgerFencedError,
    Outcome,
)

log = logging.getLogger(__name__)

_SLICE = 0.2
_AHEAD = 8


class SubmissionStopped(Exception):
    """The rest of the campaign was not sent. The text says where and why.

    :param final: whether a person must do something first, so that another try is of no use.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a campaign is sent.

    :param max_in_flight: requests under way at a time.
    :param max_attempts: how often one request is sent at most while it provably was not executed.
    :param lookup_settle: seconds after which a look-up knows of every executed request.
    :param dedupes_by_code: whether the gateway executes a ``task_unique_code`` only once.
    :param on_in_doubt: ``stop`` or ``continue``.
    :param on_rejected: ``continue`` or ``fail``.
    """

    max_in_flight: int = 1
    max_attempts: int = 3
    lookup_settle: float = 60.0
    dedupes_by_code: bool = False
    on_in_doubt: str = "stop"
    on_rejected: str = "continue"

    @property
    def ahead(self) -> int:
        """Requests that are signed and encoded while they wait for one to be answered."""
        return min(_AHEAD, self.max_in_flight - 1)

    @property
    def intent_life(self) -> float:
        """Seconds after which an intent must be renewed: well before a look-up by another try may count."""
        # Not 0, or every intent would be stale before its request can leave.
        return min(INTENT_LIFE, max(0.05, self.lookup_settle / 2))


@dataclass(frozen=True, slots=True)
class Resent:
    """A request in doubt of an earlier try that is sent again under its code.

    :param doubt: as it is booked.
    :param written_at: epoch seconds of its first intent: a look-up must not take what it did then for another
        campaign's.
    """

    doubt: Doubt
    written_at: float


@dataclass(slots=True)
class _Flight:
    """A request from its intent to its outcome."""

    request: BatchRequest
    intent: Intent
    fresh_until: float
    attempts: int = 0
    left: bool = False
    left_at: float = 0.0
    doubt: Doubt | None = None
    unknown: Sequence[str] = ()
    why: str = ""
    ambiguous: bool = False
    """Whether an earlier attempt may have been executed: then no later refusal proves anything."""


class Submission:
    """Sends one campaign.

    The main thread decides and writes the ledger, couriers send. A request leaves only after its intent was written,
    and intents run at most twice ``max_in_flight`` ahead: that many are in doubt after a kill. Couriers are given a few
    requests more than may be under way; whether one leaves is decided when there is a place for it.

    :param spool: knows who was not executed and has to be sent to again.
    :param manifest: where every outcome is booked, before anything else happens.
    :param progress: tells the log how far it is.
    :param inquiry: settles doubts; None: no look-up is configured.
    :param resent: requests in doubt of earlier tries that the gateway knows by their code.
    """

    def __init__(
        self,
        *,
        couriers: Couriers,
        ledger: Ledger,
        spool: Spool,
        manifest: Manifest,
        progress: Progress,
        gate: Gate,
        retry: RetryPolicy,
        policy: Policy,
        stop: Stop,
        inquiry: Inquiry | None = None,
        resent: Mapping[str, Resent] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._couriers = couriers
        self._ledger = ledger
        self._spool = spool
        self._manifest = manifest
        self._progress = progress
        self._gate = gate
        self._retry = retry
        self._policy = policy
        self._stop = stop
        self._inquiry = inquiry
        self._resent = resent or {}
        self._clock = clock
        self._monotonic = monotonic
        self._door = Door(policy.max_in_flight, self._may_leave)
        # At a pace, the moment at which a request is handed out is the one at which it has to leave.
        self._handed_at_most = policy.max_in_flight + (0 if gate.is_paced else policy.ahead)
        self._ready: deque[_Flight] = deque()
        self._flying: list[_Flight] = []
        self._doubtful: list[_Flight] = []
        self._unwritten: list[_Flight] = []
        self._outcomes: list[Outcome] = []
        self._ending: Exception | None = None
        self._wait = 0.0
        self._free_again = False
        self._last_failure = ""

    def send_batch(self, batch: BatchTally, requests: Callable[[int | None], Iterable[BatchRequest]]) -> None:
        """Send the requests of one ``batch_num``; when it returns, each is answered, or booked in doubt.

        :param requests: gives them: all for None, then those of the groups after a number, whose first request was
            not executed.
        :raises SubmissionStopped: nothing more may leave.
        :raises Later: nothing more may leave now.
        :raises LedgerError: the ledger cannot be written.
        """
        self._manifest.batches.append(batch)
        after: int | None = None
        for _ in range(self._policy.max_attempts):
            source, after = requests(after), self._spool.last_group
            self._free_again = False
            self._send(batch, iter(source))
            if not self._free_again:
                break
        else:
            raise SubmissionStopped(
                f"{batch.name}: requests were not executed, {self._policy.max_attempts} time(s) in a "
                f"row; the last: {self._last_failure}"
            )
        self._progress.batch_done(batch)
        if self._policy.on_rejected == "fail" and batch.rejected:
            raise SubmissionStopped(
                f"{batch.name}: {batch.rejected} people were rejected, and on_rejected='fail'",
                final=True,
            )

    def _send(self, batch: BatchTally, source: Iterator[BatchRequest]) -> None:
        try:
            while True:
                self._check_stop()
                self._progress.look()
                self._launch(batch)
                if self._take(source):
                    self._launch(batch)
                if self._flying:
                    self._hear(batch)
                elif self._ending is not None:
                    raise self._ending
                elif self._doubtful:
                    self._clear_up(batch)
                elif self._ready:
                    self._stop.sleep(min(self._wait, _SLICE))
                else:
                    break
        except BaseException as error:
            self._door.shut()
            for flight in [flight for flight in self._flying if not flight.left]:
                self._flying.remove(flight)
                self._take_back(batch, flight)
            self._release()
            try:
                self._close_books()
            except LedgerError as second:
                if not isinstance(error, LedgerError):
                    log.error("the ledger does not know the last outcomes: %s", second)
            raise
        self._close_books()

    def _check_stop(self) -> None:
        if self._stop.told() and self._ending is None:
            self._ending = SubmissionStopped("the task was told to stop; no further request left")
        if self._stop.out_of_time() and (flight := next((each for each in self._flying if each.left), None)):
            raise SubmissionStopped(f"the task was told to stop while {flight.request} was under way")

    def _take(self, source: Iterator[BatchRequest]) -> bool:
        """Write the intents of the next requests, and with them the outcomes that are known."""
        if self._ending is not None or self._doubtful:
            return False
        in_flight = self._policy.max_in_flight
        room = 2 * in_flight - len(self._ready) - len(self._flying)
        if room < in_flight:
            # A write costs hardly more for many requests than for one: 25 ms and more in the task state store.
            return False
        now, fresh_until = self._clock(), self._monotonic() + self._policy.intent_life
        flights = []
        for request in islice(source, room):
            before = self._resent.get(request.task_unique_code)
            flights.append(
                _Flight(
                    request,
                    _intent(request, min(now, before.written_at) if before else now),
                    fresh_until,
                    doubt=before.doubt if before else None,
                    unknown=request.biz_ids,
                    ambiguous=before is not None,
                )
            )
        if flights:
            try:
                self._ledger.write(self._outcomes, [flight.intent for flight in flights])
            except LedgerError as error:
                # Nothing of this window leaves; what is under way is still waited for.
                self._ending = error
                self._unwritten += [flight for flight in flights if not flight.ambiguous]
                return False
            self._outcomes = []
            self._ready.extend(flights)
        return bool(flights)

    def _launch(self, batch: BatchTally) -> None:
        """Let requests leave, as many as may."""
        self._wait = 0.0
        while self._ready and len(self._flying) < self._handed_at_most:
            # The task may have been told to stop while the intents were written.
            if self._ending is not None or self._doubtful or self._stop.told():
                return
            try:
                self._wait = self._gate.delay()
            except TooLate as error:
                self._manifest.rest = "send_until has passed"
                self._ending = SubmissionStopped(f"the rest was not sent: {error}", final=True)
                return
            except Later as error:
                self._ending = error
                return
            if self._wait > 0:
                return
            if self._monotonic() > self._ready[0].fresh_until:
                try:
                    self._renew()
                except LedgerError as error:
                    self._ending = error
                    return
            flight = self._ready.popleft()
            self._gate.passed()
            flight.attempts += 1
            flight.left = False
            batch.requests += 1
            # In doubt before it leaves, and until something definite is known: whatever may be raised, wherever, by a
            # signal or a bug, nobody who may have been contacted is counted as not sent.
            flight.doubt = flight.doubt or self._manifest.doubt(
                flight.request.task_unique_code, flight.request.batch_num, len(flight.request.biz_ids)
            )
            self._flying.append(flight)
            self._couriers.hand(flight, lambda wire, flight=flight: self._carry(wire, flight))  # type: ignore[misc]

    def _carry(self, wire: Wire, flight: _Flight) -> SubmitReceipt:
        """Send a request, in a courier's thread."""
        return wire.submit_struct(flight.request.struct, departure=lambda: self._door.departure(flight))

    def _may_leave(self, flight: _Flight) -> bool:
        """Whether a request may leave now; in a courier's thread."""
        if self._ending is not None or self._doubtful or self._stop.told() or not self._gate.is_open():
            return False
        # A process that was paused meanwhile must not send under an old intent.
        flight.left_at = self._monotonic()
        flight.left = flight.left_at <= flight.fresh_until
        return flight.left

    def _renew(self) -> None:
        fresh_until = self._monotonic() + self._policy.intent_life
        self._ledger.renew([flight.intent for flight in self._ready])
        for flight in self._ready:
            flight.fresh_until = fresh_until

    def _hear(self, batch: BatchTally) -> None:
        """Wait a moment for an answer, and book it."""
        waits_for_gate = self._ready and len(self._flying) < self._handed_at_most and self._wait > 0
        answer = self._couriers.answer(min(_SLICE, self._wait) if waits_for_gate else _SLICE)
        if answer is None:
            return
        flight, result = answer
        self._flying.remove(flight)
        if isinstance(result, SubmitReceipt):
            self._book_receipt(batch, flight, result)
        elif isinstance(result, RequestRefusedError) and not flight.ambiguous:
            log.warning("%s was refused: %s", flight.request, result)
            self._book(batch, flight, rejected=flight.request.biz_ids)
            self._manifest.because("rejected", _reason(result), len(flight.request.biz_ids))
        elif isinstance(result, NotLeft):
            self._take_back(batch, flight)
        elif isinstance(result, LingyangError):
            self._book_failure(batch, flight, result)
        elif isinstance(result, Exception):
            _doubt_of(flight).reason = type(result).__name__
            self._ending = self._ending or result
        else:
            raise result
        self._door.heard(flight)

    def _book_receipt(self, batch: BatchTally, flight: _Flight, receipt: SubmitReceipt) -> None:
        request, echoed = flight.request, receipt.task_ids
        accepted = {biz_id: echoed[biz_id] for biz_id in request.biz_ids if biz_id in echoed}
        missing = [biz_id for biz_id in request.biz_ids if biz_id not in echoed]
        strangers = receipt.strangers(set(request.biz_ids))
        # Each echo is an execution; those that name nobody may be the missing ones.
        if strangers:
            log.warning(
                "%s: %d echoes are nobody's of the request (request_id %s)",
                request,
                strangers,
                receipt.request_id,
            )
        if missing and strangers:
            self._book(batch, flight, accepted=accepted, in_doubt=missing)
            flight.ambiguous = True
            flight.why = _doubt_of(flight).reason = (
                "the answer echoes tasks that cannot be told whose they are"
            )
            self._doubtful.append(flight)
            return
        self._book(batch, flight, accepted=accepted, rejected=missing)
        if missing:
            log.warning(
                "%s: %d tasks were not echoed, so not accepted (request_id %s)",
                request,
                len(missing),
                receipt.request_id,
            )
            self._manifest.because("rejected", "not echoed by the gateway", len(missing))

    def _book_failure(self, batch: BatchTally, flight: _Flight, error: LingyangError) -> None:
        request = flight.request
        again_in = self._retry.delay(error, flight.attempts, idempotent=False)
        if again_in is not None:
            log.warning("%s: attempt %d: %s; again in %.1f s", request, flight.attempts, error, again_in)
            self._gate.hold(again_in)
            self._back(batch, flight)
        elif _provably_not_executed(error) and not flight.ambiguous:
            self._book(batch, flight, not_executed=request.biz_ids)
            self._manifest.because("not_sent", _reason(error), len(request.biz_ids))
            if isinstance(error, ThrottledError) and (error.retry_after or 0) > LONGEST_WAIT:
                ending: Exception = self._gate.later(
                    (error.retry_after or 0) + 1, f"{request} was throttled: {error}"
                )
            else:
                ending = SubmissionStopped(
                    f"{request} was not executed: {error}", final=error.replay is not Replay.SAFE
                )
            self._ending = self._ending or ending
        else:
            log.warning("%s is in doubt: %s", request, error)
            flight.why, _doubt_of(flight).reason = str(error), _reason(error)
            flight.ambiguous = True
            self._doubtful.append(flight)

    def _clear_up(self, batch: BatchTally) -> None:
        """Find out about those in doubt, now that nothing is under way."""
        flights, self._doubtful = self._doubtful, []
        verdicts = self._verdicts(flights)
        for flight, verdict in zip(flights, verdicts, strict=True):
            if verdict.executed or verdict.not_executed:
                self._book(
                    batch,
                    flight,
                    accepted=verdict.executed,
                    not_executed=verdict.not_executed,
                    in_doubt=verdict.unknown,
                )
            if self._inquiry is not None:
                log.info(
                    "%s was looked up: %d executed, %d not executed and sent again, %d in doubt",
                    flight.request,
                    len(verdict.executed),
                    len(verdict.not_executed),
                    len(verdict.unknown),
                )
            if verdict.not_executed:
                self._spool.regroup(verdict.not_executed)
                self._last_failure = flight.why
                self._free_again = True
            if not verdict.unknown:
                continue
            whole = len(verdict.unknown) == len(flight.request.biz_ids)
            if self._policy.dedupes_by_code and whole and flight.attempts < self._policy.max_attempts:
                log.info(
                    "%s is sent again: the gateway executes a task_unique_code only once", flight.request
                )
                self._back(batch, flight)
            elif self._policy.on_in_doubt == "stop":
                what = "is in doubt" if whole else f"{len(verdict.unknown)} of its tasks are in doubt"
                self._ending = self._ending or SubmissionStopped(
                    f"{flight.request}{' ' if whole else ': '}{what}: {flight.why}",
                    final=self._inquiry is None and not self._policy.dedupes_by_code,
                )

    def _verdicts(self, flights: list[_Flight]) -> list[Verdict]:
        if self._inquiry is not None and self._ending is None:
            try:
                return self._inquiry.ask(
                    [
                        Question(
                            flight.unknown,
                            flight.intent.written_at,
                            flight.left_at + self._policy.lookup_settle,
                        )
                        for flight in flights
                    ]
                )
            except StoppedError:
                self._check_stop()
        return [Verdict(unknown=list(flight.unknown)) for flight in flights]

    def _take_back(self, batch: BatchTally, flight: _Flight) -> None:
        """Make a request ready again that did not leave."""
        self._back(batch, flight)
        flight.attempts -= 1
        batch.requests -= 1

    def _back(self, batch: BatchTally, flight: _Flight) -> None:
        """Make a request ready again."""
        if not flight.ambiguous:
            self._manifest.settle(_doubt_of(flight), batch)
            flight.doubt = None
        self._ready.appendleft(flight)

    def _book(
        self,
        batch: BatchTally,
        flight: _Flight,
        *,
        accepted: dict[str, int | None] | None = None,
        rejected: Iterable[str] = (),
        not_executed: Iterable[str] = (),
        in_doubt: Iterable[str] = (),
    ) -> None:
        outcome = Outcome(
            flight.request.task_unique_code,
            accepted or {},
            tuple(rejected),
            tuple(not_executed),
            tuple(in_doubt),
        )
        self._manifest.settle(
            _doubt_of(flight),
            batch,
            accepted=outcome.accepted,
            rejected=outcome.rejected,
            in_doubt=len(outcome.in_doubt),
        )
        flight.unknown = outcome.in_doubt
        self._outcomes.append(outcome)

    def _release(self) -> None:
        """Note that the requests which were only intended did not leave."""
        self._outcomes += [
            Outcome(flight.request.task_unique_code, {}, not_executed=flight.request.biz_ids)
            for flight in [*self._ready, *self._unwritten]
            if not flight.ambiguous
        ]
        self._ready.clear()

    def _close_books(self) -> None:
        """Write the outcomes that are known; a second time where the first fails, because unwritten they are doubts."""
        outcomes, self._outcomes = self._outcomes, []
        if not outcomes:
            return
        try:
            self._ledger.write(outcomes, [])
        except LedgerFencedError:
            raise
        except LedgerError as error:
            log.warning("%s; once more", error)
            self._ledger.write(outcomes, [])


def _intent(request: BatchRequest, now: float) -> Intent:
    return Intent(
        request.task_unique_code,
        request.batch_num,
        request.biz_ids,
        request.struct_digest,
        now,
        request.again,
    )


def _doubt_of(flight: _Flight) -> Doubt:
    assert flight.doubt is not None
    return flight.doubt


def _provably_not_executed(error: LingyangError) -> bool:
    never_sent = (NotSentError, CallRefusedError, LingyangConfigError, RequestInvalidError)
    return error.replay is Replay.SAFE or isinstance(error, never_sent)


def _reason(error: LingyangError) -> str:
    """A reason that many requests can share: without ids of a single call."""
    code = " ".join(filter(None, (error.code, error.sub_code)))
    text = error.sub_msg or error.msg
    return error.message + (f" [{code}]" if code else "") + (f": {text}" if text else "")
