"""Limits of one receiver (``isv.BUSINESS_LIMIT_CONTROL``): how long to wait, and which recipient it is.

The platform limits how often one receiver is contacted: in a minute, an hour, a day. It refuses the whole request and
does not say which recipient it is. Waiting may never end, so a campaign waits up to a ceiling, and then sends the
recipients of the request one by one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from airflow_provider_lingyang.delivery.dispatch import Dispatch
from airflow_provider_lingyang.gateway.errors import ThrottledError
from airflow_provider_lingyang.ledger.base import Ledger
from airflow_provider_lingyang.ledger.patience import Patience

FACT = "receiver_limit_since"
"""In the ledger: epoch seconds of the campaign's first refusal for a limit of a receiver."""
_WAIT = 120.0
"""Seconds to wait where the gateway does not say."""


@dataclass(slots=True)
class Split:
    """The recipients of a request that was refused, each in a request of its own.

    :param refused: requests that were refused for the limit again: a limit of the account would refuse all of them.
    :param accepted: how many were accepted.
    """

    refused: list[Dispatch] = field(default_factory=list)
    accepted: int = 0


@dataclass(slots=True)
class ReceiverLimit:
    """Decides what a refusal for a limit of one receiver means.

    :param ledger: keeps since when the campaign has waited, for all its tries.
    :param patience: how long the ledger is waited for.
    :param seconds: how long the campaign waits, counted from its first such refusal.
    """

    ledger: Ledger
    patience: Patience
    seconds: float
    _since: float | None = field(init=False, default=None)
    _splits: dict[str, Split] = field(init=False, default_factory=dict)

    def wait(self, error: ThrottledError) -> float:
        """Return the seconds to wait before a request that was refused is sent again; 0: the ceiling is reached.

        :raises LedgerError: the ledger is away for too long.
        """
        now = time.time()
        if self._since is None:
            known = self.patience.run(lambda: self.ledger.fact(FACT))
            # A moment in the future is of a clock that was wrong.
            if not isinstance(known, (int, float)) or not 0 < known <= now:
                known = now
                self.patience.run(lambda: self.ledger.set_fact(FACT, now))
            self._since = float(known)
        left = self._since + self.seconds - now
        return max(0.0, min(1.0 + (error.retry_after or _WAIT), left))

    def split(self, biz_ids: Sequence[str]) -> None:
        """Note that recipients of one request go on in requests of their own."""
        split = Split()
        self._splits |= dict.fromkeys(biz_ids, split)

    def split_of(self, dispatch: Dispatch) -> Split | None:
        """Return what a request was split from, or None."""
        biz_ids = dispatch.request.biz_ids
        return self._splits.get(biz_ids[0]) if len(biz_ids) == 1 else None

    def accepted(self, dispatch: Dispatch) -> list[Dispatch]:
        """Note that a request was accepted, and return those whose own limit that proves.

        Only those that were refused before it left: what refused them is not a limit of the account.
        """
        split = self.split_of(dispatch)
        if split is None:
            return []
        split.accepted += 1
        proven = [each for each in split.refused if each.ended_at <= dispatch.dispatched_at]
        split.refused = [each for each in split.refused if each.ended_at > dispatch.dispatched_at]
        return proven

    def end(self) -> list[Split]:
        """Return the splits that have refused requests of which nothing proves whose limit it is, and forget them."""
        found = {id(split): split for split in self._splits.values() if split.refused}
        self._splits = {key: split for key, split in self._splits.items() if id(split) not in found}
        return list(found.values())
