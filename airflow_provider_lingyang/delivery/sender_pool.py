"""A pool of threads that send to the gateway; the main thread writes the ledger and watches for cancellation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from airflow_provider_lingyang.cancellation import SIGNAL_POLL_INTERVAL, Cancellation
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt

T = TypeVar("T")


class Wire(Protocol):
    """One connection to the gateway, for one thread. It sends each request once, without a retry."""

    def submit_struct(self, struct: str, *, before_send: Callable[[], None]) -> SubmitReceipt:
        """Send the JSON of one request.

        :param before_send: called when there is a connection; its error comes out, and nothing was sent.
        """

    def close(self) -> None:
        """Close the connection."""


class CancellationError(Exception):
    """The task shall stop, and the grace period is over."""


class SenderPool:
    """Runs jobs on gateway connections, one connection a thread; a context manager.

    The threads are daemons: an abandoned request must not keep the process alive.

    :param new_wire: makes a connection.
    :param count: number of threads.
    """

    def __init__(self, new_wire: Callable[[], Wire], count: int = 1) -> None:
        self._new_wire = new_wire
        self._jobs: queue.SimpleQueue[tuple[Any, Callable[[Wire], Any]] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"lingyang-sender-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> SenderPool:
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)

    def submit(self, token: object, job: Callable[[Wire], Any]) -> None:
        """Queue a job; :meth:`next_result` returns the token with its result."""
        self._jobs.put((token, job))

    def next_result(self, timeout: float) -> tuple[Any, Any] | None:
        """Return token and result (or exception) of the next finished job; None after ``timeout`` seconds."""
        try:
            return self._results.get(timeout=timeout)
        except queue.Empty:
            return None

    def run_exclusively(self, job: Callable[[Wire], T], cancellation: Cancellation) -> T:
        """Run a job while no other is queued or running, and return its result.

        :raises CancellationError: the task shall stop, and the grace period is over.
        """
        self.submit(None, job)
        while (finished := self.next_result(SIGNAL_POLL_INTERVAL)) is None:
            if cancellation.grace_expired():
                raise CancellationError("the task shall stop")
        _, result = finished
        if isinstance(result, BaseException):
            raise result
        done: T = result
        return done

    def _work(self) -> None:
        wire: Wire | None = None
        try:
            while (queued := self._jobs.get()) is not None:
                token, job = queued
                try:
                    wire = wire or self._new_wire()
                    result: Any = job(wire)
                except BaseException as error:
                    result = error
                self._results.put((token, result))
        finally:
            if wire is not None:
                wire.close()
