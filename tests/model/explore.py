"""Plays every history up to a depth, counts the distinct ones, and judges each.

``python -m tests.model.explore "at length"`` from the project's folder; ``--help`` says more.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.model.events import Event
    from tests.model.world import Setting, World

ROOT = Path(__file__).parents[2]


def prepare() -> None:
    """Set Airflow's environment; it is read once, so before anything imports it."""
    home = tempfile.mkdtemp(prefix="lingyang-model-")
    os.environ |= {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "NO_PROXY": "127.0.0.1",
    }


@dataclass
class Found:
    """What an exploration found.

    :param played: histories that were played.
    :param distinct: fingerprints of the distinct ones.
    :param broken: stories of those that break a promise, shortest first.
    """

    played: int = 0
    distinct: set[str] = field(default_factory=set)
    broken: list[dict[str, Any]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)


def play(setting: Setting, choices: dict[int, int], only: Callable[[Event], bool]) -> World:
    from tests.model.world import Script, World

    world = World(setting, Script(choices, only))
    world.play()
    return world


def fingerprint(world: World) -> str:
    """Return what is the same for two histories that nobody could tell apart, or that differ in names only.

    Names are those of recipients, and the spellings of equal events.
    """
    names: dict[str, int] = {}

    def renamed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(renamed, value))
        return names.setdefault(value, len(names)) if value in RECIPIENTS else value

    from tests.model.world import RECIPIENTS

    text = repr((str(world.setting), renamed(tuple(world.seen))))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def histories(
    setting: Setting,
    depth: int,
    only: Callable[[Event], bool] = lambda event: True,
    share: tuple[int, int] = (0, 1),
) -> Iterator[World]:
    """Play every history with at most so many events.

    :param share: which part of the histories, of how many: they are shared out by their first event.
    """
    number, of = share
    counter = itertools.count()
    # Breadth first: what breaks a promise in the fewest events is found first.
    level: list[dict[int, int]] = [{}]
    for events in range(depth + 1):
        following: list[dict[int, int]] = []
        for choices in level:
            if events == 1 and next(counter) % of != number:
                continue
            world = play(setting, choices, only)
            if events or not number:
                yield world
            if events < depth:
                following += _followers(choices, world)
        level = following


def _followers(choices: dict[int, int], world: World) -> Iterator[dict[int, int]]:
    """Yield the histories that have one event more, after all others."""
    offered = world.script.offered
    last = max(choices, default=-1)
    if choices:
        # What follows an event follows each of its spellings: only one of them goes on.
        names = [event.name for event in offered[last]]
        if names.index(names[choices[last] - 1]) != choices[last] - 1:
            return
    for question in range(last + 1, len(offered)):
        for number in range(1, len(offered[question]) + 1):
            yield {**choices, question: number}


def story(world: World, violations: Sequence[str]) -> dict[str, Any]:
    return {
        "setting": str(world.setting),
        "events": [str(each) for each in world.happened],
        "violations": list(violations),
        "tries": [
            f"{one.process.name}: {one.ended.how if one.ended else '?'} {one.ended.message if one.ended else ''}"
            for one in world.processes.values()
        ],
        "gateway": [
            f"{each.at:.1f} s: {each.biz_id} by request {each.code[:8]}" for each in world.gateway.executions
        ],
    }


def explore(
    setting: Setting,
    depth: int,
    *,
    only: Callable[[Event], bool] = lambda event: True,
    share: tuple[int, int] = (0, 1),
    until_broken: bool = False,
    keep: int = 200,
) -> Found:
    from tests.model.judge import violations

    result = Found()
    for world in histories(setting, depth, only, share):
        result.played += 1
        result.distinct.add(fingerprint(world))
        result.events.update(each.event.name for each in world.happened)
        if wrong := violations(world):
            if len(result.broken) < keep:
                result.broken.append(story(world, wrong))
            if until_broken:
                break
    return result


DOUBTS = ("answer lost, executed", "answer lost, not executed", "connection broken, *", "killed under way, *")
LOOK_UPS = ("look-up *", "result of *", "an older *")
OTHERS = ("the other run *", "Airflow replaces *", "paused *", "pauses *")
WORDS = ("a true word", "a word *", "a stale word *", "ledger emptied", "the task is cleared")

SQL, TASK_STATE = {"ledger": "sql"}, {"ledger": "task state"}
SETTINGS: tuple[dict[str, Any], ...] = (
    SQL,
    SQL | {"look_up": "dates", "batches": "111"},
    SQL | {"look_up": "pages"},
    SQL | {"look_up": "bare"},
    SQL | {"look_up": "none"},
    SQL | {"look_up": "none", "dedupes": True},
    SQL | {"on_in_doubt": "continue", "look_up": "none"},
    SQL | {"loop": True},
    SQL | {"wrong_host": True},
    SQL | {"max_lateness": True},
    TASK_STATE,
    TASK_STATE | {"look_up": "none"},
    TASK_STATE | {"look_up": "dates"},
    TASK_STATE | {"look_up": "bare", "batches": "111"},
    TASK_STATE | {"dedupes": True, "look_up": "none"},
    TASK_STATE | {"wrong_host": True},
    TASK_STATE | {"loop": True},
)
"""What the author of a campaign may choose, and what the platform may be like."""


