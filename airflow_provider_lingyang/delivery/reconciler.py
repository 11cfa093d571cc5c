"""Recipients in doubt: what a look-up proves about them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import tzinfo

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.delivery.sender_pool import CancellationError
from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.lookup.result import LookupAnswer, epoch_seconds

log = logging.getLogger(__name__)

LookUp = Callable[[Sequence[str]], LookupAnswer]
"""Asks the platform for every result of some recipients, by ``biz_id``."""

_CLOCKS = 660.0
"""Seconds by which this machine's clock and the platform's may differ: beyond 10 minutes it refuses every call."""
_ANY_ZONE = 26 * 3600.0
"""Seconds by which a time whose zone is not known may be wrong: zones are up to 26 hours apart."""
_GRAIN = 1.0
"""Seconds: the platform's times are whole ones."""


@dataclass(frozen=True, slots=True)
class UnresolvedRequest:
    """Some recipients of one request.

    :param since: epoch seconds of the intent, for the platform's own time of creation.
    :param settled_at: monotonic seconds from when "not found" means "not executed".
    """

    biz_ids: Sequence[str]
    since: float
    settled_at: float


@dataclass(slots=True)
class Resolution:
    """What is proven.

    :param executed: ``biz_id`` → platform task id, where the result has one.
    :param in_doubt: still so.
    :param found: those of them that have a result that may be this campaign's: no word outweighs it.
    """

    executed: dict[str, int | None] = field(default_factory=dict)
    not_executed: list[str] = field(default_factory=list)
    in_doubt: list[str] = field(default_factory=list)
    found: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Asks the platform, waits until its answer counts, and asks again.

    :param look_up: asks for results by ``biz_id``.
    :param dated: whether results tell when they were created.
    :param zone: where a time of creation without a zone is meant; None: the author does not say.
    :param reused: whether an earlier generation used the same ids: then only a time of creation proves anything.
    """

    look_up: LookUp
    cancellation: Cancellation
    _: KW_ONLY
    dated: bool
    reused: bool
    zone: tzinfo | None = None
    monotonic: Callable[[], float] = time.monotonic

    def resolve(self, questions: Sequence[UnresolvedRequest]) -> list[Resolution]:
        """Return what is proven about each request; where the look-up fails, nothing is."""
        resolutions = [Resolution(in_doubt=list(question.biz_ids)) for question in questions]
        if self.reused and not self.dated:
            log.warning(
                "no look-up: an earlier generation of the campaign used these ids, and the result_query has no "
                "created_at_field to tell them apart"
            )
            return resolutions
        asked_at = self.monotonic()
        self._ask(questions, resolutions)
        settled_at = max(question.settled_at for question in questions)
        if asked_at < settled_at and any(resolution.in_doubt for resolution in resolutions):
            wait = max(0.0, settled_at - self.monotonic())
            log.info(
                "not all recipients are found; asking again in %.1f s, when new tasks must be visible", wait
            )
            self.cancellation.sleep(wait)
            if not self.cancellation.requested():
                # Only of the others: what was found stays found, whatever a later answer leaves out.
                self._ask(questions, resolutions)
        return resolutions

    def _ask(self, questions: Sequence[UnresolvedRequest], resolutions: Sequence[Resolution]) -> None:
        """Ask for all recipients in doubt, and add to the resolutions what is proven now."""
        asked_at = self.monotonic()
        answer = self._answer([biz_id for resolution in resolutions for biz_id in resolution.in_doubt])
        if answer is None:
            return
        single: list[str] = []
        for question, resolution in zip(questions, resolutions, strict=True):
            self._judge(question, resolution, answer, asked_at)
            if asked_at >= question.settled_at:
                single += [biz_id for biz_id in resolution.in_doubt if biz_id in answer.alone]
        if single:
            log.info(
                "an answer for several recipients does not say that it is complete; %d are asked for one by one",
                len(single),
            )
        for biz_id in single:
            if self.cancellation.requested():
                return
            asked_at = self.monotonic()
            alone = self._answer([biz_id])
            if alone is None:
                # The others would most likely fail, too, each after all its attempts.
                break
            answer = alone
            for question, resolution in zip(questions, resolutions, strict=True):
                if biz_id in resolution.in_doubt:
                    self._judge(question, resolution, alone, asked_at)
        if answer.why and any(resolution.in_doubt for resolution in resolutions):
            log.warning(
                "an answer of the look-up does not prove which recipients were not contacted: %s", answer.why
            )

    def _answer(self, biz_ids: Sequence[str]) -> LookupAnswer | None:
        try:
            return self.look_up(biz_ids)
        except LingyangError as error:
            log.warning("the look-up failed, so those in doubt stay so: %s", error)
            return None

    def _judge(
        self, question: UnresolvedRequest, resolution: Resolution, answer: LookupAnswer, asked_at: float
    ) -> None:
        """Move the recipients that the answer proves something about out of those in doubt."""
        settled = asked_at >= question.settled_at
        left, resolution.in_doubt = resolution.in_doubt, []
        for biz_id in left:
            results = answer.results.get(biz_id, ())
            ours = [self._is_ours(result, question.since) for result in results]
            if True in ours:
                # Every result is evidence: one that is ours is enough, whatever the others are.
                resolution.executed[biz_id] = _number(results[ours.index(True)].task_id)
            elif settled and biz_id in answer.absent and None not in ours and biz_id not in resolution.found:
                # There is none, or only those of earlier campaigns; nor did an answer before hold one that may be ours.
                resolution.not_executed.append(biz_id)
            else:
                resolution.in_doubt.append(biz_id)
                if None in ours:
                    resolution.found.add(biz_id)

    def _is_ours(self, result: TaskResult, since: float) -> bool | None:
        """Whether a result is of this campaign, or of an earlier one; None: nothing tells.

        What else could bring an old time for a task of ours: a clock that differs, and a time in another zone than the
        one that is assumed. Only what is older than both explain is another campaign's.
        """
        if not self.dated:
            return True
        created = None if result.created_at is None else epoch_seconds(result.created_at, self.zone)
        if created is None or created > max(since, time.time()) + _ANY_ZONE:
            log.warning("created_at_field of the result_query holds no date that can be placed")
            return None
        age = created - since
        if age < -(_ANY_ZONE if self.zone is None else _CLOCKS):
            return False
        return True if age >= -(_GRAIN if self.reused else _CLOCKS) else None


def resolve(reconciler: Reconciler | None, requests: Sequence[UnresolvedRequest]) -> list[Resolution]:
    """Return what is proven about requests in doubt: nothing without a look-up, or where the task shall stop."""
    if reconciler is not None and requests:
        try:
            return reconciler.resolve(requests)
        except CancellationError:
            pass
    return [Resolution(in_doubt=list(request.biz_ids)) for request in requests]


def _number(task_id: str | None) -> int | None:
    return int(task_id) if task_id is not None and task_id.isascii() and task_id.isdigit() else None
