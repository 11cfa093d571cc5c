"""The way out to the gateway: so many requests at a time, and none once something has gone wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class NotLeft(Exception):
    """The request did not leave."""


class Door(Generic[T]):
    """Lets couriers, who come with requests that are ready to be sent, leave one after the other. For many threads.

    :param at_a_time: requests that are outside at a time: from the moment that they leave until their answer is read.
    :param may_leave: whether a request may leave now: the last thing that is asked, and for one request at a time.
    """

    def __init__(self, at_a_time: int, may_leave: Callable[[T], bool]) -> None:
        self._places = threading.Semaphore(at_a_time)
        self._one = threading.Lock()
        self._may_leave = may_leave
        self._failed: list[T] = []
        self._shut = False

    @contextmanager
    def departure(self, request: T) -> Iterator[None]:
        """Wait until there is a place outside, and be there.

        After a failure nobody else leaves until :meth:`heard`.

        :raises NotLeft: it may not leave, or no longer.
        """
        with self._places:
            with self._one:
                if self._shut or self._failed or not self._may_leave(request):
                    raise NotLeft
            try:
                yield
            except BaseException:
                # Before its place is free: else the next one would leave before anybody knows.
                self._failed.append(request)
                raise

    def heard(self, request: T) -> None:
        """Note that whoever decides knows what became of a request."""
        if request in self._failed:
            self._failed.remove(request)

    def shut(self) -> None:
        """Let nothing leave any more. When it returns, whatever has not left never will."""
        with self._one:
            self._shut = True
