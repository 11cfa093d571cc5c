"""Records outcomes of requests: in the manifest at once, in the ledger with the next write."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from airflow_provider_lingyang.delivery.dispatch import Dispatch
from airflow_provider_lingyang.delivery.ledger_writer import LedgerWriter
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.receiver_limit import ReceiverLimit
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.errors import SubmissionStopped
from airflow_provider_lingyang.gateway.errors import (
    CallRefusedError,
    LingyangConfigError,
    LingyangError,
    NotSentError,
    Replay,
    RequestInvalidError,
)
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.ledger.base import Outcome

log = logging.getLogger(__name__)


class OutcomeRecorder:
    """Records outcomes, so that manifest and ledger agree.

    :param manifest: true at any moment.
    :param writer: takes outcomes to the ledger.
    :param limit: knows which requests were split.
    """

    def __init__(self, manifest: Manifest, writer: LedgerWriter, limit: ReceiverLimit) -> None:
        self._manifest = manifest
        self._writer = writer
        self._limit = limit
        self._unproven = 0

    def record(
        self,
        batch: BatchTally,
        dispatch: Dispatch,
        evidence: Mapping[RequestEvent, Iterable[str]],
        task_ids: Mapping[str, int | None] = MappingProxyType({}),
    ) -> None:
        """Record the outcome of all recipients of a request that have none.

        :param evidence: what became known of which recipients.
        :param task_ids: of those executed, where they are known.
        """
        found: dict[RequestState, list[str]] = {}
        for event, biz_ids in evidence.items():
            found.setdefault(transition(dispatch.state, event), []).extend(biz_ids)
        outcome = Outcome(
            dispatch.request.task_unique_code,
            {biz_id: task_ids.get(biz_id) for biz_id in found.get(RequestState.ACCEPTED, ())},
            tuple(found.get(RequestState.REJECTED, ())),
            tuple(found.get(RequestState.PENDING, ())),
            tuple(found.get(RequestState.IN_DOUBT, ())),
        )
        self._manifest.settle(
            dispatch.doubt,
            batch,
            accepted=outcome.accepted,
            rejected=outcome.rejected,
            in_doubt=len(outcome.in_doubt),
        )
        dispatch.unknown = outcome.in_doubt
        if outcome.in_doubt:
            dispatch.state = RequestState.IN_DOUBT
        self._writer.add(outcome)
        for refused in self._limit.accepted(dispatch) if outcome.accepted else ():
            self.record_rejected(batch, refused, refused.limit)

    def record_rejected(self, batch: BatchTally, dispatch: Dispatch, error: LingyangError) -> None:
        """Record that all recipients of a request were rejected."""
        self.record(batch, dispatch, {RequestEvent.REFUSED: dispatch.request.biz_ids})
        self._manifest.add_reason("rejected", reason(error), len(dispatch.request.biz_ids))

    def record_not_executed(self, batch: BatchTally, dispatch: Dispatch, error: LingyangError) -> None:
        """Record that no recipient of a request was contacted, and that this try does not retry it."""
        dispatch.apply(RequestEvent.NOT_EXECUTED)
        self.record(batch, dispatch, {RequestEvent.RELEASED: dispatch.request.biz_ids})
        self._manifest.add_reason("not_sent", reason(error), len(dispatch.request.biz_ids))

    def record_receipt(self, batch: BatchTally, dispatch: Dispatch, receipt: SubmitReceipt) -> str | None:
        """Record a success.

        :return: why the recipients without an echo are in doubt; None: none is.
        """
        request, echoed = dispatch.request, receipt.task_ids
        accepted = [biz_id for biz_id in request.biz_ids if biz_id in echoed]
        missing = [biz_id for biz_id in request.biz_ids if biz_id not in echoed]
        strangers = receipt.count_unmatched(set(request.biz_ids))
        # Each echo is an execution; those that name no recipient of the request may be the missing ones.
        if strangers:
            log.warning(
                "%s: %d echoes match no recipient of the request (request_id %s)",
                request,
                strangers,
                receipt.request_id,
            )
        why = None
        if missing and strangers:
            why = "the answer echoes tasks that match no recipient of the request"
        elif missing and not accepted:
            why = "the answer says success and echoes no task"
        elif missing and dispatch.state is RequestState.RETRIED:
            why = "an earlier attempt may have been executed, and the answer to a later one does not echo all tasks"
        if why is not None:
            evidence = {RequestEvent.EXECUTED: accepted, RequestEvent.UNANSWERED: missing}
            self.record(batch, dispatch, evidence, echoed)
            return why
        evidence = {RequestEvent.EXECUTED: accepted, RequestEvent.REFUSED: missing}
        self.record(batch, dispatch, evidence, echoed)
        if missing:
            log.warning(
                "%s: %d tasks were not echoed, so not accepted (request_id %s)",
                request,
                len(missing),
                receipt.request_id,
            )
            self._manifest.add_reason("rejected", "not echoed by the gateway", len(missing))
        return None

    def release(self, dispatches: Iterable[Dispatch]) -> None:
        """Record that requests with an intent were not sent."""
        for dispatch in dispatches:
            if dispatch.apply(RequestEvent.RELEASED) is RequestState.PENDING:
                self._writer.add(
                    Outcome(dispatch.request.task_unique_code, {}, not_executed=dispatch.request.biz_ids)
                )

    def end_splits(self, batch: BatchTally) -> SubmissionStopped | None:
        """Release the recipients of a split request that no acceptance proves to be limited themselves.

        :return: why the campaign ends, where all were refused: the account is limited.
        """
        ending = None
        for split in self._limit.end():
            for dispatch in split.refused:
                self.record_not_executed(batch, dispatch, dispatch.limit)
            self._unproven += len(split.refused)
            if not split.accepted:
                ending = SubmissionStopped(
                    f"all {len(split.refused)} recipients of a request were refused, one by one, for a limit that is "
                    f"the account's therefore: {split.refused[-1].limit}"
                )
        return ending

    def check_limits(self) -> None:
        """Raise where recipients were refused for a limit that may be their own, and nothing proves it.

        :raises SubmissionStopped: they are to be sent by the next try.
        """
        if self._unproven:
            raise SubmissionStopped(
                f"{self._unproven} recipient(s) were refused for a limit of one receiver ([lingyang] "
                "receiver_limit_patience has passed), and nothing accepted after them proves whose limit it is: they "
                "were not sent, and the next try sends them again"
            )


def provably_not_executed(error: LingyangError) -> bool:
    """Whether an error of one attempt says by itself that nothing of the request was executed.

    What else could have produced each: ``NotSentError`` comes only from a connection that was not made, before the
    first byte; the two of settings and requests come before a connection is made; a refusal of the call is in the
    platform's table as made by a check before the backend; a throttle likewise.
    """
    never_sent = (NotSentError, CallRefusedError, LingyangConfigError, RequestInvalidError)
    return error.replay is Replay.SAFE or isinstance(error, never_sent)


def reason(error: LingyangError) -> str:
    """Return a reason that many requests can share: without ids of a single call."""
    code = " ".join(filter(None, (error.code, error.sub_code)))
    text = error.sub_msg or error.msg
    return error.message + (f" [{code}]" if code else "") + (f": {text}" if text else "")
