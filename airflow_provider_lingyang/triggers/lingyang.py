"""Wait for a campaign's answers without holding a worker."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import random
import time
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async
from pydantic import BaseModel, ValidationError

from airflow_provider_lingyang.config.arguments import ArgumentError

if TYPE_CHECKING:
    from airflow_provider_lingyang.results.completion import Verdict
    from airflow_provider_lingyang.results.lookup import Look
    from airflow_provider_lingyang.results.poller import Wait

log = logging.getLogger(__name__)

COMPLETE, TIMEOUT, FAILED, BROKEN = "complete", "timeout", "failed", "broken"
"""Of an event: enough people are finished; the deadline has passed; no repetition helps; another try may help."""
_GROWTH, _LONGEST, _JITTER = 1.5, 4.0, 0.1


class LingyangResultTrigger(BaseTrigger):
    """Ask, again and again, how far a campaign's people are, and fire once: when enough are finished, or none can be.

    Its arguments and its event hold ids or a pointer to them, counts and reasons, and no answer of anybody. After a
    restart of the triggerer it begins anew; the deadline is a moment, so it stays.

    :param wanted: whose answers, and where they are: ``Wanted.to_json()`` of ``results/poller.py``.
    :param complete_ratio: share of the recipients that must be finished, in (0, 1].
    :param poke_interval: seconds between looks; while nothing changes they grow apart, to four times that.
    :param max_wait: seconds between looks at most; None: four times ``poke_interval``.
    :param started: epoch seconds at which the wait began.
    :param deadline: epoch seconds at which it ends.
    """

    def __init__(
        self,
        *,
        wanted: Mapping[str, Any],
        complete_ratio: float,
        poke_interval: float,
        max_wait: float | None,
        started: float,
        deadline: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in Airflow
        self.wanted = wanted
        self.complete_ratio = complete_ratio
        self.poke_interval = poke_interval
        self.max_wait = max_wait
        self.started = started
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what the triggerer makes it from."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "wanted": dict(self.wanted),
                "complete_ratio": self.complete_ratio,
                "poke_interval": self.poke_interval,
                "max_wait": self.max_wait,
                "started": self.started,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something to tell, and tell it once."""
        executor = ThreadPoolExecutor(1, thread_name_prefix="lingyang-wait")

        async def offload(function: Any, *arguments: Any) -> Any:
            # Not thread-sensitive: that would queue all triggers of this process before one thread. And not the
            # loop's own executor: before Airflow 3.3 a connection is read only through what asgiref brings along.
            call = functools.partial(function, *arguments)
            return await sync_to_async(call, thread_sensitive=False, executor=executor)()

        try:
            event = await self._wait(offload, executor)
        except Exception as error:
            # Without its text: what an unforeseen error repeats of the data is unknown.
            trace = "".join(traceback.format_tb(error.__traceback__))
            log.error("unforeseen %s:\n%s", type(error).__name__, trace)
            event = self._event(BROKEN, None, f"unforeseen {type(error).__name__}, see the triggerer's log")
        finally:
            # Not waited for: whatever runs there yet must not hold the loop up.
            executor.shutdown(wait=False)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # likewise

    async def _wait(self, offload: Any, executor: ThreadPoolExecutor) -> dict[str, Any]:
        # Imported off the loop, which other triggers share.
        answers = await offload(importlib.import_module, "airflow_provider_lingyang.results.poller")
        wait: Wait = answers.Wait(answers.Wanted(**self.wanted), pull_xcom, offload=offload, tally=False)
        try:
            return await self._look_again(wait, offload)
        except answers.WaitFailed as error:
            return self._event(FAILED, None, str(error))
        except answers.WaitError as error:
            return self._event(BROKEN, None, str(error))
        finally:
            executor.submit(wait.close)

    async def _look_again(self, wait: Wait, offload: Any) -> dict[str, Any]:
        verdict: Verdict | None = None
        before: Mapping[str, int] = {}
        interval, failed, rest = self.poke_interval, 0, 0.0
        while True:
            # The task has looked just before it was deferred. The last look is at the deadline, not before.
            pause = max(interval * random.uniform(1 - _JITTER, 1 + _JITTER), rest)
            await asyncio.sleep(max(0.0, min(pause, self.deadline - time.time())))
            look: Look = await wait.look(first=False)
            rest = look.retry_after
            if look.failed:
                failed += look.failed
                log.warning(
                    "%d look-up(s) failed, %d so far; asking again. The last: %s",
                    look.failed,
                    failed,
                    look.reason,
                )
            if look.calls or verdict is not None:
                verdict = await offload(wait.verdict, self.complete_ratio, look, time.time() - self.started)
                log.info("%s", verdict)
                if verdict.complete:
                    return self._event(COMPLETE, verdict, None, failed)
                interval = self._interval(interval, changed=verdict.counts != before)
                before = verdict.counts
            if time.time() >= self.deadline:
                return self._event(TIMEOUT, verdict, look.reason, failed)

    def _event(
        self, status: str, verdict: Verdict | None, reason: str | None, failed: int = 0
    ) -> dict[str, Any]:
        # With the times: airflow dags test hands over the event and nothing else.
        ending = Ending(
            status=status,
            counts=dict(verdict.counts) if verdict else None,
            reason=reason,
            failed_look_ups=failed,
            started=self.started,
            deadline=self.deadline,
        )
        return ending.model_dump()

    def _interval(self, interval: float, *, changed: bool) -> float:
        longest = self.poke_interval * _LONGEST if self.max_wait is None else self.max_wait
        grown = self.poke_interval if changed else interval * _GROWTH
        return max(self.poke_interval, min(grown, longest))


class Ending(BaseModel):
    """What an event says.

    :param reason: why it failed; of a timeout, what the last look-up failed with.
    :param started: epoch seconds at which the wait began.
    :param deadline: epoch seconds at which it ends.
    """

    version: Literal[1] = 1
    status: Literal["complete", "timeout", "failed", "broken"]
    counts: dict[str, int] | None
    reason: str | None
    failed_look_ups: int
    started: float
    deadline: float


def read_event(event: Any) -> Ending:
    """Return what an event says.

    :raises ValueError: it is not one that this version understands: whoever takes it for an end in success or in
        failure would be guessing.
    """
    try:
        # All of it: a default would stand for what another version did not say.
        assert set(event) == set(Ending.model_fields)
        return Ending.model_validate(event)
    except (AssertionError, TypeError, ValidationError):
        raise ValueError(
            "the wait's trigger ended with an event that this version of the package does not understand "
            f"(a {type(event).__name__}): are worker and triggerer of the same version? Clear the task to wait again"
        ) from None


def pull_xcom(pointer: Mapping[str, Any], key: str) -> Any:
    """Return an XCom of the task that a pointer names; None where there is none.

    :param pointer: dag_id, run_id, task_id, map_index.
    :raises ArgumentError: this process cannot read XComs.
    """
    from airflow.providers.common.compat.sdk import XCom

    names: Sequence[str] = ("dag_id", "run_id", "task_id", "map_index")
    try:
        return XCom.get_one(key=key, **{name: pointer[name] for name in names})
    except ImportError as error:
        if "SUPERVISOR_COMMS" not in str(error):
            raise
        raise ArgumentError(
            "the ids are in an XCom, and `airflow dags test` of Airflow 3.0 lets no trigger read one. A triggerer can: "
            "run the DAG in Airflow, or try it with deferrable=False"
        ) from None
