"""A request from its intent to its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_lingyang.delivery.manifest import RequestInDoubt
from airflow_provider_lingyang.delivery.request_state import RequestEvent, RequestState, transition
from airflow_provider_lingyang.delivery.requests import BatchRequest
from airflow_provider_lingyang.gateway.errors import ReceiverLimitedError
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

    doubt: RequestInDoubt
    written_at: float
    settled_at: float = 0.0


@dataclass(slots=True)
class Dispatch:
    """A request from its intent to its outcome.

    :param state: of the recipients that have no outcome yet.
    :param settled_at: see :class:`RetriedRequest`; 0 where no other process has sent it.
    """

    request: BatchRequest
    intent: Intent
    state: RequestState = RequestState.PENDING
    settled_at: float = 0.0
    fresh_until: float = 0.0
    attempts: int = 0
    dispatched_at: float = 0.0
    """When the last attempt was handed to a sender thread: no byte of it was written before."""
    ended_at: float = 0.0
    """When the last attempt was over: from then on nothing of it can leave this machine."""
    booked: RequestInDoubt | None = None
    in_doubt: Sequence[str] = ()
    why: str = ""
    limited: ReceiverLimitedError | None = None
    """The last refusal for a limit of one receiver."""

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
            request.kept,
        )
        return cls(
            request,
            intent,
            RequestState.IN_DOUBT if before else RequestState.PENDING,
            settled_at=before.settled_at if before else 0.0,
            booked=before.doubt if before else None,
            in_doubt=request.biz_ids,
        )

    def apply(self, event: RequestEvent) -> RequestState:
        """Change the state, and return it.

        :raises IllegalTransition: the event cannot happen in this state.
        """
        self.state = transition(self.state, event)
        return self.state

    @property
    def is_under_way(self) -> bool:
        """Whether a byte of an attempt may have been written whose answer is not recorded."""
        return self.state in (RequestState.DISPATCHED, RequestState.RETRIED)

    @property
    def doubt(self) -> RequestInDoubt:
        """As it is booked, from before it is sent."""
        assert self.booked is not None
        return self.booked

    @property
    def limit(self) -> ReceiverLimitedError:
        """The refusal for a limit of one receiver that it got."""
        assert self.limited is not None
        return self.limited