@dataclass(frozen=True)
class Plan:
    """What is played.

    :param setting: see :class:`~tests.model.world.Setting`.
    :param depth: events in a history at most.
    :param only: names of the events, or patterns of them.
    """

    setting: dict[str, Any]
    depth: int
    only: tuple[str, ...] = ("*",)

    def takes(self, event: Event) -> bool:
        return any(fnmatchcase(event.name, pattern) for pattern in self.only)


SHORT = (
    *(Plan(setting, 1) for setting in SETTINGS),
    Plan(SQL | {"look_up": "dates"}, 2, (*DOUBTS[:2], *LOOK_UPS)),
    Plan(SQL | {"look_up": "pages"}, 2, (*DOUBTS[:2], *LOOK_UPS)),
    Plan(SQL, 2, ("connection broken, executed, seen late", OTHERS[0])),
    Plan(TASK_STATE | {"look_up": "none"}, 2, (*DOUBTS, *WORDS)),
)
"""All settings with any one event, and what belongs together with two."""
AT_LENGTH = (
    *(Plan(setting, 1) for setting in SETTINGS),
    Plan(SQL, 2),
    Plan(TASK_STATE, 2),
)
"""All settings with any one event, and the two commonest with any two."""


def work(plans: Sequence[Plan], share: tuple[int, int], keep: int) -> dict[str, Any]:
    """Explore one share of the plans in this process."""
    from tests.model import world

    world.install()
    gc.freeze()
    whole = Found()
    for plan in plans:
        setting = world.Setting(**plan.setting)
        found = explore(setting, plan.depth, only=plan.takes, share=share, keep=keep)
        whole.played += found.played
        whole.distinct |= found.distinct
        whole.broken += found.broken
        whole.events += found.events
    return {
        "played": whole.played,
        "distinct": sorted(whole.distinct),
        "broken": whole.broken,
        "events": whole.events,
    }


@dataclass
class Report:
    """What all shares found together."""

    played: int
    distinct: int
    broken: list[dict[str, Any]]
    events: Counter[str]
    depth: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"model: {self.played} histories of up to {self.depth} events played, {self.distinct} of them distinct, "
            f"{len(self.events)} kinds of events, {len(self.broken)} with a broken promise; {self.seconds:.0f} s"
        )


def spread(name: str, workers: int, *, keep: int = 50, task_state: bool = True) -> Report:
    """Explore in several processes.

    :param name: ``short`` or ``at length``.
    :param keep: stories of broken promises that are kept of each plan.
    :param task_state: whether this Airflow has a task state store.
    """
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.model.explore", name, "--keep", str(keep)),
                *("--share", f"{number}/{workers}", *([] if task_state else ["--sql-only"])),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    done = []
    try:
        for process in processes:
            out, _ = process.communicate()
            if process.returncode != 0:
                raise RuntimeError(f"a part of the exploration ended with {process.returncode}")
            done.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                process.communicate()
    broken = sorted((each for one in done for each in one["broken"]), key=lambda each: len(each["events"]))
    return Report(
        played=sum(one["played"] for one in done),
        distinct=len(set().union(*(one["distinct"] for one in done))),
        broken=broken,
        events=sum((Counter(one["events"]) for one in done), Counter()),
        depth=max(plan.depth for plan in PLANS[name]),
        seconds=time.monotonic() - started,
    )


PLANS = {"short": SHORT, "at length": AT_LENGTH}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plans", nargs="?", default="short", choices=PLANS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--keep", type=int, default=50, help="stories of broken promises to keep of each plan"
    )
    parser.add_argument("--sql-only", action="store_true", help="for an Airflow without a task state store")
    parser.add_argument("--json", type=Path, help="write the stories of broken promises there")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.share:
        prepare()
        number, of = map(int, options.share.split("/"))
        plans = [
            plan for plan in PLANS[options.plans] if not options.sql_only or plan.setting["ledger"] == "sql"
        ]
        print(json.dumps(work(plans, (number, of), options.keep)))
        return 0
    report = spread(options.plans, options.workers, keep=options.keep, task_state=not options.sql_only)
    for each in report.broken[:20]:
        print(json.dumps(each, indent=1, ensure_ascii=False))
    if options.json:
        options.json.write_text(json.dumps(report.broken, indent=1, ensure_ascii=False))
    print(report)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
