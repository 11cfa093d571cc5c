"""The states of a request, their diagram and what the evidence rules say of them."""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_provider_lingyang.delivery.request_state import (
    TRANSITIONS,
    IllegalTransition,
    RequestEvent,
    RequestState,
    transition,
)

ARCHITECTURE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text(encoding="utf-8")
SECTION = ARCHITECTURE.partition("## The states of a request\n")[2].partition("\n## ")[0]
MAY_HAVE_BEEN_EXECUTED = (RequestState.IN_DOUBT, RequestState.RETRIED)


def legal() -> set[tuple[str, str, str]]:
    """Every transition that the function takes, found by trying all pairs."""
    found = set()
    for state, event in itertools.product(RequestState, RequestEvent):
        with suppress(IllegalTransition):
            found.add((state.name, event.name, transition(state, event).name))
    return found


def test_the_diagram_is_the_transition_function() -> None:
    drawn = re.findall(r"^ +(\w+) --> (\w+): (\w+)$", SECTION, re.MULTILINE)
    assert len(drawn) == len(set(drawn))
    assert {(state, event, following) for state, following, event in drawn} == legal()


def test_the_diagram_begins_and_ends_where_the_states_do() -> None:
    assert re.findall(r"\[\*\] --> (\w+)$", SECTION, re.MULTILINE) == [RequestState.PENDING.name]
    final = {state.name for state, events in TRANSITIONS.items() if not events}
    assert (
        set(re.findall(r"^ +(\w+) --> \[\*\]$", SECTION, re.MULTILINE)) == final == {"ACCEPTED", "REJECTED"}
    )


def test_the_table_has_every_event() -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE) == [event.name for event in RequestEvent]


def test_every_state_is_reached_and_every_event_is_used() -> None:
    reached, todo = {RequestState.PENDING}, [RequestState.PENDING]
    while todo:
        for following in TRANSITIONS[todo.pop()].values():
            if following not in reached:
                reached.add(following)
                todo.append(following)
    assert reached == set(RequestState) == set(TRANSITIONS)
    assert {event for events in TRANSITIONS.values() for event in events} == set(RequestEvent)


@pytest.mark.parametrize("state", MAY_HAVE_BEEN_EXECUTED)
def test_only_evidence_about_the_recipient_settles_a_request_in_doubt(state: RequestState) -> None:
    settles = {
        event: following
        for event, following in TRANSITIONS[state].items()
        if following not in MAY_HAVE_BEEN_EXECUTED
    }
    proofs = {RequestEvent.EXECUTED: RequestState.ACCEPTED}
    if state is RequestState.IN_DOUBT:
        proofs[RequestEvent.ABSENT] = RequestState.PENDING
    assert settles == proofs


def test_no_request_is_sent_without_an_intent() -> None:
    with pytest.raises(IllegalTransition, match=r"^SENT is no event of a request that is PENDING$"):
        transition(RequestState.PENDING, RequestEvent.SENT)
