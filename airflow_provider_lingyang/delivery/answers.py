"""What the answer to a request means: for its recipients, and for all that is sent after it."""

from __future__ import annotations

import logging

from airflow_provider_lingyang.delivery.dispatch import Dispatch, NotDispatched
from airflow_provider_lingyang.delivery.manifest import BatchTally
from airflow_provider_lingyang.delivery.open_requests import OpenRequests
from airflow_provider_lingyang.delivery.outcomes import OutcomeRecorder, provably_not_executed, reason
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.receiver_limit import ReceiverLimit
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.delivery.schedule import SendSchedule
from airflow_provider_lingyang.errors import LedgerError, SubmissionStopped
from airflow_provider_lingyang.gateway.errors import (
    LingyangError,
    ReceiverLimitedError,
    Replay,
    RequestRefusedError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.gateway.retry import LONGEST_WAIT, RetryPolicy

log = logging.getLogger(__name__)


class AnswerHandler:
    """Records what came of requests, and decides what is sent again, looked up, or ends the try.

    :param requests: gets a request back that is to be sent again or looked up.
    :param recorder: gets outcomes.
    :param limit: says how long a limit of one receiver is waited for.
    :param schedule: pauses after a throttle.
    """

    def __init__(
        self,
        requests: OpenRequests,
        recorder: OutcomeRecorder,
        limit: ReceiverLimit,
        schedule: SendSchedule,
        retry: RetryPolicy,
        policy: Policy,
    ) -> None:
        self._requests = requests
        self._recorder = recorder
        self._limit = limit
        self._schedule = schedule
        self._retry = retry
        self._policy = policy
        self.is_final = False
        """Whether the try ends: then no request waits for anything any more."""

    def handle(self, batch: BatchTally, dispatch: Dispatch, result: object) -> None:
        """Record the result of a sender thread: a receipt or an exception."""
        self._requests.dispatched.remove(dispatch)
        if isinstance(result, NotDispatched):
            self._requests.requeue(batch, dispatch)
            return
        dispatch.attempts += 1
        batch.requests += 1
        if isinstance(result, SubmitReceipt):
            if why := self._recorder.record_receipt(batch, dispatch, result):
                self._requests.look_up(dispatch, why, why)
        elif isinstance(result, ReceiverLimitedError):
            dispatch.limited = result
            if dispatch.state is RequestState.RETRIED:
                self._handle_error(batch, dispatch, result)
            else:
                self._handle_receiver_limit(batch, dispatch, result)
        elif isinstance(result, LingyangError):
            self._handle_error(batch, dispatch, result)
        elif isinstance(result, Exception):
            dispatch.doubt.reason = type(result).__name__
            self._requests.end(result)

    def _handle_error(self, batch: BatchTally, dispatch: Dispatch, error: LingyangError) -> None:
        request, event = dispatch.request, _event(error)
        state = transition(dispatch.state, event)
        again_in = self._retry.delay(error, dispatch.attempts, idempotent=False)
        if again_in is not None:
            log.warning("%s: attempt %d: %s; again in %.1f s", request, dispatch.attempts, error, again_in)
            self._schedule.pause(again_in)
            self._send_again(batch, dispatch)
        elif state is RequestState.REJECTED:
            log.warning("%s was refused: %s", request, error)
            self._recorder.record_rejected(batch, dispatch, error)
        elif state is RequestState.INTENDED:
            self._recorder.record_not_executed(batch, dispatch, error)
            if isinstance(error, ThrottledError) and (error.retry_after or 0) > LONGEST_WAIT:
                ending: Exception = self._schedule.defer_for(
                    (error.retry_after or 0) + 1, f"{request} was throttled: {error}"
                )
            else:
                ending = SubmissionStopped(
                    f"{request} was not executed: {error}", final=error.replay is not Replay.SAFE
                )
            self._requests.end(ending)
        else:
            log.warning("%s is in doubt: %s", request, error)
            dispatch.apply(event)
            self._requests.look_up(dispatch, str(error), reason(error))

    def _send_again(self, batch: BatchTally, dispatch: Dispatch) -> None:
        dispatch.apply(RequestEvent.NOT_EXECUTED)
        self._requests.requeue(batch, dispatch)

    def _handle_receiver_limit(
        self, batch: BatchTally, dispatch: Dispatch, error: ReceiverLimitedError
    ) -> None:
        """Handle a refusal for a limit of one receiver: of several recipients the others may have been contacted."""
        if len(dispatch.request.biz_ids) > 1:
            log.warning("%s is looked up: %s", dispatch.request, error)
            dispatch.apply(RequestEvent.UNANSWERED)
            why = f"{error.facts}. Whether others of the request were contacted, only a look-up tells"
            self._requests.look_up(dispatch, why, reason(error))
            return
        if self.is_final:
            self._recorder.record_not_executed(batch, dispatch, error)
            return
        try:
            wait = self._limit.wait(error)
        except LedgerError as problem:
            self._recorder.record_not_executed(batch, dispatch, error)
            self._requests.end(problem)
            return
        if 0 < wait <= LONGEST_WAIT:
            log.warning("%s: %s; again in %.1f s", dispatch.request, error, wait)
            self._schedule.pause(wait)
            self._send_again(batch, dispatch)
        elif wait > 0:
            self._recorder.record_not_executed(batch, dispatch, error)
            self._requests.end(
                self._schedule.defer_for(
                    wait, f"{dispatch.request} was refused for a limit of its receiver: {error}"
                )
            )
        elif split := self._limit.split_of(dispatch):
            # Whose limit it is, the others tell.
            log.warning("%s: %s", dispatch.request, error)
            split.refused.append(dispatch)
        else:
            self._recorder.record_not_executed(batch, dispatch, error)
            self._requests.end(
                SubmissionStopped(
                    f"{dispatch.request} was refused for a limit of its receiver or of the account, and [lingyang] "
                    f"receiver_limit_patience ({self._policy.receiver_limit_patience:g} s) has passed: {error}"
                )
            )


def _event(error: LingyangError) -> RequestEvent:
    """Return what an error says of its attempt."""
    if isinstance(error, RequestRefusedError):
        return RequestEvent.REFUSED
    return RequestEvent.NOT_EXECUTED if provably_not_executed(error) else RequestEvent.UNANSWERED
