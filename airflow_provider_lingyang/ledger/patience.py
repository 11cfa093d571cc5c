"""How long a ledger that is away is waited for, and the ledger whose calls wait for it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.errors import (
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    LedgerUnusableError,
)
from airflow_provider_lingyang.ledger.base import Ledger, RecordedRequest

log = logging.getLogger(__name__)

T = TypeVar("T")
_FIRST, _LONGEST = 0.25, 5.0
"""Seconds between two attempts: at first, and at most."""
_LONGEST_AT_THE_END = 0.5
"""The same, once the task was asked to stop."""


class Patience:
    """Decides when a call of the ledger that failed is made again.

    :param seconds: how long, from the first failure to the last attempt; 0: no call is repeated.
    :param cancellation: once the task was asked to stop, its few seconds are the end, whatever ``seconds`` says.
    :param monotonic: returns seconds.
    """

    def __init__(
        self, seconds: float, cancellation: Cancellation, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._cancellation = cancellation
        self._monotonic = monotonic
        self._since: float | None = None
        self._pause = 0.0
        self._next = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the last call failed. For any thread."""
        return self._since is not None

    @property
    def wait(self) -> float:
        """Seconds until the next attempt; 0 or less: now."""
        if self._since is None or self._cancellation.grace_expired():
            return 0.0
        return self._next - self._monotonic()

    def _failed(self, error: LedgerError) -> None:
        # What is not known may be over in a moment.
        if isinstance(error, (LedgerFencedError, LedgerRefusedError, LedgerUnusableError)):
            raise error
        now = self._monotonic()
        first = self._since is None
        self._since = since = now if self._since is None else self._since
        if now - since >= self._seconds or self._cancellation.grace_expired():
            raise error
        self._pause = _FIRST if first else min(2 * self._pause, _LONGEST)
        longest = _LONGEST_AT_THE_END if self._cancellation.requested() else _LONGEST
        # Many tasks may wait for one database.
        pause = random.uniform(0.5, 1.0) * min(self._pause, longest)
        self._next = min(now + pause, since + self._seconds)
        if first:
            log.warning("%s; nothing is sent meanwhile, and it is tried again for %g s", error, self._seconds)

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Make a call once in this context, which swallows its error where it is to be made again.

        :raises LedgerError: it failed until patience ended, or for good.
        """
        try:
            yield
        except LedgerError as error:
            self._failed(error)
        else:
            if self._since is not None:
                log.info("the ledger is back after %.1f s", self._monotonic() - self._since)
            self._since = None

    def run(self, call: Callable[[], T]) -> T:
        """Make a call until it succeeds; raises as :meth:`attempt` does."""
        while True:
            with self.attempt():
                return call()
            self.linger()

    def linger(self) -> None:
        """Wait until the next attempt."""
        self._cancellation.linger(self.wait)


class _PatientLedger:
    def __init__(self, ledger: Ledger, patience: Patience) -> None:
        self.ledger = ledger
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.ledger, name)
        if not callable(found):
            return found
        return lambda *args, **how: self._patience.run(lambda: found(*args, **how))

    def close(self) -> None:
        self.ledger.close()

    def history(self, audience: Callable[[], Iterable[bytes]] | None = None) -> Iterator[RecordedRequest]:
        return self._all(lambda: self.ledger.history(audience))

    def requests(self, task_unique_codes: Collection[str]) -> Iterator[RecordedRequest]:
        return self._all(lambda: self.ledger.requests(task_unique_codes))

    def _all(self, read: Callable[[], Iterator[RecordedRequest]]) -> Iterator[RecordedRequest]:
        # From the start again: of a request that comes twice the later state counts.
        while True:
            with self._patience.attempt():
                yield from read()
                return
            self._patience.linger()


def patient(ledger: Ledger, patience: Patience) -> Ledger:
    """Return a ledger that behaves as another one, and repeats its calls while that one is away. Its calls block."""
    return cast("Ledger", _PatientLedger(ledger, patience))


def impatient(ledger: Ledger) -> Ledger:
    """Return the ledger that :func:`patient` was given, or the ledger itself."""
    return ledger.ledger if isinstance(ledger, _PatientLedger) else ledger
