"""Limits concurrent requests, and stops sending at the first failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from airflow_provider_lingyang.gateway.urllib3_connections import before_send

T = TypeVar("T")


class NotDispatched(Exception):
    """The request was not sent."""


class ConcurrencyLimiter(Generic[T]):
    """Limits concurrent requests. Thread-safe.

    :param limit: requests under way at a time, from sending until the answer is read.
    :param may_send: tells whether a request may be sent now; called for one request at a time.
    :param may_still_send: tells the same once the connection is made, which may take long; called last. Default None:
        it may.
    """

    def __init__(
        self,
        limit: int,
        may_send: Callable[[T], bool],
        may_still_send: Callable[[T], bool] | None = None,
    ) -> None:
        self._slots = threading.Semaphore(limit)
        self._lock = threading.Lock()
        self._may_send = may_send
        self._may_still_send = may_still_send
        self._failed: list[T] = []
        self._closed = False

    @contextmanager
    def acquire(self, request: T) -> Iterator[None]:
        """Wait for a place, and hold it.

        After a failure no request is sent until :meth:`acknowledge_failure`.

        :raises NotDispatched: the request may not be sent, or no longer.
        """
        with self._slots:
            with self._lock:
                if self._closed or self._failed or not self._may_send(request):
                    raise NotDispatched
            token = before_send.set(lambda: self._check_again(request))
            try:
                yield
            except BaseException:
                # Before the place is free: else the next request would be sent before the failure is known.
                self._failed.append(request)
                raise
            finally:
                before_send.reset(token)

    def _check_again(self, request: T) -> None:
        if self._may_still_send is not None and not self._may_still_send(request):
            raise NotDispatched

    def acknowledge_failure(self, request: T) -> None:
        """Acknowledge a failed request, so that sending may go on."""
        if request in self._failed:
            self._failed.remove(request)

    def close(self) -> None:
        """Stop sending for good: what was not sent when this returns never is."""
        with self._lock:
            self._closed = True
