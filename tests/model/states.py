"""One recipient, some tries, a ledger and a gateway: every history up to a depth, through the transition function.

Beside ``explore.py``, which plays fewer histories through the whole code, this drives
:func:`~airflow_provider_lingyang.delivery.request_state.transition` alone, with the least around it that the promises
need: who owns the recipient in the ledger, whether an intent is fresh, what the gateway has executed.

``python -m tests.model.states [DEPTH]`` from the project's folder prints the figures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_provider_lingyang.delivery import request_state
from airflow_provider_lingyang.delivery.request_state import IllegalTransition, RequestEvent, RequestState

PENDING, INTENDED, DISPATCHED, IN_DOUBT, RETRIED, ACCEPTED, REJECTED = RequestState
UNDER_WAY = (DISPATCHED, RETRIED)
TRIES = 3
ATTEMPTS = 2
"""How often a try sends at most."""
_STEPS_TO_THE_END = 80

NOTHING, INTENT, FREE = "", "intent", "free"
"""What the ledger says of the recipient, beside the names of the two final states."""
UNDECIDED, EXECUTED, NOT_EXECUTED = "undecided", "executed", "not executed"
"""What the gateway has done with a request that is under way."""


After = Callable[..., "World"]
"""Gives the world after an event of a try's request, with other changes of the try."""


class Try(NamedTuple):
    """One process.

    :param fresh: whether its intent is young: no other process has waited since it was taken over.
    :param unwritten: an outcome that is to be written.
    :param arrived: what the gateway has done with its request.
    :param settled: whether so much time has passed since it was in doubt that an absence counts.
    :param asked: whether a look-up has proved nothing already.
    :param ends: whether it ends with the next write.
    """

    state: RequestState
    alive: bool = True
    fresh: bool = False
    unwritten: str = NOTHING
    arrived: str = NOTHING
    attempts: int = 0
    settled: bool = False
    asked: bool = False
    ends: bool = False


class World(NamedTuple):
    """Everything that there is.

    :param owner: the number of the try that may write to the ledger: the latest.
    :param late: requests without a sender that the gateway may still execute.
    :param executions: how often the recipient was contacted.
    :param refused: whether the gateway has ever refused the recipient.
    """

    ledger: str = NOTHING
    owner: int = 0
    tries: tuple[Try, ...] = (Try(PENDING),)
    late: int = 0
    executions: int = 0
    refused: bool = False


@dataclass(frozen=True)
class Setting:
    """What the author of the campaign has chosen.

    :param dedupes: the gateway executes a code once, and the connection says so.
    :param look_up: whether there is one; else a person tells what was executed.
    """

    dedupes: bool = False
    look_up: bool = True


SETTINGS = tuple(Setting(dedupes, look_up) for dedupes in (False, True) for look_up in (False, True))


def moves(setting: Setting, world: World) -> Iterator[tuple[str, World]]:
    """Yield everything that may happen next, and what is so then. Each has a name of its own."""
    for number, one in enumerate(world.tries):
        if one.alive:
            for name, following in _of_a_try(setting, world, number, one):
                yield f"{number} {name}", following
            late = world.late + (one.arrived == UNDECIDED)
            yield f"{number} killed", _with(world, number, one, alive=False)._replace(late=late)
    if world.late:
        yield "late: executed", _executed(setting, world)._replace(late=world.late - 1)
        yield "late: dropped", world._replace(late=world.late - 1)
    elif not any(one.alive and one.arrived == UNDECIDED for one in world.tries):
        # So long that whatever was sent has been executed and is found, or never will be.
        tries = tuple(_later(one) for one in world.tries)
        if tries != world.tries:
            yield "time passes", world._replace(tries=tries)
    if len(world.tries) < TRIES:
        yield "next try", _next_try(world)


def _later(one: Try) -> Try:
    return one._replace(fresh=False, settled=one.state is IN_DOUBT) if one.alive else one


def _with(world: World, number: int, one: Try, **changes: object) -> World:
    tries = world.tries
    changed = one._replace(**changes)  # type: ignore[arg-type]
    return world._replace(tries=(*tries[:number], changed, *tries[number + 1 :]))


def _executed(setting: Setting, world: World) -> World:
    return world if setting.dedupes and world.executions else world._replace(executions=world.executions + 1)


def _next_try(world: World) -> World:
    state = {INTENT: IN_DOUBT, ACCEPTED.name: ACCEPTED, REJECTED.name: REJECTED}.get(world.ledger, PENDING)
    following = Try(state, alive=state not in (ACCEPTED, REJECTED))
    return world._replace(owner=len(world.tries), tries=(*world.tries, following))


