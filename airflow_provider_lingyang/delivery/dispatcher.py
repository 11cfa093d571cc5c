"""Drives requests through the gateway, in order; writes the ledger ahead and books what became of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from airflow_provider_lingyang.cancellation import SIGNAL_POLL_INTERVAL, Cancellation
from airflow_provider_lingyang.delivery.answers import AnswerHandler
from airflow_provider_lingyang.delivery.dispatch import Dispatch, NotDispatched, RetriedRequest
from airflow_provider_lingyang.delivery.ledger_writer import LedgerWriter
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.open_requests import OpenRequests
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.progress import Progress
from airflow_provider_lingyang.delivery.receiver_limit import ReceiverLimit
from airflow_provider_lingyang.delivery.reconciler import Reconciler
from airflow_provider_lingyang.delivery.request_state import RequestEvent
from airflow_provider_lingyang.delivery.requests import BatchRequest
from airflow_provider_lingyang.delivery.schedule import DeadlinePassed, DeferSending, SendSchedule
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.delivery.sender_pool import SenderPool, Wire
from airflow_provider_lingyang.errors import (
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    SubmissionStopped,
)
from airflow_provider_lingyang.gateway.attempts import RetryPolicy
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.ledger.base import Intent, Ledger
from airflow_provider_lingyang.ledger.patience import Patience

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Dispatcher:
    """Sends one campaign.

    The main thread decides and writes the ledger, the sender pool sends. A request leaves only after its intent was
    written, and intents run at most twice ``max_in_flight`` ahead: that many are in doubt after a kill. The main thread
    decides whether a request is sent; the sender thread asks again when it has a connection, which may take long.

    :param queue: gets back the recipients that were not executed, to be sent again.
    :param manifest: where every outcome is booked, before anything else happens.
    :param progress: tells the log how far it is.
    :param reconciler: settles doubts; None: no look-up is configured.
    :param retried: requests in doubt of earlier tries that the gateway knows by their code.
    """

    sender_pool: SenderPool
    ledger: Ledger
    queue: SendQueue
    manifest: Manifest
    progress: Progress
    schedule: SendSchedule
    retry: RetryPolicy
    policy: Policy
    cancellation: Cancellation
    reconciler: Reconciler | None = None
    retried: Mapping[str, RetriedRequest] = field(default_factory=dict)
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._patience = Patience(self.policy.ledger_patience, self.cancellation, monotonic=self.monotonic)
        self._writer = LedgerWriter(self.ledger, self._patience)
        limit = ReceiverLimit(self.ledger, self._patience, self.policy.receiver_limit_patience)
        self._requests = OpenRequests(self.manifest, self.queue, self._writer, limit)
        self._answers = AnswerHandler(self._requests, self.schedule, self.retry, self.policy, self.reconciler)
        # Its own: the ledger may be well while the row of the rate limit is not.
        self._pace = Patience(self.policy.ledger_patience, self.cancellation, monotonic=self.monotonic)
        self._sending = threading.Lock()
        """Held while a sender thread decides to send, and while the main thread forbids it for good."""
        self._wait = 0.0

    def send_batch(self, batch: BatchTally, requests: Callable[[int | None], Iterable[BatchRequest]]) -> None:
        """Send the requests of one ``batch_num``; when it returns, each is answered, or booked in doubt.

        :param requests: gives them: all for None, then those of the groups after a number, whose first request was
            not executed.
        :raises SubmissionStopped: nothing more may leave.
        :raises DeferSending: nothing more may leave now.
        :raises LedgerError: the ledger cannot be written.
        """
        self.manifest.batches.append(batch)
        self._requests.batch = batch
        after: int | None = None
        failures = 0
        # A round: the requests of the batch, then those of recipients that were not executed, and so on.
        while after is None or self.queue.last_group > after:
            if failures >= self.policy.max_attempts:
                raise SubmissionStopped(
                    f"{batch.name}: requests were not executed, {failures} time(s) in a row; the last: "
                    f"{self._requests.last_failure}"
                )
            source, after = requests(after), self.queue.last_group
            self._requests.has_failed = False
            self._send(iter(source))
            failures += self._requests.has_failed
        self.progress.batch_done(batch)
        if self.policy.on_rejected == "fail" and batch.rejected:
            raise SubmissionStopped(
                f"{batch.name}: {batch.rejected} recipients were rejected, and on_rejected='fail'",
                final=True,
            )

    def finish(self) -> None:
        """End the campaign, once all its requests are sent.

        :raises SubmissionStopped: recipients are left whose refusal, for a limit, may be their own.
        """
        if self._requests.unproven:
            raise SubmissionStopped(
                f"{self._requests.unproven} recipient(s) were refused for a limit of one receiver ([lingyang] "
                "receiver_limit_patience has passed), and nothing accepted after them proves whose limit it is: they "
                "were not sent, and the next try sends them again"
            )

    def _send(self, source: Iterator[BatchRequest]) -> None:
        try:
            while self._step(source):
                pass
            self._requests.end_splits()
            if self._requests.ending is not None:
                raise self._requests.ending
            self._writer.flush()
        except BaseException as error:
            self._break_off(error)
            raise

    def _step(self, source: Iterator[BatchRequest]) -> bool:
        """Do what is next; return False when nothing is."""
        self._check_stop()
        self.progress.look()
        if self._patience.is_away:
            self._retry_ledger()
        self._dispatch_ready()
        if self._write_intents(source):
            self._dispatch_ready()
        if self._requests.dispatched:
            self._handle_next_result()
        elif self._requests.ending is not None:
            raise self._requests.ending
        elif self._patience.is_away:
            self.cancellation.sleep(min(self._patience.wait, SIGNAL_POLL_INTERVAL))
        elif self._requests.in_doubt:
            self._reconcile()
        elif self._requests.ready:
            # A long wait: another task that takes over counts on what is known being written.
            if self._writer.outcomes:
                self._retry_ledger(renew=False)
            else:
                self.cancellation.sleep(min(self._wait, SIGNAL_POLL_INTERVAL))
        else:
            return False
        return True

    def _break_off(self, error: BaseException) -> None:
        """Book and write down what is known, before an error ends the try."""
        requests = self._requests
        # From here on no request is sent that waits for its connection.
        with self._sending:
            requests.end(error)
        self._answers.is_final = True
        # What was answered meanwhile is known.
        while requests.dispatched and (answer := self.sender_pool.next_result(0)) is not None:
            self._answers.handle(*answer)
        for dispatch in [dispatch for dispatch in requests.dispatched if not dispatch.is_under_way]:
            requests.dispatched.remove(dispatch)
            requests.requeue(dispatch)
        requests.batch.requests += len(requests.dispatched)
        if requests.dispatched:
            # A request may still be under way, so the ledger must not say that this process has ended.
            self.ledger.others_may_run = True
        requests.end_splits()
        requests.release()
        try:
            if isinstance(error, LedgerFencedError):
                self._writer.save_accepted()
            elif not isinstance(error, LedgerRefusedError):
                planned = isinstance(error, (SubmissionStopped, DeferSending))
                self._writer.flush(once=not planned)
        except LedgerError as second:
            log.error("the ledger does not know the last outcomes: %s", second)
            if isinstance(error, DeferSending):
                # Nothing is deferred whose outcomes are only in memory.
                raise second from None
        finally:
            self.manifest.ledger_lacks = self._writer.lacking()

    def _check_stop(self) -> None:
        if self.cancellation.requested():
            self._requests.end(SubmissionStopped("the task was asked to stop; no further request left"))
        if self.cancellation.grace_expired() and (
            dispatch := next((each for each in self._requests.dispatched if each.is_under_way), None)
        ):
            raise SubmissionStopped(f"the task was asked to stop while {dispatch.request} was under way")

    def _write_intents(self, source: Iterator[BatchRequest]) -> bool:
        """Write the intents of the next requests, and with them the outcomes that are known."""
        requests, at_most = self._requests, self.policy.max_in_flight
        if requests.ending is not None or self._patience.is_away:
            return False
        if requests.unwritten:
            return self._write_unwritten()
        if requests.in_doubt:
            return False
        room = 2 * at_most - len(requests.ready) - len(requests.dispatched)
        if room < at_most:
            # A write costs hardly more for many requests than for one: 25 ms and more in the task state store.
            return False
        now = time.time()
        # Kept before they are written: should the write be broken off, they are released.
        requests.ready.extend(
            Dispatch.of(request, now, self.policy.open_for, self.retried.get(request.task_unique_code))
            for request in islice(source, room)
        )
        return bool(requests.unwritten) and self._write_unwritten()

    def _write_unwritten(self) -> bool:
        return self._write_or_renew(self._requests.unwritten, self._writer.write)

    def _renew(self) -> bool:
        return self._write_or_renew(self._requests.intended, self._writer.renew)

    def _write_or_renew(
        self, dispatches: Sequence[Dispatch], write: Callable[[Sequence[Intent]], bool]
    ) -> bool:
        """Write outcomes and intents, or renew intents: from then on their requests may be sent for a while."""
        # From before the write: another process that takes over after it counts from its own commit.
        fresh_until = self.monotonic() + self.policy.intent_life
        try:
            if not write([dispatch.intent for dispatch in dispatches]):
                return False
        except LedgerError as error:
            # None of these requests leaves; what is under way is still waited for.
            self._requests.end(error)
            return False
        for dispatch in dispatches:
            if not dispatch.fresh_until:
                dispatch.apply(RequestEvent.INTENT_WRITTEN)
            dispatch.fresh_until = fresh_until
        return True

    def _retry_ledger(self, *, renew: bool = True) -> None:
        """Write what could not be written, where it is time to.

        :param renew: whether to find out first if the requests that are ready are still this process's.
        """
        requests = self._requests
        if isinstance(requests.ending, LedgerError):
            return
        if requests.ending is None and requests.unwritten:
            self._write_unwritten()
        elif requests.ending is None and requests.ready and renew:
            self._renew()
        else:
            self._write_or_renew((), self._writer.write)

    def _dispatch_ready(self) -> None:
        """Let requests leave, as many as may."""
        self._wait = 0.0
        requests = self._requests
        # The task may have been asked to stop while the intents were written.
        while (intended := requests.intended) and len(requests.dispatched) < self.policy.max_in_flight:
            if self._is_held() or not self._synchronise_rate_limit():
                return
            try:
                self._wait = self.schedule.delay()
            except DeadlinePassed as error:
                self.manifest.not_sent_reason = "send_until has passed"
                requests.end(SubmissionStopped(f"the rest was not sent: {error}", final=True))
                return
            except DeferSending as error:
                requests.end(error)
                return
            if self._wait > 0:
                return
            if self.monotonic() > intended[0].fresh_until and not self._renew():
                return
            dispatch = requests.ready.popleft()
            self.schedule.limiter.record_dispatch()
            dispatch.dispatched_at = self.monotonic()
            requests.book(dispatch)
            requests.dispatched.append(dispatch)
            self.sender_pool.submit(dispatch, partial(self._send_request, dispatch))

    def _synchronise_rate_limit(self) -> bool:
        """Reserve turns of a shared rate limit where none is left; return False where its database is away."""
        requests = self._requests
        if not self.schedule.is_due():
            return True
        try:
            if self._pace.wait <= 0:
                with self._pace.attempt():
                    self.schedule.synchronise(len(requests.intended))
                    return True
        except LedgerError as error:
            requests.end(error)
            return False
        self._wait = self._pace.wait
        return False

    def _send_request(self, dispatch: Dispatch, wire: Wire) -> SubmitReceipt:
        """Send a request, in a sender's thread."""
        try:
            return wire.submit_struct(dispatch.request.struct, before_send=lambda: self._begin_send(dispatch))
        finally:
            # It may have been slow to connect, to be read, to be answered: only now it is over.
            dispatch.ended_at = self.monotonic()

    def _is_held(self) -> bool:
        """Whether no request may be sent for now. For any thread."""
        ends = self._requests.ending is not None or self.cancellation.requested()
        return ends or bool(self._requests.in_doubt) or self._patience.is_away

    def _begin_send(self, dispatch: Dispatch) -> None:
        """Note that a request is sent, now that it has a connection; in a sender's thread.

        :raises NotDispatched: sending is forbidden meanwhile, or a process that was paused may have lost the intent.
        """
        with self._sending:
            if (
                self._is_held()
                or not self.schedule.is_open()
                # Last: another process that takes over counts on nothing being sent under an old intent.
                or self.monotonic() > dispatch.fresh_until
            ):
                raise NotDispatched
            dispatch.apply(RequestEvent.SENT)

    def _handle_next_result(self) -> None:
        """Wait a moment for an answer, and book it with all that have come: after a failure no request is sent."""
        requests = self._requests
        has_room = requests.ready and len(requests.dispatched) < self.policy.max_in_flight
        answer = self.sender_pool.next_result(
            min(SIGNAL_POLL_INTERVAL, self._wait) if has_room and self._wait > 0 else SIGNAL_POLL_INTERVAL
        )
        while answer is not None:
            dispatch, result = answer
            self._answers.handle(dispatch, result)
            if not isinstance(result, (SubmitReceipt, Exception)):
                raise result
            answer = self.sender_pool.next_result(0)

    def _reconcile(self) -> None:
        """Find out about those in doubt, now that nothing is under way."""
        dispatches, self._requests.in_doubt = self._requests.in_doubt, []
        resolutions = self._answers.look_up(dispatches)
        self._check_stop()
        for dispatch, resolution in zip(dispatches, resolutions, strict=True):
            self._answers.settle(dispatch, resolution)
