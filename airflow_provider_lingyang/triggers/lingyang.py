"""Wait for the results of a campaign without holding a worker."""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async
from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from airflow_provider_lingyang.results.completion import WaitProgress
    from airflow_provider_lingyang.results.lookup import PollOutcome
    from airflow_provider_lingyang.results.poller import ResultsPoller

log = logging.getLogger(__name__)

COMPLETE, TIMEOUT, FAILED, BROKEN = "complete", "timeout", "failed", "broken"
"""Statuses of an event: enough recipients are finished; the deadline has passed; a retry cannot help; a retry may."""
_ARGUMENTS = ("request", "complete_ratio", "poke_interval", "max_wait", "started", "deadline")
_ARGUMENTS_VERSION = 2
"""Of the trigger's arguments. The first version's do not say which they are."""
_SAME_VERSION = "worker and triggerer must have the same version of airflow-provider-lingyang"
_GROWTH, _MAX_GROWTH, _JITTER = 1.5, 4.0, 0.1
"""Of the interval between polls: factor while nothing changes, its limit, and the random share added or taken."""


class LingyangResultTrigger(BaseTrigger):
    """Poll for the results of a campaign, and fire once: when enough recipients are finished, or the wait has failed.

    Its arguments and its event hold ids or a pointer to them, counts and reasons, but no results. After a restart of
    the triggerer it starts again with the same deadline.

    :param request: the recipients, and where their results are: a ``ResultsRequest`` (``results/poller.py``) as a dict.
    :param complete_ratio: share of the recipients that must be finished, in (0, 1].
    :param poke_interval: seconds between polls; grows to four times that while nothing changes.
    :param max_wait: seconds between polls at most; None: four times ``poke_interval``.
    :param started: epoch seconds at which the wait began.
    :param deadline: epoch seconds at which it ends.
    :param version: of the format of these arguments. A newer one is refused by :meth:`run`: what is raised here has no
        sentence for the task, and any error but TypeError would end the triggerer.
    :param newer: arguments that a newer version knows.
    """

    def __init__(
        self,
        *,
        request: Mapping[str, Any],
        complete_ratio: float,
        poke_interval: float,
        max_wait: float | None,
        started: float,
        deadline: float,
        version: int = 1,
        **newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in Airflow
        self.request = request
        self.complete_ratio = complete_ratio
        self.poke_interval = poke_interval
        self.max_wait = max_wait
        self.started = started
        self.deadline = deadline
        self._is_newer = version > _ARGUMENTS_VERSION or bool(newer)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, from which the triggerer makes it again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: getattr(self, name) for name in _ARGUMENTS} | {"version": _ARGUMENTS_VERSION},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the wait ends, and yield one event."""
        if self._is_newer:
            reason = f"a newer version has deferred the wait than the triggerer has: {_SAME_VERSION}"
            yield TriggerEvent(self._event(BROKEN, None, reason))  # type: ignore[no-untyped-call]  # untyped in Airflow
            return
        executor = ThreadPoolExecutor(1, thread_name_prefix="lingyang-wait")

        async def offload(function: Any, *arguments: Any) -> Any:
            # Not thread-sensitive: one thread would then serve all triggers of this process. And not the loop's own
            # executor: before Airflow 3.3 a connection can be read only in the context that asgiref copies.
            return await sync_to_async(function, thread_sensitive=False, executor=executor)(*arguments)

        try:
            event = await self._wait(offload, executor)
        except Exception as error:
            # Without its text, which may hold data.
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("unforeseen %s:\n%s", type(error).__name__, trace)
            event = self._event(BROKEN, None, f"unforeseen {type(error).__name__}, see the triggerer's log")
        finally:
            # Not waited for: a call that still runs there must not block the loop.
            executor.shutdown(wait=False)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # likewise

    async def _wait(self, offload: Any, executor: ThreadPoolExecutor) -> dict[str, Any]:
        # Imported off the event loop, which other triggers share.
        module = await offload(importlib.import_module, "airflow_provider_lingyang.results.poller")
        request = module.ResultsRequest(**self.request)
        poller: ResultsPoller = module.ResultsPoller(request, count_values=False)
        try:
            return await self._poll_repeatedly(poller, offload)
        except module.PollError as error:
            return self._event(BROKEN if error.retryable else FAILED, None, str(error))
        finally:
            executor.submit(poller.close)

    async def _poll_repeatedly(self, poller: ResultsPoller, offload: Any) -> dict[str, Any]:
        before: Mapping[str, int] = {}
        interval, retry_after = self.poke_interval, 0.0
        while True:
            # The task has polled just before it was deferred. The last poll is at the deadline, not before.
            pause = max(interval * random.uniform(1 - _JITTER, 1 + _JITTER), retry_after)
            await asyncio.sleep(max(0.0, min(pause, self.deadline - time.time())))
            outcome: PollOutcome = await poller.poll(offload, first=False)
            retry_after = outcome.retry_after
            how_far = self.complete_ratio, outcome, time.time() - self.started
            progress: WaitProgress | None = await offload(poller.judge, *how_far)
            if progress is not None:
                if progress.complete:
                    return self._event(COMPLETE, progress, None, poller.failed)
                interval = self._interval(interval, changed=progress.counts != before)
                before = progress.counts
            if time.time() >= self.deadline:
                return self._event(TIMEOUT, progress, outcome.reason, poller.failed)

    def _event(
        self, status: str, progress: WaitProgress | None, reason: str | None, failed: int = 0
    ) -> dict[str, Any]:
        # With the times: `airflow dags test` passes nothing but the event.
        ending = Ending(
            version=1,
            status=status,
            counts=dict(progress.counts) if progress else None,
            reason=reason,
            failed_look_ups=failed,
            started=self.started,
            deadline=self.deadline,
        )
        return ending.model_dump()

    def _interval(self, interval: float, *, changed: bool) -> float:
        longest = self.poke_interval * _MAX_GROWTH if self.max_wait is None else self.max_wait
        grown = self.poke_interval if changed else interval * _GROWTH
        return max(self.poke_interval, min(grown, longest))


class Ending(BaseModel):
    """The payload of an event.

    :param reason: why it failed; of a timeout, the error of the last failed look-up.
    :param started: epoch seconds at which the wait began.
    :param deadline: epoch seconds at which it ends.
    """

    model_config = ConfigDict(extra="forbid")

    # No field has a default: it must not stand in for one that another version lacks.
    version: Literal[1]
    status: Literal["complete", "timeout", "failed", "broken"]
    counts: dict[str, int] | None
    reason: str | None
    failed_look_ups: int
    started: float
    deadline: float


def read_event(event: Any) -> Ending:
    """Return the payload of an event.

    :raises ValueError: it is not one that this version understands, so neither success nor failure can be concluded.
    """
    try:
        return Ending.model_validate(event)
    except ValidationError:
        raise ValueError(
            "the wait's trigger ended with an event that this version of the package does not understand "
            f"(a {type(event).__name__}): {_SAME_VERSION}. Clear the task to wait again"
        ) from None
