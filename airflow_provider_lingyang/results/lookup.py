"""One look at everybody who is not finished: asked of the platform, a few calls at a time, or read from a table."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_lingyang.gateway.errors import LingyangError, Replay
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import FINISHED, FOREIGN, Rules, state_of
from airflow_provider_lingyang.results.recipient_store import PAGE, Changes, Row, WaitingList

Ask = Callable[[Sequence[Row]], Awaitable[Mapping[str, TaskResult]]]
"""Asks the platform for the results of some people, by ``biz_id``, in one call."""
Offload = Callable[..., Awaitable[Any]]
"""Runs a function where it does not hold the event loop up, one at a time."""


@dataclass(slots=True)
class Look:
    """How a look went.

    :param calls: answered calls.
    :param failed: calls that failed for the moment.
    :param reason: of the last of them.
    :param retry_after: seconds until the platform may be asked again, where it told.
    """

    calls: int = 0
    failed: int = 0
    reason: str | None = None
    retry_after: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether everybody was asked."""
        return not self.failed


async def look_up(
    waiting: WaitingList, ask: Ask, *, people_per_call: int, calls_at_a_time: int, offload: Offload
) -> Look:
    """Ask the platform for everybody who is not finished.

    A call that fails for the moment leaves its people as they are; when as many as are under way fail in a row, or the
    platform wants a longer rest, the look ends early.

    :raises LingyangError: a failure that no repetition can cure.
    :raises SpoolError: the disk is full.
    """
    look = _LookUp(waiting, ask, people_per_call, calls_at_a_time, offload)
    await offload(waiting.begin)
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            look.load(group, 0)
            for _ in range(calls_at_a_time):
                group.create_task(look.work(group))
    except* Exception as errors:
        # What is raised here would come out as a group.
        failure = errors.exceptions[0]
    if failure is None or isinstance(failure, LingyangError):
        # What was told is not lost, whatever became of the others.
        await look.flush()
    if failure is not None:
        raise failure from None
    return look.look


class _LookUp:
    def __init__(
        self, waiting: WaitingList, ask: Ask, people_per_call: int, calls_at_a_time: int, offload: Offload
    ) -> None:
        self.look = Look()
        self._waiting = waiting
        self._ask = ask
        self._people_per_call = people_per_call
        self._calls_at_a_time = calls_at_a_time
        self._offload = offload
        self._page_size = max(PAGE, people_per_call * calls_at_a_time)
        self._chunks: deque[Sequence[Row]] = deque()
        self._loading: asyncio.Task[Sequence[Row]] | None = None
        self._changes = Changes()
        self._failed_in_a_row = 0
        self._ended = False

    async def work(self, group: asyncio.TaskGroup) -> None:
        while (people := await self._next(group)) is not None:
            try:
                results = await self._ask(people)
            except LingyangError as error:
                if error.replay is Replay.NEVER:
                    raise
                self.look.failed += 1
                # Without its hint, which is for those who send.
                self.look.reason = error.facts
                self.look.retry_after = max(self.look.retry_after, error.retry_after or 0.0)
                self._failed_in_a_row += 1
                if error.retry_after or self._failed_in_a_row >= self._calls_at_a_time:
                    self._ended = True
                continue
            self._failed_in_a_row = 0
            self.look.calls += 1
            self._waiting.judge(people, results, self._changes)
            if self._changes.people >= self._page_size:
                await self.flush()

    async def flush(self) -> None:
        changes, self._changes = self._changes, Changes()
        if changes.to_write:
            await self._offload(self._waiting.write, changes)

    def load(self, group: asyncio.TaskGroup, after: int) -> None:
        """Begin to read the next people. A page ahead, so that nobody waits while there is somebody to ask for."""

        async def page() -> Sequence[Row]:
            rows: Sequence[Row] = await self._offload(self._waiting.page, after, self._page_size)
            return rows

        self._loading = group.create_task(page())

    async def _next(self, group: asyncio.TaskGroup) -> Sequence[Row] | None:
        while not self._chunks and not self._ended and (loading := self._loading) is not None:
            page = await loading
            # All wait for the same page; the first that has it deals it out.
            if loading is self._loading:
                size = self._people_per_call
                self._chunks.extend(page[start : start + size] for start in range(0, len(page), size))
                self._loading = None
                if page:
                    self.load(group, page[-1][0])
        return self._chunks.popleft() if self._chunks and not self._ended else None


def read_table(waiting: WaitingList, rows: Iterable[TaskResult]) -> Look:
    """Take the answers that are in a table; rows of people nobody waits for are left alone.

    Of several rows of one person the first that finishes them counts, else the last; one of the accepted task before
    one of another, if they are not thousands of rows apart.

    :raises SpoolError: the disk is full.
    """
    waiting.begin()
    rows = iter(rows)
    while some := list(islice(rows, PAGE)):
        people = waiting.find(list({row.biz_id for row in some}))
        task_ids = {biz_id: task_id for _, biz_id, task_id in people}
        results: dict[str, TaskResult] = {}
        for row in some:
            if row.biz_id not in task_ids:
                continue
            before = results.get(row.biz_id)
            task_id = task_ids[row.biz_id]
            if before is None or _counts_more(row, before, waiting.rules, task_id):
                results[row.biz_id] = row
        waiting.take(people, results)
    return Look(calls=1)


def _counts_more(later: TaskResult, earlier: TaskResult, rules: Rules, task_id: str | None) -> bool:
    before = state_of(earlier, rules, task_id)
    return before not in FINISHED and (before == FOREIGN or state_of(later, rules, task_id) != FOREIGN)
