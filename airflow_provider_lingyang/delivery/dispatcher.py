"""Drives requests through the gateway, in order; writes the ledger ahead and books what became of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from airflow_provider_lingyang.cancellation import SIGNAL_POLL_INTERVAL, Cancellation
from airflow_provider_lingyang.delivery.dispatch import Dispatch, NotDispatched, RetriedRequest
from airflow_provider_lingyang.delivery.ledger_writer import LedgerWriter
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.outcomes import OutcomeRecorder, provably_not_executed, reason
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.progress import Progress
from airflow_provider_lingyang.delivery.receiver_limit import ReceiverLimit
from airflow_provider_lingyang.delivery.reconciler import Reconciler, Resolution, UnresolvedRequest, resolve
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
from airflow_provider_lingyang.gateway.errors import (
    LingyangError,
    ReceiverLimitedError,
    Replay,
    RequestRefusedError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.gateway.retry import LONGEST_WAIT, RetryPolicy
from airflow_provider_lingyang.ledger.base import Ledger
from airflow_provider_lingyang.ledger.patience import Patience

log = logging.getLogger(__name__)


class Dispatcher:
    """Sends one campaign.

    The main thread decides and writes the ledger, the sender pool sends. A request leaves only after its intent was
    written, and intents run at most twice ``max_in_flight`` ahead: that many are in doubt after a kill. The main thread
    decides whether a request is sent; the sender thread asks again when it has a connection, which may take long.

    :param queue: knows who was not executed and has to be sent to again.
    :param manifest: where every outcome is booked, before anything else happens.
    :param progress: tells the log how far it is.
    :param reconciler: settles doubts; None: no look-up is configured.
    :param retried: requests in doubt of earlier tries that the gateway knows by their code.
    """

    def __init__(
        self,
        *,
        sender_pool: SenderPool,
        ledger: Ledger,
        queue: SendQueue,
        manifest: Manifest,
        progress: Progress,
        schedule: SendSchedule,
        retry: RetryPolicy,
        policy: Policy,
        cancellation: Cancellation,
        reconciler: Reconciler | None = None,
        retried: Mapping[str, RetriedRequest] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender_pool = sender_pool
        self._queue = queue
        self._manifest = manifest
        self._progress = progress
        self._schedule = schedule
        self._retry = retry
        self._policy = policy
        self._cancellation = cancellation
        self._reconciler = reconciler
        self._retried = retried or {}
        self._clock = clock
        self._monotonic = monotonic
        patience = Patience(policy.ledger_patience, cancellation, monotonic=monotonic)
        self._writer = LedgerWriter(ledger, patience)
        self._limit = ReceiverLimit(ledger, patience, policy.receiver_limit_patience, clock)
        self._recorder = OutcomeRecorder(manifest, self._writer, self._limit)
        self._sending = threading.Lock()
        """Held while a sender thread decides to send, and while the main thread forbids it for good."""
        self._intended: list[Dispatch] = []
        """Requests whose intents are being written."""
        self._ready: deque[Dispatch] = deque()
        self._dispatched: list[Dispatch] = []
        self._in_doubt: list[Dispatch] = []
        self._ending: BaseException | None = None
        self._wait = 0.0
        self._free_again = False
        self._failed = False
        """Whether one was not executed for another reason than a limit, which is waited for up to a ceiling."""
        self._last_failure = ""
        self._broken_off = False

    def send_batch(self, batch: BatchTally, requests: Callable[[int | None], Iterable[BatchRequest]]) -> None:
        """Send the requests of one ``batch_num``; when it returns, each is answered, or booked in doubt.

        :param requests: gives them: all for None, then those of the groups after a number, whose first request was
            not executed.
        :raises SubmissionStopped: nothing more may leave.
        :raises DeferSending: nothing more may leave now.
        :raises LedgerError: the ledger cannot be written.
        """
        self._manifest.batches.append(batch)
        after: int | None = None
        failures, self._free_again = 0, True
        while self._free_again:
            if failures >= self._policy.max_attempts:
                raise SubmissionStopped(
                    f"{batch.name}: requests were not executed, {failures} time(s) in a row; the last: "
                    f"{self._last_failure}"
                )
            source, after = requests(after), self._queue.last_group
            self._free_again = self._failed = False
            self._send(batch, iter(source))
            failures += self._failed
        self._progress.batch_done(batch)
        if self._policy.on_rejected == "fail" and batch.rejected:
            raise SubmissionStopped(
                f"{batch.name}: {batch.rejected} people were rejected, and on_rejected='fail'",
                final=True,
            )

    def finish(self) -> None:
        """End the campaign, once all its requests are sent.

        :raises SubmissionStopped: recipients are left who were refused for a limit that may be their own.
        """
        self._recorder.check_limits()

    def _send(self, batch: BatchTally, source: Iterator[BatchRequest]) -> None:
        try:
            while self._step(batch, source):
                pass
            if (ending := self._recorder.end_splits(batch)) is not None:
                raise ending
            self._writer.flush()
        except BaseException as error:
            self._break_off(batch, error)
            raise

    def _step(self, batch: BatchTally, source: Iterator[BatchRequest]) -> bool:
        """Do what is next; return False when nothing is."""
        self._check_stop()
        self._progress.look()
        if self._writer.is_away:
            self._retry_ledger()
        self._dispatch_ready(batch)
        if self._write_intents(source):
            self._dispatch_ready(batch)
        if self._dispatched:
            self._handle_next_result(batch)
        elif self._ending is not None:
            raise self._ending
        elif self._writer.is_away:
            self._cancellation.sleep(min(self._writer.wait, SIGNAL_POLL_INTERVAL))
        elif self._in_doubt:
            self._reconcile(batch)
        elif self._ready:
            # A long wait: another task that takes over counts on what is known being written.
            if self._writer.has_outcomes:
                self._retry_ledger(renew=False)
            else:
                self._cancellation.sleep(min(self._wait, SIGNAL_POLL_INTERVAL))
        else:
            return False
        return True

    def _break_off(self, batch: BatchTally, error: BaseException) -> None:
        """Book and write down what is known, before an error ends the try."""
        self._broken_off = True
        # From here on no request is sent that waits for its connection.
        with self._sending:
            self._ending = self._ending or error
        # What was answered meanwhile is known.
        while self._dispatched and (answer := self._sender_pool.next_result(0)) is not None:
            self._record_result(batch, *answer)
        for dispatch in [dispatch for dispatch in self._dispatched if not dispatch.is_sent]:
            self._dispatched.remove(dispatch)
            self._requeue(batch, dispatch)
        batch.requests += len(self._dispatched)
        if self._dispatched:
            self._writer.leave_open()
        self._recorder.end_splits(batch)
        self._recorder.release([*self._ready, *self._intended])
        self._ready.clear()
        self._intended.clear()
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
            self._manifest.ledger_lacks = self._writer.lacking()

    def _check_stop(self) -> None:
        if self._cancellation.requested() and self._ending is None:
            self._ending = SubmissionStopped("the task was asked to stop; no further request left")
        if self._cancellation.grace_expired() and (
            dispatch := next((each for each in self._dispatched if each.is_sent), None)
        ):
            raise SubmissionStopped(f"the task was asked to stop while {dispatch.request} was under way")

    def _write_intents(self, source: Iterator[BatchRequest]) -> bool:
        """Write the intents of the next requests, and with them the outcomes that are known."""
        if self._ending is not None or self._writer.is_away:
            return False
        if self._intended:
            return self._write_intended()
        if self._in_doubt:
            return False
        in_flight = self._policy.max_in_flight
        room = 2 * in_flight - len(self._ready) - len(self._dispatched)
        if room < in_flight:
            # A write costs hardly more for many requests than for one: 25 ms and more in the task state store.
            return False
        now = self._clock()
        # Kept before they are written: should the write be broken off, they are released.
        self._intended = [
            Dispatch.of(request, now, self._policy.open_for, self._retried.get(request.task_unique_code))
            for request in islice(source, room)
        ]
        return bool(self._intended) and self._write_intended()

    def _write_intended(self) -> bool:
        # From before the write: another process that takes over after it counts from its own commit.
        fresh_until = self._monotonic() + self._policy.intent_life
        try:
            if not self._writer.write([dispatch.intent for dispatch in self._intended]):
                return False
        except LedgerError as error:
            # Nothing of this window leaves; what is under way is still waited for.
            self._ending = error
            return False
        for dispatch in self._intended:
            dispatch.fresh_until = fresh_until
        window, self._intended = self._intended, []
        self._ready.extend(window)
        return True

    def _retry_ledger(self, *, renew: bool = True) -> None:
        """Write what could not be written, where it is time to.

        :param renew: whether to find out first if the requests that are ready are still this process's.
        """
        if isinstance(self._ending, LedgerError):
            return
        try:
            if self._ending is not None:
                self._writer.write()
            elif self._intended:
                self._write_intended()
            elif self._ready and renew:
                self._renew()
            else:
                self._writer.write()
        except LedgerError as error:
            self._ending = self._ending or error

    def _dispatch_ready(self, batch: BatchTally) -> None:
        """Let requests leave, as many as may."""
        self._wait = 0.0
        while self._ready and len(self._dispatched) < self._policy.max_in_flight:
            # The task may have been asked to stop while the intents were written.
            if self._is_held():
                return
            try:
                self._wait = self._schedule.delay()
            except DeadlinePassed as error:
                self._manifest.rest = "send_until has passed"
                self._ending = SubmissionStopped(f"the rest was not sent: {error}", final=True)
                return
            except DeferSending as error:
                self._ending = error
                return
            if self._wait > 0:
                return
            if self._monotonic() > self._ready[0].fresh_until:
                try:
                    if not self._renew():
                        return
                except LedgerError as error:
                    self._ending = error
                    return
            dispatch = self._ready.popleft()
            self._schedule.record_dispatch()
            dispatch.is_sent = False
            dispatch.dispatched_at = self._monotonic()
            # In doubt before it leaves, and until something definite is known: whatever may be raised, wherever, by a
            # signal or a bug, no recipient that may have been contacted is counted as not sent.
            dispatch.booked = dispatch.booked or self._manifest.doubt(
                dispatch.request.task_unique_code, dispatch.request.batch_num, len(dispatch.request.biz_ids)
            )
            self._dispatched.append(dispatch)
            self._sender_pool.submit(dispatch, partial(self._send_request, dispatch))

    def _send_request(self, dispatch: Dispatch, wire: Wire) -> SubmitReceipt:
        """Send a request, in a sender's thread."""
        try:
            return wire.submit_struct(dispatch.request.struct, before_send=lambda: self._begin_send(dispatch))
        finally:
            # It may have been slow to connect, to be read, to be answered: only now it is over.
            dispatch.ended_at = self._monotonic()

    def _is_held(self) -> bool:
        """Whether no request may be sent for now. For any thread."""
        ends = self._ending is not None or self._cancellation.requested()
        return ends or bool(self._in_doubt) or self._writer.is_away

    def _begin_send(self, dispatch: Dispatch) -> None:
        """Note that a request is sent, now that it has a connection; in a sender's thread.

        :raises NotDispatched: sending is forbidden meanwhile, or a process that was paused may have lost the intent.
        """
        with self._sending:
            if (
                self._is_held()
                or not self._schedule.is_open()
                # Last: another process that takes over counts on nothing being sent under an old intent.
                or self._monotonic() > dispatch.fresh_until
            ):
                raise NotDispatched
            dispatch.is_sent = True

    def _renew(self) -> bool:
        fresh_until = self._monotonic() + self._policy.intent_life
        if not self._writer.renew([dispatch.intent for dispatch in self._ready]):
            return False
        for dispatch in self._ready:
            dispatch.fresh_until = fresh_until
        return True

    def _handle_next_result(self, batch: BatchTally) -> None:
        """Wait a moment for an answer, and book it with all that have come: after a failure no request is sent."""
        has_room = self._ready and len(self._dispatched) < self._policy.max_in_flight
        answer = self._sender_pool.next_result(
            min(SIGNAL_POLL_INTERVAL, self._wait) if has_room and self._wait > 0 else SIGNAL_POLL_INTERVAL
        )
        while answer is not None:
            dispatch, result = answer
            self._record_result(batch, dispatch, result)
            if not isinstance(result, (SubmitReceipt, Exception)):
                raise result
            answer = self._sender_pool.next_result(0)

    def _record_result(self, batch: BatchTally, dispatch: Dispatch, result: Any) -> None:
        self._dispatched.remove(dispatch)
        if isinstance(result, NotDispatched):
            self._requeue(batch, dispatch)
            return
        dispatch.attempts += 1
        batch.requests += 1
        if isinstance(result, SubmitReceipt):
            if why := self._recorder.record_receipt(batch, dispatch, result):
                self._doubt(dispatch, why, why)
        elif isinstance(result, RequestRefusedError) and not dispatch.ambiguous:
            log.warning("%s was refused: %s", dispatch.request, result)
            self._recorder.record_rejected(batch, dispatch, result)
        elif isinstance(result, ReceiverLimitedError) and not dispatch.ambiguous:
            self._book_receiver_limit(batch, dispatch, result)
        elif isinstance(result, LingyangError):
            self._record_failure(batch, dispatch, result)
        elif isinstance(result, Exception):
            dispatch.doubt.reason = type(result).__name__
            self._ending = self._ending or result

    def _record_failure(self, batch: BatchTally, dispatch: Dispatch, error: LingyangError) -> None:
        request = dispatch.request
        if isinstance(error, ReceiverLimitedError):
            dispatch.limited, again_in = error, None
        else:
            again_in = self._retry.delay(error, dispatch.attempts, idempotent=False)
        if again_in is not None:
            log.warning("%s: attempt %d: %s; again in %.1f s", request, dispatch.attempts, error, again_in)
            self._schedule.pause(again_in)
            self._requeue(batch, dispatch)
        elif provably_not_executed(error) and not dispatch.ambiguous:
            self._recorder.record_not_executed(batch, dispatch, error)
            if isinstance(error, ThrottledError) and (error.retry_after or 0) > LONGEST_WAIT:
                ending: Exception = self._schedule.defer_for(
                    (error.retry_after or 0) + 1, f"{request} was throttled: {error}"
                )
            else:
                ending = SubmissionStopped(
                    f"{request} was not executed: {error}", final=error.replay is not Replay.SAFE
                )
            self._ending = self._ending or ending
        else:
            log.warning("%s is in doubt: %s", request, error)
            self._doubt(dispatch, str(error), reason(error))

    def _doubt(self, dispatch: Dispatch, why: str, reason: str) -> None:
        """Have the recipients looked up that are in doubt of a request, once nothing is under way."""
        dispatch.why, dispatch.doubt.reason = why, reason
        dispatch.ambiguous = True
        self._in_doubt.append(dispatch)

    def _book_receiver_limit(
        self, batch: BatchTally, dispatch: Dispatch, error: ReceiverLimitedError
    ) -> None:
        """Book a refusal for a limit of one receiver: of several recipients the others may have been contacted."""
        dispatch.limited = error
        if len(dispatch.request.biz_ids) > 1:
            log.warning("%s is looked up: %s", dispatch.request, error)
            why = f"{error.facts}. Whether others of the request were contacted, only a look-up tells"
            self._doubt(dispatch, why, reason(error))
            return
        if self._broken_off:
            self._recorder.record_not_executed(batch, dispatch, error)
            return
        try:
            wait = self._limit.wait(error)
        except LedgerError as problem:
            self._recorder.record_not_executed(batch, dispatch, error)
            self._ending = self._ending or problem
            return
        if 0 < wait <= LONGEST_WAIT:
            log.warning("%s: %s; again in %.1f s", dispatch.request, error, wait)
            self._schedule.pause(wait)
            self._requeue(batch, dispatch)
        elif wait > 0:
            self._recorder.record_not_executed(batch, dispatch, error)
            self._ending = self._ending or self._schedule.defer_for(
                wait, f"{dispatch.request} was refused for a limit of its receiver: {error}"
            )
        elif split := self._limit.split_of(dispatch):
            # Whose limit it is, the others tell.
            log.warning("%s: %s", dispatch.request, error)
            split.refused.append(dispatch)
        else:
            self._recorder.record_not_executed(batch, dispatch, error)
            self._ending = self._ending or SubmissionStopped(
                f"{dispatch.request} was refused for a limit of its receiver or of the account, and [lingyang] "
                f"receiver_limit_patience ({self._policy.receiver_limit_patience:g} s) has passed: {error}"
            )

    def _reconcile(self, batch: BatchTally) -> None:
        """Find out about those in doubt, now that nothing is under way."""
        dispatches, self._in_doubt = self._in_doubt, []
        for dispatch, resolution in zip(dispatches, self._resolutions(dispatches), strict=True):
            if dispatch.limited is not None and (resolution.executed or resolution.unknown):
                # Not refused as a whole: what became of the rest of it, and when, nothing says.
                resolution.unknown = [each for each in dispatch.unknown if each not in resolution.executed]
                resolution.not_executed = []
            if resolution.executed or resolution.not_executed:
                self._recorder.record(
                    batch,
                    dispatch,
                    accepted=resolution.executed,
                    not_executed=resolution.not_executed,
                    in_doubt=resolution.unknown,
                )
            if self._reconciler is not None:
                log.info(
                    "%s was looked up: %d executed, %d not executed and sent again, %d in doubt",
                    dispatch.request,
                    len(resolution.executed),
                    len(resolution.not_executed),
                    len(resolution.unknown),
                )
            if resolution.not_executed:
                self._last_failure = dispatch.why
                self._free_again = True
                if dispatch.limited is None:
                    self._failed = True
                    self._queue.requeue(resolution.not_executed)
                else:
                    self._wait_or_split(dispatch)
            if not resolution.unknown:
                continue
            whole = len(resolution.unknown) == len(dispatch.request.biz_ids)
            may_repeat = self._policy.dedupes_by_code and dispatch.limited is None
            if may_repeat and whole and dispatch.attempts < self._policy.max_attempts:
                log.info(
                    "%s is sent again: the gateway executes a task_unique_code only once", dispatch.request
                )
                self._requeue(batch, dispatch)
            elif self._policy.on_in_doubt == "stop":
                what = "is in doubt" if whole else f"{len(resolution.unknown)} of its tasks are in doubt"
                self._ending = self._ending or SubmissionStopped(
                    f"{dispatch.request}{' ' if whole else ': '}{what}: {dispatch.why}",
                    final=self._reconciler is None and not self._policy.dedupes_by_code,
                )

    def _wait_or_split(self, dispatch: Dispatch) -> None:
        """Have a request sent again that was refused for a limit of one receiver, whole or one by one."""
        biz_ids, error = dispatch.request.biz_ids, dispatch.limited
        assert isinstance(error, ReceiverLimitedError)
        try:
            wait = self._limit.wait(error)
        except LedgerError as problem:
            self._ending = self._ending or problem
            return
        if wait <= 0:
            log.warning(
                "%s is sent one by one: [lingyang] receiver_limit_patience has passed", dispatch.request
            )
            self._limit.split(biz_ids)
            for biz_id in biz_ids:
                self._queue.requeue([biz_id])
            return
        self._queue.requeue(biz_ids)
        if wait <= LONGEST_WAIT:
            log.warning("%s: %s; again in %.1f s", dispatch.request, error, wait)
            self._schedule.pause(wait)
        else:
            self._manifest.add_reason("not_sent", reason(error), len(biz_ids))
            self._ending = self._ending or self._schedule.defer_for(
                wait, f"{dispatch.request} was refused for a limit of one receiver: {error}"
            )

    def _resolutions(self, dispatches: list[Dispatch]) -> list[Resolution]:
        requests = [
            UnresolvedRequest(
                dispatch.unknown,
                dispatch.intent.written_at,
                max(dispatch.ended_at + self._policy.lookup_settle, dispatch.settled_at),
            )
            for dispatch in dispatches
        ]
        resolutions = resolve(self._reconciler if self._ending is None else None, requests)
        self._check_stop()
        return resolutions

    def _requeue(self, batch: BatchTally, dispatch: Dispatch) -> None:
        """Make a request ready again."""
        if not dispatch.ambiguous:
            self._manifest.settle(dispatch.doubt, batch)
            dispatch.booked = None
        self._ready.appendleft(dispatch)
