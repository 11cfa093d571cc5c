"""The next try, after a retry, a Clear or a kill: decides about all recipients of earlier ones before it sends."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from airflow_provider_lingyang.audience.store import order_key
from airflow_provider_lingyang.delivery.dispatch import RetriedRequest
from airflow_provider_lingyang.delivery.lost_history import LostHistory, LostLedger
from airflow_provider_lingyang.delivery.manifest import Manifest, RequestInDoubt
from airflow_provider_lingyang.delivery.reconciler import Resolution, UnresolvedRequest, resolve
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.delivery.send_queue import OTHER_BIZ_ID, History, SendQueue
from airflow_provider_lingyang.errors import LedgerError, SubmissionStopped
from airflow_provider_lingyang.identity import LOST_LEDGER, recipient_hash
from airflow_provider_lingyang.ledger.base import (
    GIVEN_TOO_EARLY,
    WAITS_FOR_OTHERS,
    WRITTEN_WITHIN,
    Ledger,
    Outcome,
    RecordedRequest,
)

log = logging.getLogger(__name__)

ACCEPTED, NOT_EXECUTED = "accepted", "not_executed"
_NAMED = 20
_InDoubt = tuple[RequestInDoubt, int, RecordedRequest]
"""A request as it is booked, its group in the queue, and as the ledger has it."""


def load_history(queue: SendQueue, ledger: Ledger, manifest: Manifest) -> tuple[History, list[_InDoubt]]:
    """Book what earlier tries did that was never settled, and return it.

    :raises LedgerError: the ledger cannot be read.
    """
    history = queue.load_history(ledger.history(queue.keys))
    manifest.vanished = history.vanished
    manifest.add_reason("not_sent", OTHER_BIZ_ID, history.left_out)
    doubtful: list[_InDoubt] = []
    for group, request in history.in_doubt:
        in_audience = _count_in_audience(queue, group, request)
        # Another task's request in doubt matters only if it holds recipients of this audience.
        if request.is_own or queue.group(group):
            doubt = manifest.doubt(request.task_unique_code, request.batch_num, in_audience)
            doubt.reason = "in doubt since an earlier try"
            doubtful.append((doubt, group, request))
    return history, doubtful


def count_history(queue: SendQueue, manifest: Manifest) -> None:
    """Count the recipients that earlier tries reached, or whose requests were refused."""
    manifest.add_history(queue.ids_in_state(RequestState.ACCEPTED), queue.ids_in_state(RequestState.REJECTED))


def _count_in_audience(queue: SendQueue, group: int, request: RecordedRequest) -> int:
    """Return how many of those in doubt are in today's audience."""
    in_doubt = set(request.in_doubt)
    return sum(biz_id in in_doubt for _, biz_id, _ in queue.group(group))


