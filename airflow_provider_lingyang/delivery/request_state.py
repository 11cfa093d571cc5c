"""The states of a request, and which event leads from one to another. Pure.

A request holds several recipients, and their outcomes may differ: the state is that of each recipient of the request.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class RequestState(IntEnum):
    """What is known of a recipient's request."""

    PENDING = 0
    """In no request that may be sent or was executed: free to be sent."""
    INTENDED = 1
    """The ledger has the intent; no byte was written, or what was written was provably not executed."""
    DISPATCHED = 2
    """A byte may have been written, and no answer is recorded."""
    IN_DOUBT = 3
    """May have been executed, and nothing of it is under way."""
    RETRIED = 4
    """In doubt, and dispatched again under its idempotency key: only evidence of an execution counts."""
    ACCEPTED = 5
    """Executed. Final."""
    REJECTED = 6
    """Refused by the platform. Final."""


class RequestEvent(Enum):
    """What becomes known."""

    INTENT_WRITTEN = "the ledger has the intent"
    SENT = "there is a connection, and nothing forbids sending"
    EXECUTED = "an echo, a look-up or a person says so"
    REFUSED = "the platform refuses the request, or a success leaves the recipient out and nothing speaks against it"
    NOT_EXECUTED = "this attempt was provably not executed"
    UNANSWERED = "time-out, reset, HTTP 5xx, an answer that is unreadable or contradicts itself"
    ABSENT = "a look-up proves the absence, or a person says not_executed"
    RELEASED = "this try does not send it any more"


class IllegalTransition(Exception):
    """An event that cannot happen in a state."""

    def __init__(self, state: RequestState, event: RequestEvent) -> None:
        super().__init__(f"{event.name} is no event of a request that is {state.name}")


_S, _E = RequestState, RequestEvent
TRANSITIONS: dict[RequestState, dict[RequestEvent, RequestState]] = {
    _S.PENDING: {
        _E.INTENT_WRITTEN: _S.INTENDED,
        _E.RELEASED: _S.PENDING,
    },
    _S.INTENDED: {
        _E.SENT: _S.DISPATCHED,
        _E.NOT_EXECUTED: _S.INTENDED,
        _E.UNANSWERED: _S.IN_DOUBT,
        _E.RELEASED: _S.PENDING,
    },
    _S.DISPATCHED: {
        _E.EXECUTED: _S.ACCEPTED,
        _E.REFUSED: _S.REJECTED,
        _E.NOT_EXECUTED: _S.INTENDED,
        _E.UNANSWERED: _S.IN_DOUBT,
    },
    _S.IN_DOUBT: {
        _E.INTENT_WRITTEN: _S.IN_DOUBT,
        _E.SENT: _S.RETRIED,
        _E.NOT_EXECUTED: _S.IN_DOUBT,
        _E.UNANSWERED: _S.IN_DOUBT,
        _E.EXECUTED: _S.ACCEPTED,
        _E.ABSENT: _S.PENDING,
        _E.RELEASED: _S.IN_DOUBT,
    },
    _S.RETRIED: {
        _E.EXECUTED: _S.ACCEPTED,
        _E.REFUSED: _S.IN_DOUBT,
        _E.NOT_EXECUTED: _S.IN_DOUBT,
        _E.UNANSWERED: _S.IN_DOUBT,
    },
    _S.ACCEPTED: {},
    _S.REJECTED: {},
}


def transition(state: RequestState, event: RequestEvent) -> RequestState:
    """Return the state that follows an event.

    :raises IllegalTransition: the event cannot happen in this state.
    """
    if (following := TRANSITIONS[state].get(event)) is None:
        raise IllegalTransition(state, event)
    return following
