"""The requests of a submission that have no outcome yet, and what ends the sending."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from airflow_provider_lingyang.delivery.dispatch import Dispatch
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.request_state import RequestState
from airflow_provider_lingyang.delivery.send_queue import SendQueue


class OpenRequests:
    """Open requests by what they wait for: to be sent, for a sender thread, or to be looked up.

    :param manifest: a request is in doubt there from before it is sent.
    :param queue: gets recipients back that were not executed.
    """

    def __init__(self, manifest: Manifest, queue: SendQueue) -> None:
        self._manifest = manifest
        self._queue = queue
        self.ready: deque[Dispatch] = deque()
        """To be sent, in order; the last ones have no intent yet while it is being written."""
        self.dispatched: list[Dispatch] = []
        """With a sender thread: it connects, sends, or waits for the answer."""
        self.in_doubt: list[Dispatch] = []
        """To be looked up once none is with a sender thread."""
        self.ending: BaseException | None = None
        """Why no request may be sent any more."""
        self.has_requeued = False
        """Whether recipients of this round are to be sent again in the next one."""
        self.has_failed = False
        """Whether one was not executed for another reason than a limit, which is waited for up to a ceiling."""
        self.last_failure = ""

    @property
    def intended(self) -> list[Dispatch]:
        """Those that are ready and have their intent."""
        return [each for each in self.ready if each.fresh_until]

    @property
    def unwritten(self) -> list[Dispatch]:
        """Those that are ready but for their intent."""
        return [each for each in self.ready if not each.fresh_until]

    def begin_round(self) -> None:
        """Begin a round of a batch: its requests, then those of recipients that were not executed, and so on."""
        self.has_requeued = self.has_failed = False

    def end(self, error: BaseException) -> None:
        """Let no request be sent any more; the first error ends the try."""
        self.ending = self.ending or error

    def book(self, dispatch: Dispatch) -> None:
        """Book a request as in doubt before it is sent, until something definite is known.

        Whatever may be raised, wherever, by a signal or a bug: a recipient that may have been contacted is never
        counted as not sent.
        """
        dispatch.booked = dispatch.booked or self._manifest.doubt(
            dispatch.request.task_unique_code, dispatch.request.batch_num, len(dispatch.request.biz_ids)
        )

    def requeue(self, batch: BatchTally, dispatch: Dispatch) -> None:
        """Have a request sent again: the same one, before all others."""
        if dispatch.state is RequestState.INTENDED:
            self._manifest.settle(dispatch.doubt, batch)
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
        self.has_requeued = True
        self.has_failed |= failed
        self.last_failure = after.why
        for biz_ids in groups:
            self._queue.requeue(biz_ids)