@dataclass(slots=True)
class Recovery(LostHistory):
    """Takes up what earlier tries left, where the ledger knows of them and where it does not.

    Accepted and rejected recipients are final. Those in doubt are settled by a person's word, by a look-up, or by
    sending their request again where the gateway knows it by its code; else they stay in doubt.
    """

    _others_until: dict[str, float] = field(init=False, default_factory=dict)
    """Requests in doubt that another process may still send, and monotonic seconds from when it cannot."""
    _too_early: set[str] = field(init=False, default_factory=set)
    """Requests in doubt about which a word was given while another process could still send them."""

    def run(
        self, settle: Mapping[str, str], claimed_at: float, *, lost: LostLedger | None = None
    ) -> dict[str, RetriedRequest]:
        """Book what earlier tries did, and settle their doubts.

        :param settle: a person's words: :func:`~airflow_provider_lingyang.identity.settle_key` or ``lost_key`` →
            ``accepted`` or ``not_executed``.
        :param claimed_at: monotonic seconds, not before earlier tries of this task instance could write nothing more.
        :param lost: there were earlier tries, and the ledger knows nothing of them: every recipient is in doubt.
        :return: requests in doubt that are to be sent again under their code.
        :raises SubmissionStopped: a recipient stays in doubt.
        :raises LedgerRefusedError: nothing can tell what earlier tries sent.
        :raises LedgerError: the ledger cannot be read or written.
        """
        # Booked before anything else may fail: a recipient in doubt is never counted as not sent.
        history, doubtful = load_history(self.builder.queue, self.ledger, self.manifest)
        stale: list[str] = []
        left: list[_InDoubt] = []
        taken_over_at = 0.0
        try:
            stale = self._stale(settle, [request for _, request in history.in_doubt], lost)
            if lost is not None:
                is_settled = settle.get(lost.key_before or "") == NOT_EXECUTED
                self.resolve_lost(claimed_at, lost, is_settled=is_settled)
                self.ledger.mark_history_known()
            if doubtful:
                self.ledger.take_over([request.task_unique_code for _, _, request in doubtful])
                taken_over_at = time.monotonic()
                left = self._settle(doubtful, settle, taken_over_at)
            if not self._others_until:
                self.ledger.end_others(())
        finally:
            count_history(self.builder.queue, self.manifest)
            self.manifest.history_counted = True
        retried: dict[str, RetriedRequest] = {}
        for doubt, group, request in left:
            if self._may_be_retried(group, request):
                log.info("%s is sent again: the gateway executes it only once", request.task_unique_code)
                # For the queue, which gives their request again; the request itself stays in doubt.
                self.builder.queue.set_state(request.in_doubt, RequestState.PENDING)
                retried[request.task_unique_code] = RetriedRequest(
                    doubt,
                    request.written_at,
                    taken_over_at + request.open_for + self.policy.lookup_settle,
                )
        others = [order_key(batch_num) for batch_num in self.ledger.sent_by_others()]
        self.manifest.late = self.builder.queue.late(max([history.furthest, *others]))
        if len(retried) < len(left) and self.policy.on_in_doubt == "stop":
            why = ""
            if self.cancellation.requested():
                why = "the task was asked to stop before it had found out about them"
            elif self._too_early:
                why = GIVEN_TOO_EARLY
            elif stale and not any(request.settle_key in settle for _, _, request in doubtful):
                why = "settle names none of them"
            raise SubmissionStopped(
                f"{len(left) - len(retried)} request(s) of earlier tries are in doubt, so nothing was sent by this try"
                + (f": {why}" if why else ""),
                final=self.reconciler is None and not self.cancellation.requested(),
            )
        return retried

    def wait_for_others(self) -> None:
        """At the end, before a person is asked: wait until no process can send a request in doubt.

        What is found out about it from then on stays true.
        """
        if codes := {doubt.task_unique_code for doubt in self.manifest.doubts}:
            try:
                self._end_others(codes)
            except LedgerError as error:
                log.warning("%s; so a word about what is in doubt may be asked for again", error)

    def _end_others(self, codes: Collection[str], too_early: Collection[str] = ()) -> None:
        if self.cancellation.sleep_until(
            max(self._others_until.get(code, 0.0) for code in codes), WAITS_FOR_OTHERS
        ):
            self.ledger.end_others(codes, too_early)

    def _stale(
        self, settle: Mapping[str, str], in_doubt: list[RecordedRequest], lost: LostLedger | None
    ) -> list[str]:
        """Name the words that are about no intent in doubt, and see to it that they never will be.

        :return: their keys.
        """
        latest = {request.task_unique_code: request for request in in_doubt}
        meant = {request.settle_key for request in in_doubt} | ({lost.key_before} if lost else set())
        stale = [key for key in settle if key not in meant]
        if not stale:
            return []
        named = []
        numbers: dict[str, int] = {}
        for key in stale:
            code, _, number = key.partition("#")
            now = latest.get(code)
            named.append(key if now is None else f"{key} (in doubt now is {now.settle_key})")
            if code != LOST_LEDGER and (now is None or int(number or 1) > now.number):
                # A word that was there before an intent is not about it: where the ledger had been lost, or the number
                # was guessed, the next intent of the code would have this very key.
                numbers[code] = max(numbers.get(code, 1), int(number or 1))
        log.warning(
            "settle names what is not in doubt, or no longer; that changes nothing, so take it out: %s",
            ", ".join(named),
        )
        self.ledger.skip_numbers(numbers)
        return stale

    def _settle(
        self,
        doubtful: list[_InDoubt],
        settle: Mapping[str, str],
        taken_over_at: float,
    ) -> list[_InDoubt]:
        """Settle what can be settled, write it down, and return what stays in doubt.

        :param taken_over_at: monotonic seconds from when no other process could write these intents again. Its own
            clock: those of two machines differ.
        """
        words = {request.task_unique_code: settle.get(request.settle_key) for _, _, request in doubtful}
        to_ask = [request for _, _, request in doubtful if words[request.task_unique_code] != ACCEPTED]
        answers = resolve(
            self.reconciler,
            [
                UnresolvedRequest(
                    request.in_doubt,
                    request.written_at,
                    # An owner that did not know yet may have sent until the first of these ended.
                    taken_over_at + request.open_for + self.policy.lookup_settle,
                )
                for request in to_ask
            ],
        )
        asked = {
            request.task_unique_code: resolution for request, resolution in zip(to_ask, answers, strict=True)
        }
        self._let_others_end(doubtful, words, asked, taken_over_at)
        outcomes, resolutions = [], []
        left: list[_InDoubt] = []
        for doubt, group, request in doubtful:
            code = request.task_unique_code
            said = words[code]
            resolution = (
                Resolution(executed=dict.fromkeys(request.in_doubt)) if said == ACCEPTED else asked[code]
            )
            # A word from before others had ended is none: they may have sent after it.
            if said == NOT_EXECUTED and code not in self._others_until and not self.cancellation.requested():
                # What is found was executed, whatever was said; of all else the word counts.
                found = [biz_id for biz_id in resolution.in_doubt if biz_id in resolution.found]
                free = [biz_id for biz_id in resolution.in_doubt if biz_id not in resolution.found]
                if found:
                    log.warning(
                        "request %s: %d of its recipients have a result whose created_at does not tell whether it is "
                        "this campaign's, so they stay in doubt although settle says not_executed; a created_at_zone "
                        "in the result_query may tell",
                        request.settle_key,
                        len(found),
                    )
                resolution = Resolution(resolution.executed, [*resolution.not_executed, *free], found)
            log.info(
                "request %s of an earlier try: %d executed, %d not executed, %d in doubt%s",
                request.settle_key,
                len(resolution.executed),
                len(resolution.not_executed),
                len(resolution.in_doubt),
                f" (settle: {said})" if said else "",
            )
            if resolution.executed or resolution.not_executed:
                outcomes.append(
                    Outcome(
                        code,
                        resolution.executed,
                        not_executed=resolution.not_executed,
                        in_doubt=resolution.in_doubt,
                        reason=None if resolution.in_doubt else RequestEvent.ABSENT.value,
                    )
                )
            resolutions.append((doubt, group, request, resolution))
        # Written down first: what is only in memory would be in doubt again for the next try.
        self.ledger.write(outcomes, [])
        for doubt, group, request, resolution in resolutions:
            # First out of the doubts: should the task end in between, they count as not sent and not twice.
            if resolution.in_doubt:
                request = replace(request, in_doubt=resolution.in_doubt)
                left.append((doubt, group, request))
                doubt.tasks = _count_in_audience(self.builder.queue, group, request)
            else:
                self.manifest.doubts.remove(doubt)
            in_doubt = RequestState.IN_DOUBT
            self.builder.queue.set_state(resolution.executed, transition(in_doubt, RequestEvent.EXECUTED))
            self.builder.queue.set_state(resolution.not_executed, transition(in_doubt, RequestEvent.ABSENT))
        return left

    def _let_others_end(
        self,
        doubtful: list[_InDoubt],
        words: Mapping[str, str | None],
        asked: Mapping[str, Resolution],
        taken_over_at: float,
    ) -> None:
        """Before a person is asked, wait until others can send no more, and add what they were answered meanwhile."""
        must_wait = False
        for _, group, request in doubtful:
            code = request.task_unique_code
            if request.others_may_send and code in asked and asked[code].in_doubt:
                self._others_until[code] = taken_over_at + request.open_for + WRITTEN_WITHIN
                if words[code] == NOT_EXECUTED:
                    self._too_early.add(code)
                must_wait |= code in self._too_early or not (
                    self.policy.on_in_doubt == "continue"
                    or self._may_be_retried(group, replace(request, in_doubt=asked[code].in_doubt))
                )
        if not must_wait:
            return
        self._end_others(self._others_until, self._too_early)
        if self._too_early and not self.cancellation.requested():
            log.warning(
                "%s: %s",
                GIVEN_TOO_EARLY,
                ", ".join(self.manifest.settle_key(code) for code in sorted(self._too_early)[:_NAMED]),
            )
        for request in self.ledger.requests(self._others_until):
            resolution = asked[request.task_unique_code]
            accepted = set(request.accepted)
            answered = [biz_id for biz_id in resolution.in_doubt if recipient_hash(biz_id) in accepted]
            resolution.executed |= dict.fromkeys(answered)
            resolution.in_doubt = [
                biz_id for biz_id in resolution.in_doubt if biz_id not in resolution.executed
            ]

    def _may_be_retried(self, group: int, request: RecordedRequest) -> bool:
        if not self.policy.dedupes_by_code or request.accepted or request.rejected or request.not_executed:
            return False
        # Only the very same request: the code of another one would be new to the gateway.
        rows = self.builder.queue.group(group)
        if [biz_id for _, biz_id, _ in rows] != list(request.in_doubt) or any(
            batch_num != request.batch_num for batch_num, _, _ in rows
        ):
            return False
        rebuilt = self.builder.build(request.batch_num, [(biz_id, task) for _, biz_id, task in rows])
        return rebuilt.struct_digest == request.struct_digest
