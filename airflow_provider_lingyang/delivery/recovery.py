"""The next try: decides about every recipient of earlier ones before it sends anything."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from airflow_provider_lingyang.audience.store import Past, Spool, State
from airflow_provider_lingyang.cancellation import Stop
from airflow_provider_lingyang.delivery.dispatcher import Policy, Resent, SubmissionStopped
from airflow_provider_lingyang.delivery.manifest import Doubt, Manifest
from airflow_provider_lingyang.delivery.reconciler import Inquiry, Question, Verdict
from airflow_provider_lingyang.delivery.requests import RequestBuilder
from airflow_provider_lingyang.delivery.sender_pool import StoppedError
from airflow_provider_lingyang.ledger.base import (
    LOST,
    Intent,
    Ledger,
    LedgerRefusedError,
    Outcome,
    PastRequest,
    digest,
)

log = logging.getLogger(__name__)

ACCEPTED, NOT_EXECUTED = "accepted", "not_executed"
_LOOKED_UP = 1000
_PORTION, _OF_AN_ID = 40_000, 24
"""Bytes of ids in one entry of a ledger, and what one id needs beside itself or as a key instead of itself."""
_InDoubt = tuple[Doubt, int, PastRequest]
"""A request as it is booked, its group in the spool, and as the ledger remembers it."""
_UNKNOWN_PAST = (
    "this is not the task's first try, and the ledger knows nothing of an earlier one: either none of them came as far "
    "as this task's own code, or the ledger was emptied. If the logs of the earlier tries show that they sent nothing, "
    f"say so with settle={{'{LOST}': 'not_executed'}} and clear the task; otherwise send the remaining people in a new "
    "run, from an audience without those already reached"
)


def recall(spool: Spool, ledger: Ledger, manifest: Manifest) -> tuple[Past, list[_InDoubt]]:
    """Book what earlier tries did that was never settled, and return it.

    :raises LedgerError: the ledger cannot be read.
    """
    past = spool.remember(ledger.past())
    manifest.vanished = past.vanished
    manifest.because("not_sent", "their contact was reached under another biz_id", past.left_out)
    doubtful: list[_InDoubt] = []
    for group, request in past.in_doubt:
        here = _here(spool, group, request)
        # Another task's request in doubt matters only if it holds people of this audience.
        if request.mine or spool.group(group):
            doubt = manifest.doubt(request.task_unique_code, request.batch_num, here)
            doubt.reason = "in doubt since an earlier try"
            doubtful.append((doubt, group, request))
    return past, doubtful


def inherit(spool: Spool, manifest: Manifest) -> None:
    """Book whom earlier tries reached or were refused, now that their doubts are settled as far as they can be."""
    manifest.inherit(spool.ids_in_state(State.ACCEPTED), spool.ids_in_state(State.REJECTED))


def _here(spool: Spool, group: int, request: PastRequest) -> int:
    """Return how many of those in doubt are in today's audience."""
    in_doubt = set(request.in_doubt)
    return sum(biz_id in in_doubt for _, biz_id, _ in spool.group(group))


