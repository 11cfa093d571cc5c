"""Requests in doubt, once nothing is under way: looked up, then recorded, sent again, or left in doubt."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from airflow_provider_lingyang.delivery.dispatch import Dispatch
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.open_requests import OpenRequests
from airflow_provider_lingyang.delivery.outcomes import OutcomeRecorder, reason
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.receiver_limit import ReceiverLimit
from airflow_provider_lingyang.delivery.reconciler import Reconciler, Resolution, UnresolvedRequest, resolve
from airflow_provider_lingyang.delivery.request_state import RequestEvent
from airflow_provider_lingyang.delivery.schedule import SendSchedule
from airflow_provider_lingyang.errors import LedgerError, SubmissionStopped
from airflow_provider_lingyang.gateway.retry import LONGEST_WAIT

log = logging.getLogger(__name__)


class Reconciliation:
    """Settles the requests in doubt of this try.

    :param requests: holds them, and gets back what is sent again.
    :param recorder: gets outcomes.
    :param reconciler: None: no look-up is configured.
    """

    def __init__(
        self,
        requests: OpenRequests,
        recorder: OutcomeRecorder,
        limit: ReceiverLimit,
        schedule: SendSchedule,
        manifest: Manifest,
        policy: Policy,
        reconciler: Reconciler | None,
    ) -> None:
        self._requests = requests
        self._recorder = recorder
        self._limit = limit
        self._schedule = schedule
        self._manifest = manifest
        self._policy = policy
        self._reconciler = reconciler

    def look_up(self, dispatches: Sequence[Dispatch]) -> list[Resolution]:
        """Return what is proven about requests; nothing where the try ends."""
        return resolve(
            self._reconciler if self._requests.ending is None else None,
            [
                UnresolvedRequest(
                    dispatch.unknown,
                    dispatch.intent.written_at,
                    max(dispatch.ended_at + self._policy.lookup_settle, dispatch.settled_at),
                )
                for dispatch in dispatches
            ],
        )

    def settle(self, batch: BatchTally, dispatch: Dispatch, resolution: Resolution) -> None:
        """Record what is proven about a request; have it sent again, or end the try, as the policy says."""
        if dispatch.limited is not None and (resolution.executed or resolution.unknown):
            # Not refused as a whole: what became of the rest of it, and when, nothing says.
            resolution.unknown = [each for each in dispatch.unknown if each not in resolution.executed]
            resolution.not_executed = []
        if resolution.executed or resolution.not_executed:
            evidence = {
                RequestEvent.EXECUTED: resolution.executed,
                RequestEvent.ABSENT: resolution.not_executed,
                RequestEvent.UNANSWERED: resolution.unknown,
            }
            self._recorder.record(batch, dispatch, evidence, resolution.executed)
        if self._reconciler is not None:
            log.info(
                "%s was looked up: %d executed, %d not executed and sent again, %d in doubt",
                dispatch.request,
                len(resolution.executed),
                len(resolution.not_executed),
                len(resolution.unknown),
            )
        if resolution.not_executed:
            if dispatch.limited is None:
                self._requests.next_round(resolution.not_executed, after=dispatch, failed=True)
            else:
                self._wait_or_split(dispatch)
        if resolution.unknown:
            self._retry_or_end(batch, dispatch, resolution.unknown)

    def _retry_or_end(self, batch: BatchTally, dispatch: Dispatch, unknown: Sequence[str]) -> None:
        whole = len(unknown) == len(dispatch.request.biz_ids)
        may_repeat = self._policy.dedupes_by_code and dispatch.limited is None
        if may_repeat and whole and dispatch.attempts < self._policy.max_attempts:
            log.info("%s is sent again: the gateway executes a task_unique_code only once", dispatch.request)
            self._requests.requeue(batch, dispatch)
        elif self._policy.on_in_doubt == "stop":
            what = "is in doubt" if whole else f"{len(unknown)} of its tasks are in doubt"
            self._requests.end(
                SubmissionStopped(
                    f"{dispatch.request}{' ' if whole else ': '}{what}: {dispatch.why}",
                    final=self._reconciler is None and not self._policy.dedupes_by_code,
                )
            )

    def _wait_or_split(self, dispatch: Dispatch) -> None:
        """Have a request sent again that was refused for a limit of one receiver, whole or one by one."""
        biz_ids, error = dispatch.request.biz_ids, dispatch.limit
        try:
            wait = self._limit.wait(error)
        except LedgerError as problem:
            self._requests.next_round(after=dispatch)
            self._requests.end(problem)
            return
        if wait <= 0:
            log.warning(
                "%s is sent one by one: [lingyang] receiver_limit_patience has passed", dispatch.request
            )
            self._limit.split(biz_ids)
            self._requests.next_round(*([biz_id] for biz_id in biz_ids), after=dispatch)
            return
        self._requests.next_round(biz_ids, after=dispatch)
        if wait <= LONGEST_WAIT:
            log.warning("%s: %s; again in %.1f s", dispatch.request, error, wait)
            self._schedule.pause(wait)
        else:
            self._manifest.add_reason("not_sent", reason(error), len(biz_ids))
            self._requests.end(
                self._schedule.defer_for(
                    wait, f"{dispatch.request} was refused for a limit of one receiver: {error}"
                )
            )
