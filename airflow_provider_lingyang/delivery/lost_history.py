"""What earlier tries did of which the ledger knows nothing: looked up recipient by recipient, or said by a person."""

from __future__ import annotations

import json
import logging

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.delivery.lost_ledger import LostLedger
from airflow_provider_lingyang.delivery.manifest import Manifest, UnknownRequest
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.reconciler import Reconciler, UnresolvedRequest, resolve
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.delivery.requests import RequestBuilder
from airflow_provider_lingyang.errors import LedgerRefusedError, SubmissionStopped
from airflow_provider_lingyang.identity import LOST_LEDGER, digest
from airflow_provider_lingyang.ledger.base import WAITS_FOR_OTHERS, WRITTEN_WITHIN, Intent, Ledger, Outcome
from airflow_provider_lingyang.storage.database import portions

log = logging.getLogger(__name__)

_LOOKED_UP = 1000
_PORTION, _OF_AN_ID = 40_000, 24
"""Bytes of ids in one entry of a ledger, and what one id needs beside itself or as a key instead of itself."""


class LostHistory:
    """Accounts for earlier tries that the ledger does not know.

    :param reconciler: None: no look-up is configured.
    """

    def __init__(
        self,
        builder: RequestBuilder,
        ledger: Ledger,
        manifest: Manifest,
        policy: Policy,
        reconciler: Reconciler | None,
        cancellation: Cancellation,
    ) -> None:
        self._builder = builder
        self._queue = builder.queue
        self._ledger = ledger
        self._manifest = manifest
        self._policy = policy
        self._reconciler = reconciler
        self._cancellation = cancellation

    def resolve(self, claimed_at: float, lost: LostLedger, *, is_settled: bool) -> None:
        """Find out which recipients earlier tries reached, or take a person's word that they reached none.

        :param claimed_at: monotonic seconds, not before earlier tries of this task instance could write nothing more.
        :param is_settled: a person says that earlier tries sent nothing: a recipient without a result is free.
        :raises LedgerRefusedError: nothing can tell what earlier tries sent.
        :raises SubmissionStopped: the task was asked to stop.
        :raises LedgerError: the ledger cannot be written.
        """
        doubt = self._manifest.doubt(LOST_LEDGER, None, self._queue.count_in_state(RequestState.PENDING))
        doubt.reason = "the ledger knows nothing of earlier tries"
        others_until = claimed_at + self._policy.open_for + WRITTEN_WITHIN
        # Its key is shown once nothing can make a word about it false any more.
        self._manifest.lost_key = ""
        interrupted = SubmissionStopped(
            "the task was asked to stop before it had found out which recipients earlier tries reached; the ledger "
            "knows nothing of them, and this try sent nothing"
        )
        try:
            if self._reconciler is not None:
                self._look_up(claimed_at, lost, doubt, is_settled=is_settled)
            elif not is_settled:
                raise LedgerRefusedError(str(lost))
        except LedgerRefusedError:
            # Before it asks for a word: what is found out from then on stays true.
            if self._ledger.others_may_run:
                if not self._cancellation.sleep_until(others_until, WAITS_FOR_OTHERS):
                    raise interrupted from None
                self._ledger.end_others(())
            self._manifest.lost_key = lost.key
            raise
        if self._reconciler is None:
            if self._ledger.others_may_run and not self._cancellation.sleep_until(
                others_until, WAITS_FOR_OTHERS
            ):
                raise interrupted
            log.warning("settle says that earlier tries, of which the ledger knows nothing, sent nothing")
        self._manifest.doubts.remove(doubt)

    def _look_up(
        self, claimed_at: float, lost: LostLedger, doubt: UnknownRequest, *, is_settled: bool
    ) -> None:
        """Look every recipient up, and write the executed ones down.

        :param is_settled: a person says that earlier tries sent nothing: a recipient that is not found is free.
        :raises LedgerRefusedError: of some recipients nothing tells.
        """
        if self._queue.audience.derived() and not is_settled:
            raise LedgerRefusedError(
                f"{lost}. (Nothing was looked up: the ids of recipients without a biz_id are derived, and under "
                "another App secret, or another version of this package, those of earlier tries were others.)"
            )
        log.warning(
            "the ledger knows nothing of earlier tries of this task, so every recipient is looked up first"
        )
        settled_at = claimed_at + self._policy.open_for + max(WRITTEN_WITHIN, self._policy.lookup_settle)
        for biz_ids in self._queue.pending_ids(_LOOKED_UP):
            (resolution,) = resolve(self._reconciler, [UnresolvedRequest(biz_ids, 0.0, settled_at)])
            if resolution.unknown and self._cancellation.requested():
                raise SubmissionStopped(
                    "the task was asked to stop while it looked up which recipients earlier tries reached; the "
                    "ledger knows nothing of them, and this try sent nothing"
                )
            if resolution.found:
                raise LedgerRefusedError(
                    f"{lost}. (The look-up found {len(resolution.found)} recipient(s) with a result whose created_at "
                    "cannot be placed, so it may be of an earlier try, whatever settle says: correct created_at_field "
                    "in the result_query.)"
                )
            if resolution.unknown and not is_settled:
                raise LedgerRefusedError(f"{lost}. (The look-up gave no answer that counts.)")
            if resolution.executed:
                # However long the ids are: an entry must fit into one value of the task state store.
                for found in portions(
                    resolution.executed, lambda each: len(json.dumps(each)) + _OF_AN_ID, _PORTION
                ):
                    # Not another try's or worker's code: what that one found must not be written over.
                    code = self._builder.identity.code(
                        digest("found", *self._manifest.source.values(), *found)
                    )
                    self._ledger.write([], [Intent(code, None, found, "", 0.0)])
                    self._ledger.write(
                        [Outcome(code, {biz_id: resolution.executed[biz_id] for biz_id in found})], []
                    )
                accepted = transition(RequestState.IN_DOUBT, RequestEvent.EXECUTED)
                self._queue.set_state(resolution.executed, accepted)
                doubt.tasks -= len(resolution.executed)
