"""A clock whose waits take no time, for tests of what happens after them."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import pytest

# Whoever imports one of them only when it runs would find the real clock.
import airflow_provider_lingyang.delivery.campaign
import airflow_provider_lingyang.hooks.lingyang
import airflow_provider_lingyang.ledger.sql
import airflow_provider_lingyang.ledger.task_state
import airflow_provider_lingyang.operators.submission  # noqa: F401
from airflow_provider_lingyang.ledger import pace

PACKAGE = "airflow_provider_lingyang"
REAL = (f"{PACKAGE}.sandbox", f"{PACKAGE}.gateway.urllib3_connections")
"""The sandbox is another process, and an answer is waited for on a socket."""


class SkippingClock:
    """Stands for the module ``time``: a sleep advances the monotonic clock instead of lasting."""

    def __init__(self) -> None:
        self.skipped = 0.0
        self.at_sleep: Callable[[], None] = lambda: None
        """Called at the beginning of every sleep."""

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    def sleep(self, seconds: float) -> None:
        self.at_sleep()
        self.skipped += seconds
        time.sleep(0)  # other threads may go on

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def skip_waits(monkeypatch: pytest.MonkeyPatch) -> SkippingClock:
    """Give the whole package such a clock until the test ends, also where a default holds the real one."""
    clock = SkippingClock()
    stand_ins = {time.monotonic: clock.monotonic, time.sleep: clock.sleep}
    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGE) and not name.startswith(REAL):
            if getattr(module, "time", None) is time:
                monkeypatch.setattr(module, "time", clock)
            for function, argument in _clock_arguments(module):
                real = function.__kwdefaults__[argument]
                monkeypatch.setitem(function.__kwdefaults__, argument, stand_ins[real])
    # What a rate limit in a database counts by is skipped, too.
    monkeypatch.setattr(pace, "_NOW", {})
    monkeypatch.setitem(pace.SharedPace.__init__.__kwdefaults__, "clock", lambda: time.time() + clock.skipped)
    return clock


@cache
def _clock_arguments(module: ModuleType) -> tuple[tuple[FunctionType, str], ...]:
    return tuple(
        (function, argument)
        for function in _functions(module)
        for argument, default in (function.__kwdefaults__ or {}).items()
        if default is time.monotonic or default is time.sleep
    )


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for value in list(vars(module).values()):
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield value
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            yield from (inner for inner in vars(value).values() if isinstance(inner, FunctionType))