def _of_a_try(setting: Setting, world: World, number: int, one: Try) -> Iterator[tuple[str, World]]:
    state = one.state

    def after(event: RequestEvent, **changes: object) -> World:
        return _with(world, number, one, **{"state": request_state.transition(state, event), **changes})

    if one.unwritten:
        yield "writes the outcome", _write(world, number, one)
    elif state is PENDING:
        if world.owner != number:
            yield "is fenced", _with(world, number, one, alive=False)
        else:
            yield (
                "writes the intent",
                after(RequestEvent.INTENT_WRITTEN, fresh=True, attempts=0)._replace(ledger=INTENT),
            )
        yield "ends", after(RequestEvent.RELEASED, alive=False)
    elif state in UNDER_WAY:
        yield from _answers(setting, world, number, one, after)
    else:
        yield from _sends(setting, world, number, one, after)
        if state is IN_DOUBT:
            yield from _learns(setting, world, number, one, after)


def _write(world: World, number: int, one: Try) -> World:
    ends = one.ends or one.unwritten != FREE
    # That a recipient was accepted may be written whoever owns it, and nothing overwrites it.
    may = world.owner == number or one.unwritten == ACCEPTED.name
    following = _with(world, number, one, unwritten=NOTHING, alive=may and not ends)
    return following._replace(ledger=one.unwritten) if may and world.ledger != ACCEPTED.name else following


def _sends(
    setting: Setting, world: World, number: int, one: Try, after: After
) -> Iterator[tuple[str, World]]:
    """The request waits to be sent for the first time, again, or under its code."""
    state = one.state
    if one.attempts < ATTEMPTS and (state is INTENDED or setting.dedupes):
        if one.fresh:
            attempts = one.attempts + 1
            yield "sends", after(RequestEvent.SENT, arrived=UNDECIDED, attempts=attempts)
            yield "does not connect", after(RequestEvent.NOT_EXECUTED, attempts=attempts)
            yield "fails before it sends", after(RequestEvent.UNANSWERED, attempts=attempts, settled=False)
        elif world.owner != number:
            yield "is fenced", _with(world, number, one, alive=False)
        elif state is IN_DOUBT:
            yield "writes the intent again", after(RequestEvent.INTENT_WRITTEN, fresh=True)
        else:
            yield "renews the intent", _with(world, number, one, fresh=True)
    released = after(RequestEvent.RELEASED, unwritten=FREE, ends=True)
    if released.tries[number].state is PENDING:
        yield "ends", released
    else:
        yield "ends", after(RequestEvent.RELEASED, alive=False)


def _answers(
    setting: Setting, world: World, number: int, one: Try, after: After
) -> Iterator[tuple[str, World]]:
    """The request is under way."""
    doubt = {"settled": False, "asked": False, "arrived": NOTHING}
    if one.arrived == UNDECIDED:
        yield "is executed", _executed(setting, _with(world, number, one, arrived=EXECUTED))
        yield "is dropped", _with(world, number, one, arrived=NOT_EXECUTED)
        yield (
            "is refused",
            _learned(after(RequestEvent.REFUSED, arrived=NOTHING), number)._replace(refused=True),
        )
        yield "is throttled", after(RequestEvent.NOT_EXECUTED, arrived=NOTHING)
        yield "times out", after(RequestEvent.UNANSWERED, **doubt)._replace(late=world.late + 1)
        return
    if one.arrived == EXECUTED:
        yield "is echoed", _learned(after(RequestEvent.EXECUTED, arrived=NOTHING), number)
    yield "times out", after(RequestEvent.UNANSWERED, **doubt)


def _learns(
    setting: Setting, world: World, number: int, one: Try, after: After
) -> Iterator[tuple[str, World]]:
    """The request is in doubt: a look-up, a person or another try's late outcome tells."""
    if one.settled and world.ledger == ACCEPTED.name:
        yield "reads a late outcome", _learned(after(RequestEvent.EXECUTED), number)
    if setting.look_up and not one.asked:
        yield "look-up proves nothing", after(RequestEvent.UNANSWERED, asked=True)
    if setting.look_up and world.executions:
        yield "look-up finds it", _learned(after(RequestEvent.EXECUTED), number)
    elif one.settled:
        who = "look-up" if setting.look_up else "person"
        event = RequestEvent.EXECUTED if world.executions else RequestEvent.ABSENT
        yield f"{who} says {event.name}", _learned(after(event), number)


