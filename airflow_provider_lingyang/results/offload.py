"""A coroutine whose blocking functions run in the thread that waits for it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_GRACE = 2.0


class Here(Generic[T]):
    """Runs a coroutine's event loop in a thread of its own, and what the coroutine offloads here, one after another.

    So a database that takes its time holds no look-up up; its connection is used by one thread; and Airflow's signals,
    which raise in the main thread, find it here rather than in an event loop's innards.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], Any] | None] = (
            queue.SimpleQueue()
        )
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._outcome: Future[T] = Future()

    async def offload(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in the thread that is in :meth:`run`."""
        future: Future[Any] = Future()
        self._jobs.put((future, function, arguments))
        return await asyncio.wrap_future(future)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and return what it returns or raise what it raises."""
        thread = threading.Thread(target=self._loop, args=(coroutine,), name="lingyang-look", daemon=True)
        thread.start()
        try:
            while (job := self._next(thread)) is not None:
                future, function, arguments = job
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(function(*arguments))
                except Exception as error:
                    future.set_exception(error)
        except BaseException:
            if self._running is not None:
                loop, task = self._running
                with suppress(RuntimeError):  # It has just ended.
                    loop.call_soon_threadsafe(task.cancel)
            # Its connections close in order; but whatever raised here does not wait long.
            thread.join(_GRACE)
            raise
        thread.join()
        return self._outcome.result()

    def _next(self, thread: threading.Thread) -> tuple[Future[Any], Callable[..., Any], Any] | None:
        while thread.is_alive():
            # In slices, so that a signal is heeded.
            with suppress(queue.Empty):
                return self._jobs.get(timeout=0.2)
        return None

    def _loop(self, coroutine: Coroutine[Any, Any, T]) -> None:
        async def run() -> T:
            task = asyncio.current_task()
            assert task is not None
            self._running = asyncio.get_running_loop(), task
            return await coroutine

        try:
            self._outcome.set_result(asyncio.run(run()))
        except BaseException as error:
            self._outcome.set_exception(error)
        finally:
            self._jobs.put(None)
