"""A ledger that knows nothing of tries that Airflow knows of: what they did is looked up, or said by a person."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.delivery.manifest import Manifest, RequestInDoubt
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.reconciler import Reconciler, UnresolvedRequest, resolve
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.delivery.requests import RequestBuilder
from airflow_provider_lingyang.errors import LedgerRefusedError, SubmissionStopped
from airflow_provider_lingyang.identity import LOST_LEDGER, digest, lost_key
from airflow_provider_lingyang.ledger.base import WAITS_FOR_OTHERS, WRITTEN_WITHIN, Intent, Ledger, Outcome
from airflow_provider_lingyang.storage.database import portions

log = logging.getLogger(__name__)

_LOOKED_UP = 1000
_PORTION, _OF_AN_ID = 40_000, 24
"""Bytes of ids in one entry of a ledger, and what one id needs beside itself or as a key instead of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LostLedger:
    """What a try knows that has come too late to its ledger.

    :param try_number: of this try.
    :param campaign_key: of this campaign, and which of its task instances this is where there are several.
    :param cause: how its kind of ledger gets lost.
    :param next_time: how not to lose it; empty: nothing to say.
    :param settled_by_next_try: whether a word that the try before has asked for counts in this one.
    :param begun_at: since when an earlier try may have sent, where anything outside the ledger tells. Default None:
        nothing does, which proves nothing.
    """

    try_number: int
    campaign_key: str
    cause: str
    next_time: str = ""
    settled_by_next_try: bool = True
    begun_at: datetime | None = None

    @property
    def key(self) -> str:
        """What stands in ``settle`` of the next try for all that was sent before this one."""
        return lost_key(self.try_number, self.campaign_key)

    @property
    def key_before(self) -> str | None:
        """What stands in ``settle`` of this try for all that was sent before; None: no word counts."""
        # The try before has found it lost, and asked; what is sent after that, by whatever try, is not meant.
        return lost_key(self.try_number - 1, self.campaign_key) if self.settled_by_next_try else None

    @property
    def warning(self) -> str:
        """What to know before the recipients of this run are sent to in another way."""
        return (
            f"This is try {self.try_number}, and earlier ones may have sent something: the ledger knows nothing of "
            f"them ({self.cause}), so read their logs first"
        )

    def __str__(self) -> str:
        line = json.dumps({self.key: "not_executed"}, ensure_ascii=False)
        sent = "may have sent something"
        if self.begun_at is not None:
            sent = f"have begun to send ({self.begun_at:%Y-%m-%d %H:%M:%S %Z})"
        return (
            f"this is try {self.try_number} of the task, and the ledger knows nothing of an earlier one: {self.cause}. "
            f"Earlier tries {sent}. What to do now: read the logs of the earlier tries, and find out in the Lingyang "
            "console what was executed. Where anything was, send the remaining recipients in a new run, from an "
            "audience without those already reached. Only where nothing was sent at all, give this task "
            f"settle={line} and clear it: that counts in try {self.try_number + 1} and in no other (a bare '*' in none)"
            + (f". Next time: {self.next_time}" if self.next_time else "")
        )


@dataclass(slots=True)
class LostHistory:
    """Accounts for earlier tries that the ledger does not know.

    :param reconciler: None: no look-up is configured.
    """

    builder: RequestBuilder
    ledger: Ledger
    manifest: Manifest
    policy: Policy
    reconciler: Reconciler | None
    cancellation: Cancellation

    def resolve_lost(self, claimed_at: float, lost: LostLedger, *, is_settled: bool) -> None:
        """Find out which recipients earlier tries reached, or take a person's word that they reached none.

        :param claimed_at: monotonic seconds, not before earlier tries of this task instance could write nothing more.
        :param is_settled: a person says that earlier tries sent nothing: a recipient without a result is free.
        :raises LedgerRefusedError: nothing can tell what earlier tries sent.
        :raises SubmissionStopped: the task was asked to stop.
        :raises LedgerError: the ledger cannot be written.
        """
        pending = sum(count for _, count in self.builder.queue.batches())
        doubt = self.manifest.doubt(LOST_LEDGER, None, pending)
        doubt.reason = "the ledger knows nothing of earlier tries"
        others_until = claimed_at + self.policy.open_for + WRITTEN_WITHIN
        # Its key is shown once nothing can make a word about it false any more.
        self.manifest.lost_key = ""
        interrupted = SubmissionStopped(
            "the task was asked to stop before it had found out which recipients earlier tries reached; the ledger "
            "knows nothing of them, and this try sent nothing"
        )
        try:
            if self.reconciler is not None:
                self._look_up(claimed_at, lost, doubt, is_settled=is_settled)
            elif not is_settled:
                raise LedgerRefusedError(str(lost))
        except LedgerRefusedError:
            # Before it asks for a word: what is found out from then on stays true.
            if self.ledger.others_may_run:
                if not self.cancellation.sleep_until(others_until, WAITS_FOR_OTHERS):
                    raise interrupted from None
                self.ledger.end_others(())
            self.manifest.lost_key = lost.key
            raise
        if self.reconciler is None:
            if self.ledger.others_may_run and not self.cancellation.sleep_until(
                others_until, WAITS_FOR_OTHERS
            ):
                raise interrupted
            log.warning("settle says that earlier tries, of which the ledger knows nothing, sent nothing")
        self.manifest.doubts.remove(doubt)

    def _look_up(
        self, claimed_at: float, lost: LostLedger, doubt: RequestInDoubt, *, is_settled: bool
    ) -> None:
        """Look every recipient up, and write the executed ones down; see :meth:`resolve_lost`."""
        if self.builder.queue.audience.derived() and not is_settled:
            raise LedgerRefusedError(
                f"{lost}. (Nothing was looked up: the ids of recipients without a biz_id are derived, and under "
                "another App secret, or another version of this package, those of earlier tries were others.)"
            )
        log.warning(
            "the ledger knows nothing of earlier tries of this task, so every recipient is looked up first"
        )
        settled_at = claimed_at + self.policy.open_for + max(WRITTEN_WITHIN, self.policy.lookup_settle)
        pending = self.builder.queue.ids_in_state(RequestState.PENDING)
        while biz_ids := list(islice(pending, _LOOKED_UP)):
            (resolution,) = resolve(self.reconciler, [UnresolvedRequest(biz_ids, 0.0, settled_at)])
            if resolution.in_doubt and self.cancellation.requested():
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
            if resolution.in_doubt and not is_settled:
                raise LedgerRefusedError(f"{lost}. (The look-up gave no answer that counts.)")
            if resolution.executed:
                # However long the ids are: an entry must fit into one value of the task state store.
                for found in portions(
                    resolution.executed, lambda each: len(json.dumps(each)) + _OF_AN_ID, _PORTION
                ):
                    # Not another try's or worker's code: what that one found must not be written over.
                    code = self.builder.identity.code(digest("found", *self.manifest.source.values(), *found))
                    kept = self.builder.queue.audience.kept(found)
                    self.ledger.write([], [Intent(code, None, found, "", 0.0, kept=kept)])
                    self.ledger.write(
                        [Outcome(code, {biz_id: resolution.executed[biz_id] for biz_id in found})], []
                    )
                accepted = transition(RequestState.IN_DOUBT, RequestEvent.EXECUTED)
                self.builder.queue.set_state(resolution.executed, accepted)
                doubt.tasks -= len(resolution.executed)
