"""Drives requests through a sender, in order, and books what became of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from airflow_provider_lingyang.campaign.batches import BatchRequest
from airflow_provider_lingyang.campaign.manifest import BatchTally, Manifest
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
            "batch_num %s: %d tasks sent in %d requests, %d accepted, %d rejected",
            batch.batch_num,
            batch.tasks,
            batch.requests,
            batch.accepted,
            batch.rejected,
        )

    def _send_request(self, batch: BatchTally, request: BatchRequest) -> None:
        batch.requests += 1
        tasks = len(request.biz_ids)
        answered_before = self._manifest.accepted + self._manifest.rejected
        try:
            self._book_receipt(batch, request, self._send(request.struct))
        except RequestRefusedError as error:
            log.warning("%s was refused: %s", request, error)
            self._manifest.reject(tasks, _reason(error), batch)
        except LingyangError as error:
            if _provably_not_executed(error):
                self._manifest.because("not_sent", _reason(error), tasks)
                raise SubmissionStopped(f"{request} was not executed: {error}") from error
            self._book_in_doubt(request, tasks, _reason(error))
            raise SubmissionStopped(f"{request} is in doubt: {error}") from error
        except BaseException as error:
            # Killed, timed out, or a bug: whoever is not booked yet may have been contacted.
            booked = self._manifest.accepted + self._manifest.rejected - answered_before
            self._book_in_doubt(request, tasks - booked, type(error).__name__)
            raise

    def _book_receipt(self, batch: BatchTally, request: BatchRequest, receipt: SubmitReceipt) -> None:
        echoed = receipt.task_ids
        accepted = [biz_id for biz_id in request.biz_ids if biz_id in echoed]
        self._manifest.accept(accepted, batch)
        if missing := len(request.biz_ids) - len(accepted):
            log.warning(
                "%s: %d tasks were not echoed, so not accepted (request_id %s)",
                request,
                missing,
                receipt.request_id,
            )
            self._manifest.reject(missing, "not echoed by the gateway", batch)
        if strange := len(echoed.keys() - set(request.biz_ids)):
            log.warning(
                "%s: the gateway echoed %d biz_ids that were not sent (request_id %s)",
                request,
                strange,
                receipt.request_id,
            )

    def _book_in_doubt(self, request: BatchRequest, tasks: int, reason: str) -> None:
        self._manifest.in_doubt += tasks
        self._manifest.because("in_doubt", reason, tasks)
        self._manifest.in_doubt_requests.append(
            {"task_unique_code": request.task_unique_code, "batch_num": request.batch_num, "tasks": tasks}
        )


def _provably_not_executed(error: LingyangError) -> bool:
    never_sent = (NotSentError, CallRefusedError, LingyangConfigError, RequestInvalidError)
    return error.replay is Replay.SAFE or isinstance(error, never_sent)


def _reason(error: LingyangError) -> str:
    """A reason that many requests can share: without ids of a single call."""
    code = " ".join(filter(None, (error.code, error.sub_code)))
    text = error.sub_msg or error.msg
    return error.message + (f" [{code}]" if code else "") + (f": {text}" if text else "")
