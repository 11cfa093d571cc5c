"""A request from its intent to its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_lingyang.delivery.manifest import UnknownRequest
from airflow_provider_lingyang.delivery.requests import BatchRequest
from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.ledger.base import Intent


class NotDispatched(Exception):
    """Sending was forbidden before a byte of the request was written."""


@dataclass(frozen=True, slots=True)
class RetriedRequest:
    """A request in doubt of an earlier try that is sent again under its code.

    :param doubt: as it is booked.
    :param written_at: epoch seconds of its first intent: a look-up must not take what it did then for another
        campaign's.
    :param settled_at: monotonic seconds from when a look-up knows of everything that its earlier senders sent.
    """

    doubt: UnknownRequest
    written_at: float
    settled_at: float = 0.0


@dataclass(slots=True)
class Dispatch:
    """A request from its intent to its outcome.

    :param settled_at: see :class:`RetriedRequest`; 0 where no other process has sent it.
    """

    request: BatchRequest
    intent: Intent
    settled_at: float = 0.0
    fresh_until: float = 0.0
    attempts: int = 0
    is_sent: bool = False
    """Whether a byte of the last attempt may have been written."""
    dispatched_at: float = 0.0
    """When the last attempt was handed to a sender thread: no byte of it was written before."""
    ended_at: float = 0.0
    """When the last attempt was over: from then on nothing of it can leave this machine."""
    booked: UnknownRequest | None = None
    unknown: Sequence[str] = ()
    why: str = ""
    ambiguous: bool = False
    """Whether an attempt may have been executed: then no later refusal proves anything."""
    limited: LingyangError | None = None
    """The refusal for a limit of one receiver, where the others' fate is to be looked up."""

    @classmethod
    def of(
        cls, request: BatchRequest, now: float, open_for: float, before: RetriedRequest | None
    ) -> Dispatch:
        """Return a request that is about to be intended.

        :param now: epoch seconds.
        :param open_for: seconds after which it can no longer be under way, once its intent cannot be written again.
        :param before: what is known of it where an earlier try has sent it.
        """
        written_at = min(now, before.written_at) if before else now
        intent = Intent(
            request.task_unique_code,
            request.batch_num,
            request.biz_ids,
            request.struct_digest,
            written_at,
            request.again,
            open_for,
        )
        return cls(
            request,
            intent,
            settled_at=before.settled_at if before else 0.0,
            booked=before.doubt if before else None,
            unknown=request.biz_ids,
            ambiguous=before is not None,
        )

    @property
    def doubt(self) -> UnknownRequest:
        """As it is booked, from before it leaves."""
        assert self.booked is not None
        return self.booked

    @property
    def limit(self) -> LingyangError:
        """The refusal for a limit of one receiver that it got."""
        assert self.limited is not None
        return self.limited