def _portions(biz_ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield as many ids at a time as fit into one value of the task state store, however long they are."""
    portion: list[str] = []
    size = 0
    for biz_id in biz_ids:
        length = len(json.dumps(biz_id)) + _OF_AN_ID
        if portion and size + length > _PORTION:
            yield portion
            portion, size = [], 0
        portion.append(biz_id)
        size += length
    if portion:
        yield portion


class Resume:
    """Takes up what earlier tries left.

    Accepted and rejected recipients are final. Those in doubt are settled by the author's word, by a look-up, or by
    sending their request again where the gateway knows it by its code; else they stay in doubt.

    :param inquiry: None: no look-up is configured.
    """

    def __init__(
        self,
        builder: RequestBuilder,
        ledger: Ledger,
        manifest: Manifest,
        policy: Policy,
        inquiry: Inquiry | None,
        stop: Stop,
    ) -> None:
        self._builder = builder
        self._spool = builder.spool
        self._ledger = ledger
        self._manifest = manifest
        self._policy = policy
        self._inquiry = inquiry
        self._stop = stop

    def go_on(
        self, settle: Mapping[str, str], settled_at: float, *, unknown_past: bool = False
    ) -> dict[str, Resent]:
        """Book what earlier tries did, and settle their doubts.

        :param settle: the author's word: code → ``accepted`` or ``not_executed``.
        :param settled_at: monotonic seconds from when a look-up knows of everything that earlier tries sent.
        :param unknown_past: there were earlier tries, and the ledger knows nothing of them: everybody is in doubt.
        :return: requests in doubt that are to be sent again under their code.
        :raises SubmissionStopped: somebody stays in doubt.
        :raises LedgerRefusedError: nothing can tell whom earlier tries reached.
        :raises LedgerError: the ledger cannot be read or written.
        """
        # Booked before anything else may fail: whoever is in doubt is never counted as not sent.
        past, doubtful = recall(self._spool, self._ledger, self._manifest)
        codes = [request.task_unique_code for _, _, request in doubtful]
        unknown = [code for code in settle if code not in codes]
        if any(code != LOST for code in unknown):
            log.warning("settle names requests that are not in doubt: %s", ", ".join(unknown))
        left: list[_InDoubt] = []
        try:
            if unknown_past:
                if settle.get(LOST) != NOT_EXECUTED:
                    self._look_everybody_up(settled_at)
                self._ledger.know_past()
            if doubtful:
                self._ledger.take_over(codes)
                left = self._settle(doubtful, settle, settled_at)
        finally:
            inherit(self._spool, self._manifest)
            self._manifest.past_counted = True
        resent: dict[str, Resent] = {}
        for doubt, group, request in left:
            if self._may_be_resent(group, request):
                log.info("%s is sent again: the gateway executes it only once", request.task_unique_code)
                self._spool.settle(request.in_doubt, State.FREE)
                resent[request.task_unique_code] = Resent(doubt, request.written_at)
        self._manifest.late = self._spool.late(past.furthest)
        if len(resent) < len(left) and self._policy.on_in_doubt == "stop":
            why = ""
            if self._stop.told():
                why = "the task was told to stop before it had found out about them"
            elif unknown and not any(code in settle for code in codes):
                why = "settle names none of them"
            raise SubmissionStopped(
                f"{len(left) - len(resent)} request(s) of earlier tries are in doubt, so nothing was sent by this try"
                + (f": {why}" if why else ""),
                final=self._inquiry is None and not self._stop.told(),
            )
        return resent

    def _look_everybody_up(self, settled_at: float) -> None:
        """Find out, person by person, whom earlier tries reached of which the ledger knows nothing."""
        doubt = self._manifest.doubt(LOST, None, self._spool.in_state(State.FREE))
        doubt.reason = "the ledger knows nothing of earlier tries"
        if self._inquiry is None:
            raise LedgerRefusedError(_UNKNOWN_PAST)
        log.warning("the ledger knows nothing of earlier tries of this task, so everybody is looked up first")
        for biz_ids in self._spool.free_ids(_LOOKED_UP):
            (verdict,) = self._ask([Question(biz_ids, 0.0, settled_at)])
            if verdict.unknown and self._stop.told():
                raise SubmissionStopped(
                    "the task was told to stop while it looked up whom earlier tries reached, of which the ledger "
                    "knows nothing; this try sent nothing"
                )
            if verdict.unknown:
                raise LedgerRefusedError(f"{_UNKNOWN_PAST}. (The look-up gave no answer that counts.)")
            if verdict.executed:
                for found in _portions(verdict.executed):
                    # Not another try's or worker's code: what that one found must not be written over.
                    code = self._builder.identity.code(
                        digest("found", *self._manifest.source.values(), *found)
                    )
                    self._ledger.write([], [Intent(code, None, found, "", 0.0)])
                    self._ledger.write(
                        [Outcome(code, {biz_id: verdict.executed[biz_id] for biz_id in found})], []
                    )
                self._spool.settle(verdict.executed, State.ACCEPTED)
                doubt.tasks -= len(verdict.executed)
        self._manifest.doubts.remove(doubt)

    def _settle(
        self,
        doubtful: list[_InDoubt],
        settle: Mapping[str, str],
        settled_at: float,
    ) -> list[_InDoubt]:
        """Settle what can be settled, write it down, and return what stays in doubt."""
        to_ask = [request for _, _, request in doubtful if request.task_unique_code not in settle]
        answers = self._ask(
            [Question(request.in_doubt, request.written_at, settled_at) for request in to_ask]
        )
        asked = {request.task_unique_code: verdict for request, verdict in zip(to_ask, answers, strict=True)}
        outcomes, verdicts = [], []
        left: list[_InDoubt] = []
        for doubt, group, request in doubtful:
            code = request.task_unique_code
            said = settle.get(code)
            if said == ACCEPTED:
                verdict = Verdict(executed=dict.fromkeys(request.in_doubt))
            elif said == NOT_EXECUTED:
                verdict = Verdict(not_executed=list(request.in_doubt))
            else:
                verdict = asked[code]
            log.info(
                "request %s of an earlier try: %d executed, %d not executed, %d in doubt%s",
                code,
                len(verdict.executed),
                len(verdict.not_executed),
                len(verdict.unknown),
                f" (settle: {said})" if said else "",
            )
            if verdict.executed or verdict.not_executed:
                outcomes.append(Outcome(code, verdict.executed, (), verdict.not_executed, verdict.unknown))
            verdicts.append((doubt, group, request, verdict))
        # Written down first: what is only in memory would be in doubt again for the next try.
        self._ledger.write(outcomes, [])
        for doubt, group, request, verdict in verdicts:
            # First out of the doubts: should the task end in between, they count as not sent and not twice.
            if verdict.unknown:
                request = replace(request, in_doubt=verdict.unknown)
                left.append((doubt, group, request))
                doubt.tasks = _here(self._spool, group, request)
            else:
                self._manifest.doubts.remove(doubt)
            self._spool.settle(verdict.executed, State.ACCEPTED)
            self._spool.settle(verdict.not_executed, State.FREE)
        return left

    def _ask(self, questions: list[Question]) -> list[Verdict]:
        if self._inquiry is not None and questions:
            try:
                return self._inquiry.ask(questions)
            except StoppedError:
                pass
        return [Verdict(unknown=list(question.biz_ids)) for question in questions]

    def _may_be_resent(self, group: int, request: PastRequest) -> bool:
        if not self._policy.dedupes_by_code or request.accepted or request.rejected or request.not_executed:
            return False
        # Only the very same request: the code of another one would be new to the gateway.
        rows = self._spool.group(group)
        if [biz_id for _, biz_id, _ in rows] != list(request.in_doubt) or any(
            batch_num != request.batch_num for batch_num, _, _ in rows
        ):
            return False
        rebuilt = self._builder.build(request.batch_num, [(biz_id, task) for _, biz_id, task in rows])
        return rebuilt.struct_digest == request.struct_digest
