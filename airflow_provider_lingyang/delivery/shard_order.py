"""The order of ``batch_num`` across the shards of a campaign: task instances that each send a part of its audience."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_lingyang.audience.store import order_key
from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.delivery.schedule import SendSchedule
from airflow_provider_lingyang.errors import SubmissionStopped
from airflow_provider_lingyang.ledger.base import Ledger, Shard

SENT_ALL = "~"
"""Orders behind every batch."""
_POLLED_FOR, _POLLED_EVERY = 10.0, 1.0
"""Seconds for which a shard waits before it is deferred, and between two looks at the others."""
_DEFERRED_FOR = 30.0
_NAMED = 10


@dataclass(slots=True, kw_only=True)
class ShardOrder:
    """Holds a batch back until every shard has sent all of the earlier ones.

    :param ledger: where shards leave how far they are.
    :param shards: how many there are.
    :param patience: seconds that a batch waits for other shards at most.
    :param schedule: makes the error that defers the task.
    :param cancellation: ends a wait when the task is asked to stop.
    :param is_new: whether the try has just begun, and does not go on after a deferral: the patience begins anew.
    """

    ledger: Ledger
    shards: int
    patience: float
    schedule: SendSchedule
    cancellation: Cancellation
    is_new: bool = False

    def wait_for(self, batch_num: str | None) -> None:
        """Return once a batch may be sent.

        :raises DeferSending: other shards need longer than is waited for here.
        :raises SubmissionStopped: they have needed longer than the patience; or the task was asked to stop.
        :raises LedgerError: the ledger cannot be read or written.
        """
        key = order_key(batch_num)
        polled_until = time.monotonic() + _POLLED_FOR
        anew, self.is_new = self.is_new, False
        while True:
            found = self.ledger.report_progress(key, anew=anew)
            anew = False
            waits = self._waits(key, found)
            if not waits:
                return
            why = f"batch_num {_shown(key)} waits for the earlier ones of other shards: {'; '.join(waits)}"
            (since,) = (each.since for each in found if each.is_own)
            # A closed window holds all of them up: the patience counts from when it opened.
            since = max(since, self.schedule.open_since())
            if self.cancellation.requested():
                raise SubmissionStopped(f"{why}. The task was asked to stop; the rest was not sent")
            if time.time() - since > self.patience:
                raise SubmissionStopped(
                    f"{why}. It has waited for {self.patience:g} s ([lingyang] shard_patience); the rest was not sent. "
                    "See what holds those shards up, clear them where they failed, and clear this task"
                )
            if time.monotonic() >= polled_until:
                raise self.schedule.defer_for(_DEFERRED_FOR, why)
            self.cancellation.sleep(_POLLED_EVERY)

    def _waits(self, key: str, found: Sequence[Shard]) -> list[str]:
        """Return in words what a batch waits for."""
        behind = [each for each in found if each.batch < key]
        waits = [
            f"map_index {each.map_index} is at batch_num {_shown(each.batch)}" for each in behind[:_NAMED]
        ]
        if len(behind) > _NAMED:
            waits.append(f"{len(behind) - _NAMED} more are behind")
        if (missing := self.shards - len(found)) > 0:
            known = {each.map_index for each in found}
            names = [str(index) for index in range(self.shards) if index not in known][:_NAMED]
            waits.append(
                f"{missing} of {self.shards} have not begun (not seen: map_index {', '.join(names)})"
            )
        return waits


def _shown(key: str) -> str:
    return key[3:] or ("0" if key else "(none)")
