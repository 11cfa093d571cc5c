"""People of whom nobody knows whether they were contacted: what a look-up proves about them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_lingyang.cancellation import Stop
from airflow_provider_lingyang.gateway.dates import parse_date
from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.lookup.query import TaskResult

log = logging.getLogger(__name__)

LookUp = Callable[[Sequence[str]], Mapping[str, TaskResult]]

_CLOCKS = 660.0
"""Seconds by which this machine's clock and the platform's may differ: beyond 10 minutes it refuses every call."""
_GRAIN = 1.0
"""Seconds: the platform's times are whole ones."""


@dataclass(frozen=True, slots=True)
class Question:
    """Some recipients of one request.

    :param since: epoch seconds of the intent, for the platform's own time of creation.
    :param settled_at: monotonic seconds from when "not found" means "not executed".
    """

    biz_ids: Sequence[str]
    since: float
    settled_at: float


@dataclass(slots=True)
class Verdict:
    """What is proven.

    :param executed: ``biz_id`` → task id, where it was told.
    :param unknown: still in doubt.
    """

    executed: dict[str, int | None] = field(default_factory=dict)
    not_executed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


class Inquiry:
    """Asks the platform, waits until its answer counts, and asks again.

    :param look_up: asks for results by ``biz_id``.
    :param dated: whether results tell when they were created.
    :param reused: whether an earlier generation used the same ids: then only a time of creation proves anything.
    """

    def __init__(
        self,
        look_up: LookUp,
        stop: Stop,
        *,
        dated: bool,
        reused: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._stop = stop
        self._dated = dated
        self._reused = reused
        self._monotonic = monotonic

    def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        """Return what is proven about each request; where the look-up fails, nothing is."""
        if self._reused and not self._dated:
            log.warning(
                "no look-up: an earlier generation of the campaign used these ids, and the result_query has no "
                "created_at_field to tell them apart"
            )
            return [Verdict(unknown=list(question.biz_ids)) for question in questions]
        asked_at = self._monotonic()
        verdicts = self._ask(questions)
        settled_at = max(question.settled_at for question in questions)
        if asked_at < settled_at and any(verdict.unknown for verdict in verdicts):
            wait = max(0.0, settled_at - self._monotonic())
            log.info("not everybody is found; asking again in %.1f s, when new tasks must be visible", wait)
            self._stop.sleep(wait)
            if not self._stop.told():
                verdicts = self._ask(questions)
        return verdicts

    def _ask(self, questions: Sequence[Question]) -> list[Verdict]:
        asked_at = self._monotonic()
        try:
            found = self._look_up([biz_id for question in questions for biz_id in question.biz_ids])
        except LingyangError as error:
            log.warning("the look-up failed, so those in doubt stay so: %s", error)
            return [Verdict(unknown=list(question.biz_ids)) for question in questions]
        return [self._judge(question, found, asked_at) for question in questions]

    def _judge(self, question: Question, found: Mapping[str, TaskResult], asked_at: float) -> Verdict:
        verdict = Verdict()
        for biz_id in question.biz_ids:
            result = found.get(biz_id)
            age = None if result is None else self._age(result, question.since)
            if result is None or (age is not None and age < -_CLOCKS):
                # Not there, or another campaign's.
                settled = asked_at >= question.settled_at
                (verdict.not_executed if settled else verdict.unknown).append(biz_id)
            elif self._dated and (age is None or (self._reused and age < -_GRAIN)):
                verdict.unknown.append(biz_id)
            else:
                verdict.executed[biz_id] = _number(result.task_id)
        return verdict

    def _age(self, result: TaskResult, since: float) -> float | None:
        """Return by how many seconds a result is younger than the intent; None where it does not tell."""
        if not self._dated or result.created_at is None:
            return None
        try:
            return parse_date(result.created_at).timestamp() - since
        except ValueError:
            log.warning("created_at_field of the result_query holds no date")
            return None


def _number(task_id: str | None) -> int | None:
    return int(task_id) if task_id is not None and task_id.isascii() and task_id.isdigit() else None
