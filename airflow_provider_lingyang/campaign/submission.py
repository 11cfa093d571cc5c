"""Drives requests through a sender, in order, and books what became of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from airflow_provider_lingyang.campaign.batches import BatchRequest
from airflow_provider_lingyang.campaign.manifest import BatchTally, Doubt, Manifest
from airflow_provider_lingyang.gateway.errors import (
    CallRefusedError,
    LingyangConfigError,
    LingyangError,
    NotSentError,
    Replay,
    RequestInvalidError,
    RequestRefusedError,
)
from airflow_provider_lingyang.gateway.protocol import SubmitReceipt

log = logging.getLogger(__name__)

Sender = Callable[[str], SubmitReceipt]
"""Sends the JSON of one request and returns what was accepted, or raises a ``LingyangError``."""


class SubmissionStopped(Exception):
    """The rest of the campaign was not sent. The text says where and why."""


class Stop:
    """A wait that ends when the task is told to stop.

    :param told: whether it was.
    """

    def __init__(
        self,
        told: Callable[[], bool],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.told = told
        self._monotonic = monotonic
        self._sleep = sleep

    def sleep(self, seconds: float) -> None:
        """Wait, but not on after the task was told to stop."""
        until = self._monotonic() + seconds
        # In slices: a signal handler sets a flag, and must not touch a lock that this thread may hold.
        while not self.told() and (left := until - self._monotonic()) > 0:
            self._sleep(min(left, 0.2))

    def sleep_before_attempt(self, seconds: float) -> None:
        """Wait before a request is repeated.

        :raises NotSentError: the task was told to stop.
        """
        self.sleep(seconds)
        if self.told():
            raise NotSentError("the task was told to stop before the next attempt", replay=Replay.NEVER)


class Pace:
    """At most so many requests a second.

    :param max_requests_per_second: None: as fast as they are answered.
    """

    def __init__(
        self,
        max_requests_per_second: float | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1 / max_requests_per_second if max_requests_per_second else 0.0
        self._monotonic = monotonic
        self._sleep = sleep
        self._next = monotonic()

    def wait(self) -> None:
        """Wait until the next request may leave."""
        if (delay := self._next - self._monotonic()) > 0:
            self._sleep(delay)
        self._next = max(self._next, self._monotonic()) + self._interval


class Submission:
    """Sends one campaign, one request at a time.

    :param send: sends one request.
    :param manifest: where every outcome is booked, before anything else happens.
    :param pace: holds requests back.
    :param stopped: whether the task was told to stop.
    """

    def __init__(self, send: Sender, manifest: Manifest, pace: Pace, stopped: Callable[[], bool]) -> None:
        self._send = send
        self._manifest = manifest
        self._pace = pace
        self._stopped = stopped

    def send_batch(self, batch: BatchTally, requests: Iterable[BatchRequest]) -> None:
        """Send the requests of one ``batch_num``; when it returns, each is answered.

        :raises SubmissionStopped: a request is in doubt, every further one would be refused, or the task
            is being stopped.
        """
        self._manifest.batches.append(batch)
        for request in requests:
            self._pace.wait()
            if self._stopped():
                raise SubmissionStopped(f"the task was told to stop before {request}")
            self._send_request(batch, request)
        log.info(
            "batch_num %s: tasks %d, requests %d, accepted %d, rejected %d",
            batch.batch_num,
            batch.tasks,
            batch.requests,
            batch.accepted,
            batch.rejected,
        )

    def _send_request(self, batch: BatchTally, request: BatchRequest) -> None:
        batch.requests += 1
        # In doubt before it leaves, and until something definite is known: whatever may be raised, wherever, by a
        # signal or a bug, nobody who may have been contacted is counted as not sent.
        doubt = self._manifest.doubt(request.task_unique_code, request.batch_num, len(request.biz_ids))
        try:
            receipt = self._send(request.struct)
        except RequestRefusedError as error:
            log.warning("%s was refused: %s", request, error)
            self._manifest.settle(doubt, batch, rejected=len(request.biz_ids))
            self._manifest.because("rejected", _reason(error), len(request.biz_ids))
        except LingyangError as error:
            if _provably_not_executed(error):
                self._manifest.settle(doubt, batch)
                self._manifest.because("not_sent", _reason(error), len(request.biz_ids))
                raise SubmissionStopped(f"{request} was not executed: {error}") from error
            doubt.reason = _reason(error)
            raise SubmissionStopped(f"{request} is in doubt: {error}") from error
        except BaseException as error:
            doubt.reason = type(error).__name__
            raise
        else:
            self._book_receipt(batch, request, receipt, doubt)

    def _book_receipt(
        self, batch: BatchTally, request: BatchRequest, receipt: SubmitReceipt, doubt: Doubt
    ) -> None:
        echoed = receipt.task_ids
        accepted = [biz_id for biz_id in request.biz_ids if biz_id in echoed]
        missing = len(request.biz_ids) - len(accepted)
        strangers = receipt.strangers(set(request.biz_ids))
        # Each echo is an execution; those that name nobody may be the missing ones.
        unclear = missing if strangers else 0
        self._manifest.settle(doubt, batch, accepted=accepted, rejected=missing - unclear, in_doubt=unclear)
        if strangers:
            log.warning(
                "%s: %d echoes are nobody's of the request (request_id %s)",
                request,
                strangers,
                receipt.request_id,
            )
        if unclear:
            doubt.reason = "the answer echoes tasks that cannot be told whose they are"
            raise SubmissionStopped(
                f"{request}: {unclear} of its tasks are in doubt: {doubt.reason} "
                f"(request_id {receipt.request_id})"
            )
        if missing:
            log.warning(
                "%s: %d tasks were not echoed, so not accepted (request_id %s)",
                request,
                missing,
                receipt.request_id,
            )
            self._manifest.because("rejected", "not echoed by the gateway", missing)


def _provably_not_executed(error: LingyangError) -> bool:
    never_sent = (NotSentError, CallRefusedError, LingyangConfigError, RequestInvalidError)
    return error.replay is Replay.SAFE or isinstance(error, never_sent)


def _reason(error: LingyangError) -> str:
    """A reason that many requests can share: without ids of a single call."""
    code = " ".join(filter(None, (error.code, error.sub_code)))
    text = error.sub_msg or error.msg
    return error.message + (f" [{code}]" if code else "") + (f": {text}" if text else "")
