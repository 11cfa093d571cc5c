"""Processes and their threads in logical time: one runs at a time, and which one is no accident.

A thread is a greenlet. It runs until it waits; then the one whose time has come first goes on, and the clock jumps
there. A killed process does nothing more: whatever it tries raises :class:`Killed`.
"""

from __future__ import annotations

import inspect
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, tzinfo
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from greenlet import getcurrent, greenlet

from airflow_provider_lingyang import turns
from airflow_provider_lingyang.delivery.sender_pool import SenderPool
from airflow_provider_lingyang.gateway import rate_limiter
from airflow_provider_lingyang.ledger import pace

EPOCH = 1_767_225_600.0
"""What the clock of the wall shows at logical time 0: 2026-01-01, 08:00 in China."""
KILLED_AFTER = 5.0
"""Seconds from Airflow's SIGTERM to its SIGKILL."""
FOREVER = float("inf")


MOST_LOOKS = 200_000
"""How often a history may look at the clock: a hundred times what any needs."""


class EndlessError(BaseException):
    """The history does not end."""


class Killed(BaseException):
    """The process is no more."""


class Thread:
    """One thread of a process."""

    def __init__(self, process: Process, run: Callable[[], None]) -> None:
        self.process = process
        self.wake_at = process.scheduler.now
        self.turn = process.scheduler.next_turn()
        self.done = False
        self._run = run
        self.greenlet = greenlet(self._whole)

    def _whole(self) -> None:
        try:
            self._run()
        except Killed:
            pass
        finally:
            self.done = True


class Process:
    """One try of a task, alive until it ends or is killed.

    :param name: for the story that is told of it.
    """

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.alive = True
        self.frozen_until = 0.0
        self.kill_at = FOREVER
        self.interrupt: BaseException | None = None
        self.threads: list[Thread] = []

    def start(self, run: Callable[[], None]) -> Thread:
        thread = Thread(self, run)
        self.threads.append(thread)
        self.scheduler.threads.append(thread)
        return thread

    @property
    def main(self) -> Thread:
        return self.threads[0]

    @property
    def ended(self) -> bool:
        return self.main.done

    def freeze(self, seconds: float) -> None:
        self.frozen_until = self.scheduler.now + seconds

    def check(self) -> None:
        if not self.alive:
            raise Killed


class Scheduler:
    """Whose turn it is."""

    def __init__(self) -> None:
        self.now = 0.0
        self.threads: list[Thread] = []
        self.current: Thread | None = None
        self.looks = 0
        self._turn = 0

    def next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def wait(self, until: float) -> None:
        """Let others run until a moment. Called by the thread that runs."""
        thread = self.current
        if thread is None:
            self.now = max(self.now, until)
            return
        thread.process.check()
        thread.wake_at, thread.turn = until, self.next_turn()
        _hub(thread).switch()
        thread.process.check()
        if thread.process.interrupt is not None and thread is thread.process.main:
            interrupt, thread.process.interrupt = thread.process.interrupt, None
            raise interrupt

    def run(self, until: Callable[[], bool]) -> None:
        """Let threads run until something is so, or all have ended."""
        while not until():
            self.threads = [thread for thread in self.threads if not thread.done]
            if not self.threads:
                return
            thread = min(
                self.threads,
                key=lambda each: (max(each.wake_at, each.process.frozen_until), each.turn),
            )
            process = thread.process
            due = min(max(thread.wake_at, process.frozen_until), process.kill_at)
            assert due < FOREVER, f"{process.name} waits for ever"
            if process.alive:
                self.now = max(self.now, due)
            if self.now >= process.kill_at:
                process.alive = False
            self._resume(thread)
            for each in list(self.threads):
                if not each.process.alive and not each.done:
                    self._resume(each)

    def _resume(self, thread: Thread) -> None:
        if not thread.process.alive and not thread.greenlet:
            # It was never started.
            thread.done = True
            return
        before, self.current = self.current, thread
        thread.greenlet.parent = getcurrent()
        try:
            thread.greenlet.switch()
        finally:
            self.current = before


def _hub(thread: Thread) -> greenlet:
    parent = thread.greenlet.parent
    assert parent is not None
    return parent


