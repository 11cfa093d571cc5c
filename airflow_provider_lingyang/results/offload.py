"""Run a coroutine from a thread without an event loop, and its blocking calls in that thread."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_CANCEL_GRACE = 2.0
"""Seconds for a cancelled coroutine to close its connections."""


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
    running: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()
    outcome: Future[T] = Future()

    async def offload(function: Callable[..., Any], *arguments: Any) -> Any:
        future: Future[Any] = Future()
        calls.put((future, function, arguments))
        return await asyncio.wrap_future(future)

    async def run() -> T:
        task = asyncio.current_task()
        assert task is not None
        running.set_result((asyncio.get_running_loop(), task))
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
        if running.done():
            loop, task = running.result()
            with suppress(RuntimeError):  # The loop has just closed.
                loop.call_soon_threadsafe(task.cancel)
        thread.join(_CANCEL_GRACE)
        raise
    thread.join()
    return outcome.result()
