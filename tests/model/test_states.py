"""Every history of one recipient up to a depth, through the transition function: none breaks a promise.

With LINGYANG_PROOF in the environment there are more than a million of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from airflow_provider_lingyang.delivery.request_state import TRANSITIONS, RequestEvent, RequestState
from tests.model import states

PROOF = bool(os.environ.get("LINGYANG_PROOF"))
S, E = RequestState, RequestEvent


@pytest.mark.at_length
def test_no_history_breaks_a_promise(summary: Callable[[str], None]) -> None:
    found, text = states.report(8 if PROOF else 6)
    summary(text)
    assert [each.broken for each in found if each.broken] == []
    assert sum(each.histories for each in found) >= (1_000_000 if PROOF else 50_000)


@pytest.mark.parametrize("setting", states.SETTINGS, ids=str)
def test_each_history_is_distinct(setting: states.Setting) -> None:
    found = states.Found(setting, 5, seen=set()).explore()
    assert found.seen is not None
    assert len(found.seen) == found.histories > 1000


def test_every_transition_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    played = set()
    transition = states.request_state.transition

    def noting(state: RequestState, event: RequestEvent) -> RequestState:
        played.add((state, event))
        return transition(state, event)

    monkeypatch.setattr(states.request_state, "transition", noting)
    for setting in states.SETTINGS:
        states.Found(setting, 6).explore()
    assert played == {(state, event) for state, events in TRANSITIONS.items() for event in events}


@pytest.mark.parametrize(
    ("state", "event", "following"),
    [
        # A time-out, or an error of any kind, frees.
        (S.INTENDED, E.UNANSWERED, S.ACCEPTED),
        (S.DISPATCHED, E.UNANSWERED, S.PENDING),
        (S.DISPATCHED, E.UNANSWERED, S.INTENDED),
        (S.DISPATCHED, E.UNANSWERED, S.REJECTED),
        (S.IN_DOUBT, E.UNANSWERED, S.PENDING),
        (S.IN_DOUBT, E.NOT_EXECUTED, S.PENDING),
        (S.IN_DOUBT, E.NOT_EXECUTED, S.INTENDED),
        # What follows an ambiguous attempt proves something.
        (S.RETRIED, E.UNANSWERED, S.INTENDED),
        (S.RETRIED, E.REFUSED, S.REJECTED),
        (S.RETRIED, E.NOT_EXECUTED, S.INTENDED),
        # The end of a try forgets.
        (S.IN_DOUBT, E.RELEASED, S.PENDING),
        (S.IN_DOUBT, E.INTENT_WRITTEN, S.INTENDED),
        # Proofs are mixed up.
        (S.DISPATCHED, E.REFUSED, S.ACCEPTED),
        (S.DISPATCHED, E.NOT_EXECUTED, S.REJECTED),
        (S.DISPATCHED, E.EXECUTED, S.PENDING),
        (S.IN_DOUBT, E.ABSENT, S.REJECTED),
        (S.IN_DOUBT, E.ABSENT, S.ACCEPTED),
        (S.IN_DOUBT, E.EXECUTED, S.PENDING),
        (S.IN_DOUBT, E.EXECUTED, S.REJECTED),
        # A recipient is lost.
        (S.IN_DOUBT, E.ABSENT, S.IN_DOUBT),
        # An event that happens is illegal.
        (S.INTENDED, E.NOT_EXECUTED, None),
        (S.IN_DOUBT, E.SENT, None),
        (S.PENDING, E.RELEASED, None),
    ],
    ids=lambda value: value.name if value else "illegal",
)
def test_a_broken_transition_is_found(
    monkeypatch: pytest.MonkeyPatch, state: RequestState, event: RequestEvent, following: RequestState | None
) -> None:
    if following is None:
        monkeypatch.delitem(TRANSITIONS[state], event)
    else:
        monkeypatch.setitem(TRANSITIONS[state], event, following)
    assert any(states.Found(setting, 6).explore().broken for setting in states.SETTINGS)
