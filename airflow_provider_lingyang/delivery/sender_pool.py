"""Threads that talk to the gateway, so that the task's main thread can write the ledger and heed a kill meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from airflow_provider_lingyang.cancellation import Stop
from airflow_provider_lingyang.gateway.protocol import SubmitReceipt

T = TypeVar("T")


class Wire(Protocol):
    """One connection to the gateway, for one thread. It sends each request once."""

    def submit_struct(
        self, struct: str, *, departure: Callable[[], AbstractContextManager[object]]
    ) -> SubmitReceipt:
        """Send the JSON of one request, inside of what ``departure`` makes."""

    def close(self) -> None:
        """Give the connection back."""


class StoppedError(Exception):
    """The task was told to stop, and there is no time to wait for an answer."""


class Couriers:
    """Does jobs on the wire in threads of its own; a context manager.

    The threads are daemons: a request that nobody waits for any longer must not hold the process up.

    :param new_wire: makes a connection.
    :param count: how many threads.
    """

    def __init__(self, new_wire: Callable[[], Wire], count: int = 1) -> None:
        self._new_wire = new_wire
        self._jobs: queue.SimpleQueue[tuple[Any, Callable[[Wire], Any]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"lingyang-courier-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Couriers:
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)

    def hand(self, token: object, job: Callable[[Wire], Any]) -> None:
        """Let a thread do a job; :meth:`answer` gives the token back with what came of it."""
        self._jobs.put((token, job))

    def answer(self, timeout: float) -> tuple[Any, Any] | None:
        """Return the token and the result (or the exception) of the next job that is done, or None."""
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            return None

    def call(self, job: Callable[[Wire], T], stop: Stop) -> T:
        """Do a job while nothing else is under way, and wait for it.

        :raises StoppedError: the task was told to stop, and 4 seconds have passed.
        """
        self.hand(None, job)
        while (answer := self.answer(0.2)) is None:
            if stop.out_of_time():
                raise StoppedError("the task was told to stop")
        _, result = answer
        if isinstance(result, BaseException):
            raise result
        done: T = result
        return done

    def _work(self) -> None:
        wire: Wire | None = None
        try:
            while (handed := self._jobs.get()) is not None:
                token, job = handed
                try:
                    wire = wire or self._new_wire()
                    result: Any = job(wire)
                except BaseException as error:
                    result = error
                self._answers.put((token, result))
        finally:
            if wire is not None:
                wire.close()
