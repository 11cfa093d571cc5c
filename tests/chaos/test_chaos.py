"""280 campaigns through everything that can go wrong; the gateway's record is the judge."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest

HERE = Path(__file__).parent
SCHEDULES = 280


def module(name: str) -> Any:
    """The harness runs as a program of its own, so its modules lie beside it."""
    spec = importlib.util.spec_from_file_location(f"chaos_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


class Report(TypedDict):
    """What a schedule's worker printed, as far as it is used here."""

    seed: int
    violations: list[str]
    fired: dict[str, int]
    hard: bool


@pytest.fixture(scope="module")
def chaos(
    tmp_path_factory: pytest.TempPathFactory, summary: Callable[[str], None]
) -> tuple[list[Report], float]:
    started = time.monotonic()
    run = module("run")
    reports = run.spread(0, SCHEDULES - 1, 4, tmp_path_factory.mktemp("chaos"))
    seconds = time.monotonic() - started
    summary(f"chaos, {seconds:.0f} s: {run.summary(reports)}")
    return reports, seconds


def test_no_schedule_breaks_a_promise(chaos: tuple[list[Report], float]) -> None:
    reports, _ = chaos
    assert {report["seed"]: report["violations"] for report in reports if report["violations"]} == {}
    assert [report["seed"] for report in reports] == list(range(SCHEDULES))


def test_every_fault_fires_at_least_five_times(chaos: tuple[list[Report], float]) -> None:
    reports, _ = chaos
    fired: Counter[str] = Counter()
    for report in reports:
        fired.update(report["fired"])
    faults = module("schedules").FAULTS
    assert {name: fired[name] for name in faults if fired[name] < 5} == {}
    assert len(reports) >= 200
    assert sum(report["hard"] for report in reports) >= 150
