"""One poll of the unfinished recipients: concurrent look-ups at the gateway, or one pass over a table of results."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_lingyang.gateway.errors import LingyangError, Replay
from airflow_provider_lingyang.lookup.result import TaskResult, standing
from airflow_provider_lingyang.results.completion import (
    ANSWERED,
    FOREIGN,
    NOT_REACHED,
    WAITING,
    CompletionCriteria,
    state_of,
)
from airflow_provider_lingyang.results.recipient_store import (
    PAGE,
    PendingWrites,
    RecipientRow,
    RecipientStore,
)
from airflow_provider_lingyang.storage.private_sqlite import open_private, written

FetchResults = Callable[[Sequence[RecipientRow]], Awaitable[Mapping[str, TaskResult]]]
"""Looks some recipients up in one call; returns their results by ``biz_id``."""
Offload = Callable[..., Awaitable[Any]]
"""Runs a blocking function off the event loop, one at a time."""


@dataclass(slots=True)
class PollOutcome:
    """How a poll went.

    :param calls: number of answered calls.
    :param failed: number of calls that failed and may succeed later.
    :param reason: the error of the last failed call.
    :param retry_after: seconds until the next call is allowed, where the platform said so (rate limit).
    """

    calls: int = 0
    failed: int = 0
    reason: str | None = None
    retry_after: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether every unfinished recipient was looked up."""
        return not self.failed


async def poll_gateway(
    store: RecipientStore,
    fetch: FetchResults,
    *,
    ids_per_call: int,
    max_concurrent_calls: int,
    offload: Offload,
) -> PollOutcome:
    """Look up all unfinished recipients at the gateway.

    A call that fails for the moment changes no state. The poll ends early after ``max_concurrent_calls`` failures in
    a row, or when the platform sets a ``retry_after``.

    :param store: its states are updated.
    :param ids_per_call: recipients in one call, at most.
    :raises LingyangError: a retry cannot help.
    :raises SpoolError: the disk is full.
    """
    poll = _GatewayPoll(store, fetch, ids_per_call, max_concurrent_calls, offload)
    await offload(store.start_poll)
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            poll.start_loading(group, 0)
            for _ in range(max_concurrent_calls):
                group.create_task(poll.work(group))
    except* Exception as errors:
        # Raised after the block: within it, it would come out as an exception group.
        failure = errors.exceptions[0]
    if failure is None or isinstance(failure, LingyangError):
        # Keep the results of other calls when one has failed.
        await poll.flush()
    if failure is not None:
        raise failure from None
    return poll.outcome


class _GatewayPoll:
    def __init__(
        self,
        store: RecipientStore,
        fetch: FetchResults,
        ids_per_call: int,
        max_concurrent_calls: int,
        offload: Offload,
    ) -> None:
        self.outcome = PollOutcome()
        self._store = store
        self._fetch = fetch
        self._ids_per_call = ids_per_call
        self._max_concurrent_calls = max_concurrent_calls
        self._offload = offload
        self._page_size = max(PAGE, ids_per_call * max_concurrent_calls)
        self._chunks: deque[Sequence[RecipientRow]] = deque()
        self._loading: asyncio.Task[Sequence[RecipientRow]] | None = None
        self._pending = PendingWrites()
        self._failed_in_a_row = 0
        self._is_over = False

    async def work(self, group: asyncio.TaskGroup) -> None:
        """Make one call after another until no recipients are left; several of these run concurrently."""
        while (recipients := await self._next_chunk(group)) is not None:
            try:
                results = await self._fetch(recipients)
            except LingyangError as error:
                if error.replay is Replay.NEVER:
                    raise
                self._note_failure(error)
                continue
            self._failed_in_a_row = 0
            self.outcome.calls += 1
            self._store.update_states(recipients, results, self._pending)
            if self._pending.looked_up >= self._page_size:
                await self.flush()

    def _note_failure(self, error: LingyangError) -> None:
        self.outcome.failed += 1
        # The error's hint is left out: it is about sending.
        self.outcome.reason = error.facts
        self.outcome.retry_after = max(self.outcome.retry_after, error.retry_after or 0.0)
        self._failed_in_a_row += 1
        if error.retry_after or self._failed_in_a_row >= self._max_concurrent_calls:
            self._is_over = True

    async def flush(self) -> None:
        """Write what the results so far add."""
        pending, self._pending = self._pending, PendingWrites()
        await self._offload(self._store.write, pending)

    def start_loading(self, group: asyncio.TaskGroup, after: int) -> None:
        """Start to load the next page of recipients: one page ahead of the calls, so that none waits for it."""

        async def load() -> Sequence[RecipientRow]:
            page: Sequence[RecipientRow] = await self._offload(self._store.unfinished, after, self._page_size)
            return page

        self._loading = group.create_task(load())

    async def _next_chunk(self, group: asyncio.TaskGroup) -> Sequence[RecipientRow] | None:
        while not self._chunks and not self._is_over and (loading := self._loading) is not None:
            page = await loading
            # All workers await the same page; the first to resume cuts it into chunks.
            if loading is self._loading:
                size = self._ids_per_call
                self._chunks.extend(page[start : start + size] for start in range(0, len(page), size))
                self._loading = None
                if page:
                    self.start_loading(group, page[-1][0])
        return self._chunks.popleft() if self._chunks and not self._is_over else None


