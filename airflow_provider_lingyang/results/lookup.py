"""One poll of the unfinished recipients: concurrent look-ups at the gateway, or one pass over a table of results."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

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

Offload = Callable[..., Awaitable[Any]]
"""Runs a blocking function off the event loop, one at a time."""
T = TypeVar("T")
_CANCEL_GRACE = 2.0
"""Seconds for a cancelled coroutine to close its connections."""


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


async def poll_gateway(
    store: RecipientStore,
    fetch: Callable[[Sequence[RecipientRow]], Awaitable[Mapping[str, TaskResult]]],
    offload: Offload,
    *,
    ids_per_call: int,
    max_concurrent_calls: int,
) -> PollOutcome:
    """Look all unfinished recipients up at the gateway, once.

    A call that fails for the moment changes no state. The poll ends early after ``max_concurrent_calls`` failures in
    a row, or when the platform sets a ``retry_after``.

    :param store: its states are updated.
    :param fetch: looks some recipients up in one call, and returns their results by ``biz_id``.
    :param ids_per_call: recipients in one call, at most.
    :raises LingyangError: a retry cannot help.
    :raises SpoolError: the disk is full.
    """
    outcome, failed_in_a_row, is_over = PollOutcome(), 0, False
    pending = PendingWrites()
    page_size = max(PAGE, ids_per_call * max_concurrent_calls)
    # Nearly a page, so that the next one is loaded before a call would wait for it.
    chunks: asyncio.Queue[Sequence[RecipientRow] | None] = asyncio.Queue(page_size // ids_per_call)

    async def load() -> None:
        after = 0
        while not is_over and (page := await offload(store.unfinished, after, page_size)):
            for start in range(0, len(page), ids_per_call):
                await chunks.put(page[start : start + ids_per_call])
            after = page[-1][0]
        for _ in range(max_concurrent_calls):
            await chunks.put(None)

    async def work() -> None:
        nonlocal failed_in_a_row, is_over
        while (recipients := await chunks.get()) is not None:
            if is_over:
                continue
            try:
                results = await fetch(recipients)
            except LingyangError as error:
                if error.replay is Replay.NEVER:
                    raise
                outcome.failed += 1
                # The error's hint is left out: it is about sending.
                outcome.reason = error.facts
                outcome.retry_after = max(outcome.retry_after, error.retry_after or 0.0)
                failed_in_a_row += 1
                is_over = bool(is_over or error.retry_after or failed_in_a_row >= max_concurrent_calls)
                continue
            failed_in_a_row = 0
            outcome.calls += 1
            store.update_states(recipients, results, pending)
            if pending.looked_up >= page_size:
                await write()

    async def write() -> None:
        nonlocal pending
        full, pending = pending, PendingWrites()
        await offload(store.write, full)

    await offload(store.start_poll)
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load())
            for _ in range(max_concurrent_calls):
                group.create_task(work())
    except* Exception as errors:
        # Raised after the block: within it, it would come out as an exception group.
        failure = errors.exceptions[0]
    if failure is None or isinstance(failure, LingyangError):
        # Keep the results of other calls when one has failed.
        await write()
    if failure is not None:
        raise failure from None
    return outcome


def run_with_main_thread_calls(function: Callable[..., Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in an event loop in a thread of its own, and its blocking calls in the calling thread.

    So a slow database delays no look-up, one thread uses its connection, and Airflow's signals, which raise in the
    main thread, interrupt the blocking call rather than the event loop.

    asgiref's ``AsyncToSync`` divides the work in the same way, but not the end of it: when a signal raises in the
    calling thread, it does not cancel the coroutine, and its worker thread keeps the process from exiting until the
    coroutine is done; a ``BaseException`` such as ``AirflowTaskTimeout`` in a blocking call goes to the coroutine.
    Here it is raised at once, the coroutine is cancelled, and the thread is a daemon.

    :param function: returns the coroutine; its argument is ``offload``, which runs a function in the calling thread.
    :return: what the coroutine returns.
    :raises Exception: what the coroutine raises.
    """
    calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], Any] | None] = queue.SimpleQueue()
    outcome: Future[T] = Future()
    cancel: Callable[[], object] | None = None

    async def offload(function: Callable[..., Any], *arguments: Any) -> Any:
        future: Future[Any] = Future()
        calls.put((future, function, arguments))
        return await asyncio.wrap_future(future)

    async def run() -> T:
        nonlocal cancel
        task = asyncio.current_task()
        assert task is not None
        cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
        return await function(offload)

    def run_loop() -> None:
        try:
            outcome.set_result(asyncio.run(run()))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            calls.put(None)

    thread = threading.Thread(target=run_loop, name="lingyang-poll", daemon=True)
    thread.start()
    try:
        # A signal handler that raises interrupts the wait.
        while (call := calls.get()) is not None:
            future, blocking, arguments = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(blocking(*arguments))
            except Exception as error:
                future.set_exception(error)
    except BaseException:
        with suppress(RuntimeError):  # The loop has just closed.
            if cancel is not None:
                cancel()
        thread.join(_CANCEL_GRACE)
        raise
    thread.join()
    return outcome.result()


def poll_table(store: RecipientStore, rows: Iterable[TaskResult]) -> PollOutcome:
    """Update the store from the results in a table; rows of other recipients are ignored.

    Of several rows of one recipient one counts, in any order of the rows: that of the accepted task, else the newest,
    else done over failed, else the first.

    :param rows: the results, in any order.
    :raises SpoolError: the disk is full.
    """
    store.start_poll()
    rows = iter(rows)
    with closing(open_private(store.folder, _SCHEMA, _WHAT)) as best:
        while page := list(islice(rows, PAGE)):
            recipients = {row[1]: row for row in store.find_unfinished(list({row.biz_id for row in page}))}
            ranked = [
                _ranked(row, recipients[row.biz_id], store.criteria)
                for row in page
                if row.biz_id in recipients
            ]
            with written(_WHAT):
                best.execute("BEGIN")
                best.executemany(_BETTER, ranked)
                best.execute("COMMIT")
        cursor = best.execute("SELECT result FROM best ORDER BY number")
        while found := cursor.fetchmany(PAGE):
            results = {values[0]: TaskResult(*values) for values in (json.loads(text) for (text,) in found)}
            store.record(store.find_unfinished(list(results)), results)
    return PollOutcome(calls=1)


_PROGRESS = {FOREIGN: 0, WAITING: 1, NOT_REACHED: 2, ANSWERED: 3}


def _ranked(
    row: TaskResult, recipient: RecipientRow, criteria: CompletionCriteria
) -> tuple[int, int, float, int, str]:
    """Return a row for the table of the best: number of the recipient, standing, result."""
    number, _, platform_task_id = recipient
    progress = _PROGRESS[state_of(row, criteria, platform_task_id)]
    values = row.biz_id, row.raw_output_params, row.status, row.task_id, row.created_at
    return number, *standing(row, platform_task_id, progress), json.dumps(values, default=str)


_WHAT = "the private list of the best row of each recipient"
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
