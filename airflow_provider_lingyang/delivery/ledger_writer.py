"""Writes a submission's intents and outcomes, and keeps the outcomes while the ledger is away."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from airflow_provider_lingyang.errors import LedgerFencedError
from airflow_provider_lingyang.ledger.base import Intent, Ledger, Outcome
from airflow_provider_lingyang.ledger.patience import Patience


class LedgerWriter:
    """Keeps outcomes until the ledger has them. For the main thread; does not wait, but for :meth:`flush`.

    :param ledger: what is written to.
    :param patience: how long it may be away.
    """

    def __init__(self, ledger: Ledger, patience: Patience) -> None:
        self._ledger = ledger
        self._patience = patience
        self.outcomes: list[Outcome] = []
        """To be written with the next intents."""

    def write(self, intents: Sequence[Intent] = ()) -> bool:
        """Write the outcomes, and intents.

        :return: False where the ledger is away: to be called again, with the same intents until they are written.
        :raises LedgerError: it was away for too long, or no repetition helps.
        """
        if self._patience.wait > 0:
            return False
        with self._patience.attempt():
            self._attempt(intents)
            return True
        return False

    def _attempt(self, intents: Sequence[Intent]) -> None:
        try:
            self._ledger.write(self.outcomes, intents)
        except LedgerFencedError as error:
            if error.unwritten is not None:
                self.outcomes = list(error.unwritten)
            raise
        self.outcomes = []

    def renew(self, intents: Sequence[Intent]) -> bool:
        """Write intents again as they are; returns and raises as :meth:`write` does."""
        if self._patience.wait <= 0:
            with self._patience.attempt():
                self._ledger.renew(intents)
                return True
        return False

    def flush(self, *, once: bool = False) -> None:
        """Write the outcomes, and wait for the ledger where it is away.

        :param once: make one attempt, whatever comes of it.
        :raises LedgerError: it cannot be written.
        """
        if self.outcomes and once:
            self._attempt(())
        while self.outcomes and not self.write():
            self._patience.linger()

    def save_accepted(self) -> None:
        """After a fence, make one attempt to write accepted recipients: that is never forbidden.

        :raises LedgerError: it cannot be written.
        """
        if any(outcome.accepted for outcome in self.outcomes):
            with suppress(LedgerFencedError):
                self._attempt(())

    def lacking(self) -> dict[str, int]:
        """Return how many recipients there are of whose outcome the ledger does not know, by state."""
        counts = {
            "accepted": sum(len(each.accepted) for each in self.outcomes),
            "rejected": sum(len(each.rejected) for each in self.outcomes),
            "not_executed": sum(len(each.not_executed) for each in self.outcomes),
        }
        return {state: count for state, count in counts.items() if count}