class _Clock:
    """What stands for the module ``time`` in the package."""

    scheduler = Scheduler()

    def time(self) -> float:
        return EPOCH + self.scheduler.now

    def monotonic(self) -> float:
        # Looking at the clock takes a moment, as in life: a wait of less than what rounding loses would never end.
        self.scheduler.now += 1e-6
        self.scheduler.looks += 1
        if self.scheduler.looks > MOST_LOOKS:
            raise EndlessError
        return 1000.0 + self.scheduler.now

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self.scheduler.wait(self.scheduler.now + seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _Random:
    """What stands for the module ``random``: the same each time."""

    @staticmethod
    def Random(seed: int = 0) -> random.Random:  # noqa: N802  # its name
        return random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)


CLOCK = _Clock()


class _Instances(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


class _Datetime(datetime, metaclass=_Instances):
    """What stands for the class ``datetime``, for what asks it for the time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.fromtimestamp(CLOCK.time(), tz)


class GreenletSenderPool(SenderPool):
    """The package's own, whose threads are greenlets."""

    def __init__(self, new_wire: Callable[[], Any], count: int = 1) -> None:
        self._new_wire = new_wire
        self._wire: Any = None
        self._done: deque[tuple[Any, Any]] = deque()
        self._threads = []

    def __exit__(self, *_: object) -> None:
        if self._wire is not None:
            self._wire.close()

    def submit(self, token: object, job: Callable[[Any], Any]) -> None:
        scheduler = CLOCK.scheduler
        assert scheduler.current is not None
        process = scheduler.current.process

        def run() -> None:
            try:
                self._wire = self._wire or self._new_wire()
                result: Any = job(self._wire)
            except Killed:
                raise
            except BaseException as error:
                result = error
            self._done.append((token, result))
            process.main.wake_at = min(process.main.wake_at, scheduler.now)

        process.start(run)

    def next_result(self, timeout: float) -> tuple[Any, Any] | None:
        scheduler = CLOCK.scheduler
        until = scheduler.now + timeout
        while not self._done:
            if scheduler.now >= until:
                return None
            scheduler.wait(until)
        return self._done.popleft()


class Lock:
    """A lock of threads that are greenlets: who waits for it lets the others run."""

    def __init__(self) -> None:
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            CLOCK.scheduler.wait(CLOCK.scheduler.now + 0.05)
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False


class OfProcess(dict[Any, Any]):
    """What each process has of its own, where the package keeps it in a module."""

    def _own(self, key: object) -> object:
        current = CLOCK.scheduler.current
        return current and current.process, key

    def get(self, key: object, default: Any = None) -> Any:
        return super().get(self._own(key), default)

    def setdefault(self, key: object, default: Any = None) -> Any:
        return super().setdefault(self._own(key), default)


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for value in list(vars(module).values()):
        if isinstance(value, FunctionType):
            yield value
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            for inner in list(vars(value).values()):
                inner = getattr(inner, "__func__", getattr(inner, "fget", inner))
                if isinstance(inner, FunctionType):
                    yield inner


def install() -> None:
    """Give the whole package the logical time, also where a default holds the real one. For this process's life."""
    stand_ins = {id(getattr(time, name)): getattr(CLOCK, name) for name in ("time", "monotonic", "sleep")}
    # The database's clock is the real one.
    pace._NOW.clear()
    turns.threading = SimpleNamespace(Lock=Lock)  # type: ignore[assignment]
    rate_limiter._TRACKS, rate_limiter._TURNS = OfProcess(), OfProcess()
    for name, module in list(sys.modules.items()):
        if not name.startswith("airflow_provider_lingyang") or ".sandbox" in name:
            continue
        for attribute, value in list(vars(module).items()):
            if value is time:
                setattr(module, attribute, CLOCK)
            elif value is datetime:
                setattr(module, attribute, _Datetime)
            elif value is random:
                setattr(module, attribute, _Random())
        for function in _functions(module):
            if function.__kwdefaults__:
                function.__kwdefaults__ = {
                    key: stand_ins.get(id(value), value) for key, value in function.__kwdefaults__.items()
                }
            if function.__defaults__:
                function.__defaults__ = tuple(
                    stand_ins.get(id(value), value) for value in function.__defaults__
                )
        for attribute, value in list(vars(module).items()):
            if value is SenderPool and name.startswith("airflow_provider_lingyang.delivery."):
                setattr(module, attribute, GreenletSenderPool)
