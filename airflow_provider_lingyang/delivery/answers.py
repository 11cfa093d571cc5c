"""What an answer, or a look-up after it, means: for the recipients of its request, and for all that is sent later."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_lingyang.delivery.dispatch import Dispatch, NotDispatched
from airflow_provider_lingyang.delivery.open_requests import OpenRequests, reason
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.reconciler import Reconciler, Resolution, UnresolvedRequest, resolve
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.delivery.schedule import SendSchedule
from airflow_provider_lingyang.errors import LedgerError, SubmissionStopped
from airflow_provider_lingyang.gateway.attempts import LONGEST_WAIT, Ban, RetryPolicy
from airflow_provider_lingyang.gateway.errors import (
    CallRefusedError,
    LingyangConfigError,
    LingyangError,
    NotSentError,
    ReceiverLimitedError,
    Replay,
    RequestInvalidError,
    RequestRefusedError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt

log = logging.getLogger(__name__)


@dataclass(slots=True)
class AnswerHandler:
    """Records what came of requests, and decides what is sent again, looked up, or ends the try.

    :param requests: gets outcomes, and a request back that is to be sent again or looked up.
    :param schedule: pauses after a throttle.
    :param reconciler: None: no look-up is configured.
    :param is_final: whether the try ends: then no request waits for anything any more.
    """

    requests: OpenRequests
    schedule: SendSchedule
    retry: RetryPolicy
    policy: Policy
    reconciler: Reconciler | None
    is_final: bool = False

    def handle(self, dispatch: Dispatch, result: object) -> None:
        """Record the result of a sender thread: a receipt or an exception."""
        self.requests.dispatched.remove(dispatch)
        if isinstance(result, NotDispatched):
            self.requests.requeue(dispatch)
            return
        dispatch.attempts += 1
        self.requests.batch.requests += 1
        if isinstance(result, SubmitReceipt):
            if why := self.requests.record_receipt(dispatch, result):
                self.requests.look_up(dispatch, why, why)
        elif isinstance(result, ReceiverLimitedError):
            dispatch.limited = result
            if dispatch.state is RequestState.RETRIED:
                self._handle_error(dispatch, result)
            else:
                self._handle_receiver_limit(dispatch, result)
        elif isinstance(result, LingyangError):
            self._handle_error(dispatch, result)
        elif isinstance(result, Exception):
            dispatch.doubt.reason = type(result).__name__
            self.requests.end(result)

    def _handle_error(self, dispatch: Dispatch, error: LingyangError) -> None:
        request, event = dispatch.request, _event(error)
        state = transition(dispatch.state, event)
        again_in = self.retry.delay(error, dispatch.attempts, idempotent=False)
        if (ban := Ban.of(error)) is not None:
            self.schedule.ban(ban)
        if again_in is not None:
            log.warning("%s: attempt %d: %s; again in %.1f s", request, dispatch.attempts, error, again_in)
            self.schedule.limiter.pause(again_in)
            self._send_again(dispatch)
        elif state is RequestState.REJECTED:
            log.warning("%s was refused: %s", request, error)
            self.requests.record_rejected(dispatch, error)
        elif state is RequestState.INTENDED:
            self.requests.record_not_executed(dispatch, error)
            if isinstance(error, ThrottledError) and (error.retry_after or 0) > LONGEST_WAIT:
                ending: Exception = self.schedule.defer_for(
                    (error.retry_after or 0) + 1, f"{request} was throttled: {error}"
                )
            else:
                ending = SubmissionStopped(
                    f"{request} was not executed: {error}", final=error.replay is not Replay.SAFE
                )
            self.requests.end(ending)
        else:
            log.warning("%s is in doubt: %s", request, error)
            dispatch.apply(event)
            self.requests.look_up(dispatch, str(error), reason(error))

    def _send_again(self, dispatch: Dispatch) -> None:
        dispatch.apply(RequestEvent.NOT_EXECUTED)
        self.requests.requeue(dispatch)

    def _handle_receiver_limit(self, dispatch: Dispatch, error: ReceiverLimitedError) -> None:
        """Handle a refusal for a limit of one receiver: of several recipients the others may have been contacted."""
        if len(dispatch.request.biz_ids) > 1:
            log.warning("%s is looked up: %s", dispatch.request, error)
            dispatch.apply(RequestEvent.UNANSWERED)
            why = f"{error.facts}. Whether others of the request were contacted, only a look-up tells"
            self.requests.look_up(dispatch, why, reason(error))
            return
        if self.is_final:
            self.requests.record_not_executed(dispatch, error)
            return
        wait = self._pause_for_limit(dispatch)
        if wait is not None and 0 < wait <= LONGEST_WAIT:
            self._send_again(dispatch)
        elif wait == 0 and (split := self.requests.limit.split_of(dispatch)):
            # Whose limit it is, the others tell.
            log.warning("%s: %s", dispatch.request, error)
            split.refused.append(dispatch)
        else:
            self.requests.record_not_executed(dispatch, error)
            if wait == 0:
                self.requests.end(
                    SubmissionStopped(
                        f"{dispatch.request} was refused for a limit of its receiver or of the account, and [lingyang] "
                        f"receiver_limit_patience ({self.policy.receiver_limit_patience:g} s) has passed: {error}"
                    )
                )

    def _pause_for_limit(self, dispatch: Dispatch) -> float | None:
        """Pause for a limit of one receiver, or end the try where that takes too long.

        :return: seconds of the pause, over ``LONGEST_WAIT`` where the try ends; 0: the patience for limits has passed;
            None: the try ends, since the ledger is away.
        """
        request, error = dispatch.request, dispatch.limit
        try:
            wait = self.requests.limit.wait(error)
        except LedgerError as problem:
            self.requests.end(problem)
            return None
        if wait > LONGEST_WAIT:
            why = f"{request} was refused for a limit of one receiver: {error}"
            self.requests.end(self.schedule.defer_for(wait, why))
        elif wait > 0:
            log.warning("%s: %s; again in %.1f s", request, error, wait)
            self.schedule.limiter.pause(wait)
        return wait

    def look_up(self, dispatches: Sequence[Dispatch]) -> list[Resolution]:
        """Return what is proven about requests in doubt, once none is under way; nothing where the try ends."""
        return resolve(
            self.reconciler if self.requests.ending is None else None,
            [
                UnresolvedRequest(
                    dispatch.in_doubt,
                    dispatch.intent.written_at,
                    max(dispatch.ended_at + self.policy.lookup_settle, dispatch.settled_at),
                )
                for dispatch in dispatches
            ],
        )

    def settle(self, dispatch: Dispatch, resolution: Resolution) -> None:
        """Record what is proven about a request; have it sent again, or end the try, as the policy says."""
        if dispatch.limited is not None and (resolution.executed or resolution.in_doubt):
            # Not refused as a whole: what became of the rest of it, and when, nothing says.
            resolution.in_doubt = [each for each in dispatch.in_doubt if each not in resolution.executed]
            resolution.not_executed = []
        if resolution.executed or resolution.not_executed:
            evidence = {
                RequestEvent.EXECUTED: resolution.executed,
                RequestEvent.ABSENT: resolution.not_executed,
                RequestEvent.UNANSWERED: resolution.in_doubt,
            }
            why = None if resolution.in_doubt else RequestEvent.ABSENT.value
            self.requests.record(dispatch, evidence, resolution.executed, why=why)
        if self.reconciler is not None:
            log.info(
                "%s was looked up: %d executed, %d not executed and sent again, %d in doubt",
                dispatch.request,
                len(resolution.executed),
                len(resolution.not_executed),
                len(resolution.in_doubt),
            )
        if resolution.not_executed:
            if dispatch.limited is None:
                self.requests.next_round(resolution.not_executed, after=dispatch, failed=True)
            else:
                self._wait_or_split(dispatch)
        if resolution.in_doubt:
            self._retry_or_end(dispatch, resolution.in_doubt)

    def _retry_or_end(self, dispatch: Dispatch, in_doubt: Sequence[str]) -> None:
        whole = len(in_doubt) == len(dispatch.request.biz_ids)
        may_repeat = self.policy.dedupes_by_code and dispatch.limited is None
        if may_repeat and whole and dispatch.attempts < self.policy.max_attempts:
            log.info("%s is sent again: the gateway executes a task_unique_code only once", dispatch.request)
            self.requests.requeue(dispatch)
        elif self.policy.on_in_doubt == "stop":
            what = "is in doubt" if whole else f"{len(in_doubt)} of its tasks are in doubt"
            self.requests.end(
                SubmissionStopped(
                    f"{dispatch.request}{' ' if whole else ': '}{what}: {dispatch.why}",
                    final=self.reconciler is None and not self.policy.dedupes_by_code,
                )
            )

    def _wait_or_split(self, dispatch: Dispatch) -> None:
        """Have a request sent again that was refused for a limit of one receiver, whole or one by one."""
        biz_ids, wait = dispatch.request.biz_ids, self._pause_for_limit(dispatch)
        if wait == 0:
            log.warning(
                "%s is sent one by one: [lingyang] receiver_limit_patience has passed", dispatch.request
            )
            self.requests.limit.split(biz_ids)
            self.requests.next_round(*([biz_id] for biz_id in biz_ids), after=dispatch)
            return
        self.requests.next_round(biz_ids, after=dispatch)
        if wait is not None and wait > LONGEST_WAIT:
            self.requests.manifest.add_reason("not_sent", reason(dispatch.limit), len(biz_ids))


def _event(error: LingyangError) -> RequestEvent:
    """Return what an error says of its attempt."""
    if isinstance(error, RequestRefusedError):
        return RequestEvent.REFUSED
    return RequestEvent.NOT_EXECUTED if provably_not_executed(error) else RequestEvent.UNANSWERED


def provably_not_executed(error: LingyangError) -> bool:
    """Whether an error of one attempt says by itself that nothing of the request was executed.

    What else could have produced each: ``NotSentError`` comes only from a connection that was not made, before the
    first byte; the two of settings and requests come before a connection is made; a refusal of the call is in the
    platform's table as made by a check before the backend; a throttle likewise.
    """
    never_sent = (NotSentError, CallRefusedError, LingyangConfigError, RequestInvalidError)
    return error.replay is Replay.SAFE or isinstance(error, never_sent)
