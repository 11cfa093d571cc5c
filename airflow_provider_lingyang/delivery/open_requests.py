"""The requests of a submission: what each waits for, and what becomes of it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from airflow_provider_lingyang.delivery.dispatch import Dispatch
from airflow_provider_lingyang.delivery.ledger_writer import LedgerWriter
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.receiver_limit import ReceiverLimit
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.errors import SubmissionStopped
from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt
from airflow_provider_lingyang.ledger.base import Outcome

log = logging.getLogger(__name__)

_NOT_ECHOED = "not echoed by the gateway"


@dataclass(slots=True)
class OpenRequests:
    """Open requests by what they wait for: to be sent, for a sender thread, or to be looked up.

    What becomes of one is in the manifest at once, and in the ledger with the next write: so they agree.

    :param manifest: true at any moment; a request is in doubt there from before it is sent.
    :param queue: gets recipients back that were not executed.
    :param writer: takes outcomes to the ledger.
    :param limit: knows which requests were split.
    """

    manifest: Manifest
    queue: SendQueue
    writer: LedgerWriter
    limit: ReceiverLimit
    batch: BatchTally = field(init=False)
    """What all of them are of; set by the dispatcher before it sends the batch."""
    ready: deque[Dispatch] = field(default_factory=deque)
    """To be sent, in order; the last ones have no intent yet while it is being written."""
    dispatched: list[Dispatch] = field(default_factory=list)
    """With a sender thread: it connects, sends, or waits for the answer."""
    in_doubt: list[Dispatch] = field(default_factory=list)
    """To be looked up once none is with a sender thread."""
    ending: BaseException | None = None
    """Why no request may be sent any more."""
    has_failed: bool = False
    """Whether one was not executed in this round for another reason than a limit, which is waited for."""
    last_failure: str = ""
    unproven: int = 0
    """Recipients that were refused for a limit of which nothing tells whose it is."""

    @property
    def intended(self) -> list[Dispatch]:
        """Those that are ready and have their intent."""
        return [each for each in self.ready if each.fresh_until]

    @property
    def unwritten(self) -> list[Dispatch]:
        """Those that are ready but for their intent."""
        return [each for each in self.ready if not each.fresh_until]

    def end(self, error: BaseException) -> None:
        """Let no request be sent any more; the first error ends the try."""
        self.ending = self.ending or error

    def book(self, dispatch: Dispatch) -> None:
        """Book a request as in doubt before it is sent, until something definite is known.

        Whatever may be raised, wherever, by a signal or a bug: a recipient that may have been contacted is never
        counted as not sent.
        """
        dispatch.booked = dispatch.booked or self.manifest.doubt(
            dispatch.request.task_unique_code, dispatch.request.batch_num, len(dispatch.request.biz_ids)
        )

    def requeue(self, dispatch: Dispatch) -> None:
        """Have a request sent again: the same one, before all others."""
        if dispatch.state is RequestState.INTENDED:
            self.manifest.settle(dispatch.doubt, self.batch)
            dispatch.booked = None
        self.ready.appendleft(dispatch)

    def look_up(self, dispatch: Dispatch, why: str, reason: str) -> None:
        """Have the recipients looked up that are in doubt of a request.

        :param reason: the same for many requests, for the manifest.
        """
        dispatch.why, dispatch.doubt.reason = why, reason
        self.in_doubt.append(dispatch)

    def next_round(self, *groups: Sequence[str], after: Dispatch, failed: bool = False) -> None:
        """Have recipients sent again in new requests, each group in one.

        :param after: the request that was not executed.
        :param failed: whether it counts as a failure of this round.
        """
        self.has_failed |= failed
        self.last_failure = after.why
        for biz_ids in groups:
            self.queue.requeue(biz_ids)

    def record(
        self,
        dispatch: Dispatch,
        evidence: Mapping[RequestEvent, Iterable[str]],
        task_ids: Mapping[str, int | None] = MappingProxyType({}),
        *,
        why: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """Record the outcome of all recipients of a request that have none.

        :param evidence: what became known of which recipients.
        :param task_ids: of those executed, where they are known.
        :param why: the reason for those not executed, for the ledger. Default None: none is known.
        :param request_id: of the answer. Default None: it had none.
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
            why,
            request_id,
        )
        self.manifest.settle(
            dispatch.doubt,
            self.batch,
            accepted=outcome.accepted,
            rejected=outcome.rejected,
            in_doubt=len(outcome.in_doubt),
        )
        dispatch.in_doubt = outcome.in_doubt
        if outcome.in_doubt:
            dispatch.state = RequestState.IN_DOUBT
        self.writer.outcomes.append(outcome)
        for refused in self.limit.accepted(dispatch) if outcome.accepted else ():
            self.record_rejected(refused, refused.limit)

    def record_rejected(self, dispatch: Dispatch, error: LingyangError) -> None:
        """Record that all recipients of a request were rejected."""
        self._record_all(dispatch, RequestEvent.REFUSED, error)
        self.manifest.add_reason("rejected", reason(error), len(dispatch.request.biz_ids))

    def record_not_executed(self, dispatch: Dispatch, error: LingyangError) -> None:
        """Record that no recipient of a request was contacted, and that this try does not retry it."""
        dispatch.apply(RequestEvent.NOT_EXECUTED)
        self._record_all(dispatch, RequestEvent.RELEASED, error)
        self.manifest.add_reason("not_sent", reason(error), len(dispatch.request.biz_ids))

    def _record_all(self, dispatch: Dispatch, event: RequestEvent, error: LingyangError) -> None:
        evidence = {event: dispatch.request.biz_ids}
        self.record(dispatch, evidence, why=reason(error), request_id=error.request_id)

    def record_receipt(self, dispatch: Dispatch, receipt: SubmitReceipt) -> str | None:
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
        of_missing = RequestEvent.REFUSED if why is None else RequestEvent.UNANSWERED
        self.record(
            dispatch,
            {RequestEvent.EXECUTED: accepted, of_missing: missing},
            echoed,
            why=why or _NOT_ECHOED,
            request_id=receipt.request_id,
        )
        if missing and why is None:
            log.warning(
                "%s: %d tasks were not echoed, so not accepted (request_id %s)",
                request,
                len(missing),
                receipt.request_id,
            )
            self.manifest.add_reason("rejected", _NOT_ECHOED, len(missing))
        return why

    def release(self) -> None:
        """Record that the requests that are ready are not sent."""
        for dispatch in self.ready:
            if dispatch.apply(RequestEvent.RELEASED) is RequestState.PENDING:
                self.writer.outcomes.append(
                    Outcome(
                        dispatch.request.task_unique_code,
                        {},
                        not_executed=dispatch.request.biz_ids,
                        reason=self.manifest.not_sent_reason,
                    )
                )
        self.ready.clear()

    def end_splits(self) -> None:
        """Release the recipients of a split request that no acceptance proves to be limited themselves.

        Where all were refused, the account is limited: that ends the try.
        """
        for split in self.limit.end():
            for dispatch in split.refused:
                self.record_not_executed(dispatch, dispatch.limit)
            self.unproven += len(split.refused)
            if not split.accepted:
                self.end(
                    SubmissionStopped(
                        f"all {len(split.refused)} recipients of a request were refused, one by one, for a limit that "
                        f"is the account's therefore: {split.refused[-1].limit}"
                    )
                )


def reason(error: LingyangError) -> str:
    """Return a reason that many requests can share: without ids of a single call."""
    code = " ".join(filter(None, (error.code, error.sub_code)))
    text = error.sub_msg or error.msg
    return error.message + (f" [{code}]" if code else "") + (f": {text}" if text else "")