def _learned(world: World, number: int) -> World:
    """Have the outcome written that a try has learned, if its state is one."""
    one = world.tries[number]
    unwritten = {ACCEPTED: ACCEPTED.name, REJECTED: REJECTED.name, PENDING: FREE}.get(one.state, NOTHING)
    return _with(world, number, one, unwritten=unwritten)


def violation(world: World) -> str | None:
    """Return which promise is broken, or None."""
    if world.executions > 1:
        return f"contacted {world.executions} times"
    if world.executions and world.ledger in (FREE, REJECTED.name):
        return f"contacted, and {world.ledger} in the ledger"
    if not world.executions and world.ledger == ACCEPTED.name:
        return "accepted in the ledger, and not contacted"
    for number, one in enumerate(world.tries):
        if one.state is ACCEPTED and not world.executions:
            return "accepted, and not contacted"
        if one.state is REJECTED and not world.refused:
            return "rejected, and never refused"
        # What a try has not written that was killed or replaced, the next one may find out otherwise.
        if one.state is REJECTED and world.executions and number == world.owner and one.alive:
            return "rejected, and contacted"
    return None


_ORDER = (
    *(
        "writes",
        "is executed",
        "is echoed",
        "times out",
        "late: executed",
        "reads",
        "look-up finds",
        "person says",
    ),
    *("look-up says", "renews", "sends", "is fenced", "time passes", "ends", "next try"),
)
"""What happens where nothing goes wrong any more, the likeliest first."""


@dataclass
class Found:
    """What was found.

    :param histories: that were played: each is a sequence of events of its own.
    :param worlds: what was so at the end of any of them.
    :param broken: the first history that breaks a promise, and which.
    """

    setting: Setting
    depth: int
    histories: int = 0
    worlds: set[World] = field(default_factory=set)
    broken: tuple[list[str], str] | None = None
    seen: set[tuple[str, ...]] | None = None
    """The histories, where they are to be kept."""

    def explore(self) -> Found:
        self._ended: dict[World, str | None] = {}
        self._walk(World(), self.depth, [])
        return self

    def _walk(self, world: World, depth: int, history: list[str]) -> None:
        self.histories += 1
        if self.seen is not None:
            self.seen.add(tuple(history))
        if (wrong := violation(world)) is not None:
            self.broken = list(history), wrong
            return
        if not depth:
            if world not in self.worlds:
                self.worlds.add(world)
                if (wrong := self._lost(world)) is not None:
                    self.broken = list(history), wrong
            return
        try:
            following = list(moves(self.setting, world))
        except IllegalTransition as error:
            self.broken = list(history), str(error)
            return
        for name, after in following:
            history.append(name)
            self._walk(after, depth - 1, history)
            history.pop()
            if self.broken:
                return

    def _lost(self, world: World) -> str | None:
        """Let all go on well, and return what is wrong where the recipient is neither contacted nor refused then."""
        passed = []
        for _ in range(_STEPS_TO_THE_END):
            if world in self._ended:
                wrong = self._ended[world]
                break
            passed.append(world)
            if (wrong := violation(world)) is not None:
                break
            if world.ledger in (ACCEPTED.name, REJECTED.name) and not any(one.alive for one in world.tries):
                break
            try:
                world = self._go_on(world)
            except IllegalTransition as error:
                wrong = str(error)
                break
        else:
            wrong = "it never ends"
        self._ended |= dict.fromkeys(passed, wrong)
        return wrong

    def _go_on(self, world: World) -> World:
        found = dict(moves(self.setting, world))
        names = {name: name.partition(" ")[2] if name[0].isdigit() else name for name in found}
        for wanted in _ORDER:
            for name, plain in names.items():
                if plain.startswith(wanted) and found[name] != world:
                    return found[name]
        return _next_try(world)


def report(depth: int) -> tuple[list[Found], str]:
    """Explore all settings; return what was found, and that in one line."""
    started = time.monotonic()
    found = [Found(setting, depth).explore() for setting in SETTINGS]
    histories = sum(each.histories for each in found)
    worlds = sum(len(each.worlds) for each in found)
    broken = sum(each.broken is not None for each in found)
    return found, (
        f"states: {histories} distinct histories of up to {depth} events through the transition function, "
        f"{worlds} different ends, {broken} settings with a broken promise; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    found, text = report(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
    for each in found:
        print(each.setting, each.histories, len(each.worlds), each.broken)
    print(text)