def poll_table(store: RecipientStore, rows: Iterable[TaskResult]) -> PollOutcome:
    """Update the store from the results in a table; rows of other recipients are ignored.

    Of several rows of one recipient one counts, in any order of the rows: that of the accepted task, else the newest,
    else done over failed, else the first.

    :param rows: the results, in any order.
    :raises SpoolError: the disk is full.
    """
    store.start_poll()
    rows = iter(rows)
    with closing(_BestRows(store.folder)) as spooled:
        while page := list(islice(rows, PAGE)):
            recipients = {row[1]: row for row in store.find_unfinished(list({row.biz_id for row in page}))}
            best: dict[str, tuple[_Standing, TaskResult]] = {}
            for row in page:
                if row.biz_id not in recipients:
                    continue
                rank = _standing(row, store.criteria, recipients[row.biz_id][2])
                if row.biz_id not in best or rank > best[row.biz_id][0]:
                    best[row.biz_id] = rank, row
            final = {
                biz_id: row
                for biz_id, (rank, row) in best.items()
                if rank == _highest(row, recipients[biz_id][2])
            }
            store.record([recipients[biz_id] for biz_id in final], final)
            spooled.offer(
                (recipients[biz_id][0], rank, row)
                for biz_id, (rank, row) in best.items()
                if biz_id not in final
            )
        for results in spooled.pages():
            store.record(store.find_unfinished(list(results)), results)
    return PollOutcome(calls=1)


_Standing = tuple[int, float, int]
_PROGRESS = {FOREIGN: 0, WAITING: 1, NOT_REACHED: 2, ANSWERED: 3}


def _standing(row: TaskResult, criteria: CompletionCriteria, platform_task_id: str | None) -> _Standing:
    return standing(row, platform_task_id, _PROGRESS[state_of(row, criteria, platform_task_id)])


def _highest(row: TaskResult, platform_task_id: str | None) -> _Standing | None:
    """Return the standing that no later row can surpass; None for a dated row: a newer one can."""
    if row.created_at is not None:
        return None
    return 1 if platform_task_id is None else 2, -math.inf, _PROGRESS[ANSWERED]


class _BestRows:
    """Holds the best row so far of each recipient, where a later row may surpass it. On disk: up to a million rows.

    :param folder: for its file; empty: the system's folder for temporary files.
    """

    def __init__(self, folder: str) -> None:
        self._db: sqlite3.Connection | None = None
        self._folder = folder

    def close(self) -> None:
        if self._db is not None:
            self._db.close()

    def offer(self, rows: Iterable[tuple[int, _Standing, TaskResult]]) -> None:
        """Keep each row that is better than the stored one.

        :param rows: number of the recipient, standing, row.
        :raises SpoolError: the disk is full.
        """
        values = [
            (
                number,
                *rank,
                json.dumps((row.biz_id, row.came, row.status, row.task_id, row.created_at), default=str),
            )
            for number, rank, row in rows
        ]
        if not values:
            return
        if self._db is None:
            self._db = open_private(self._folder, _SCHEMA, _WHAT)
        with written(_WHAT):
            self._db.execute("BEGIN")
            self._db.executemany(_BETTER, values)
            self._db.execute("COMMIT")

    def pages(self) -> Iterator[dict[str, TaskResult]]:
        """Yield the best rows, by ``biz_id``, a page at a time."""
        if self._db is None:
            return
        cursor = self._db.execute("SELECT result FROM best ORDER BY number")
        while page := cursor.fetchmany(PAGE):
            results = [TaskResult(*json.loads(result)) for (result,) in page]
            yield {result.biz_id: result for result in results}


_WHAT = "the private list of results that a later row may surpass"
_SCHEMA = """
CREATE TABLE best (
    number INTEGER PRIMARY KEY, own INTEGER NOT NULL, moment REAL NOT NULL, progress INTEGER NOT NULL,
    result TEXT NOT NULL
)
"""
_BETTER = """
INSERT INTO best VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    own = excluded.own, moment = excluded.moment, progress = excluded.progress, result = excluded.result
WHERE (excluded.own, excluded.moment, excluded.progress) > (own, moment, progress)
"""
