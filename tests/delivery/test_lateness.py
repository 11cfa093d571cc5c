"""When a run is due, and when it comes too late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lingyang.config.arguments import ArgumentError, check_max_lateness
from airflow_provider_lingyang.delivery.lateness import due_at, too_late

END = datetime(2026, 1, 5, 2, tzinfo=UTC)
AFTER = datetime(2026, 1, 10, 3, tzinfo=UTC)
LOGICAL = datetime(2026, 1, 9, tzinfo=UTC)


class RunType(StrEnum):
    SCHEDULED = "scheduled"
    MANUAL = "manual"


@pytest.mark.parametrize(
    ("run", "due"),
    [
        # Airflow 3: an enumeration, or its text.
        ({"run_type": RunType.SCHEDULED, "data_interval_end": END, "run_after": AFTER}, END),
        ({"run_type": "scheduled", "data_interval_end": END, "run_after": AFTER}, END),
        ({"run_type": "backfill", "data_interval_end": END, "run_after": AFTER}, END),
        ({"run_type": RunType.MANUAL, "data_interval_end": END, "run_after": AFTER}, AFTER),
        ({"run_type": "asset_triggered", "data_interval_end": None, "run_after": AFTER}, AFTER),
        ({"run_type": "asset_materialization", "run_after": AFTER, "logical_date": None}, AFTER),
        ({"run_type": "operator_triggered", "run_after": AFTER, "logical_date": LOGICAL}, AFTER),
        # A timetable without intervals.
        ({"run_type": "scheduled", "data_interval_end": None, "run_after": AFTER}, AFTER),
        # Airflow 2 has no run_after.
        ({"run_type": "scheduled", "data_interval_end": END, "logical_date": LOGICAL}, END),
        ({"run_type": "manual", "data_interval_end": END, "logical_date": LOGICAL}, LOGICAL),
        ({"run_type": "dataset_triggered", "data_interval_end": END, "logical_date": LOGICAL}, LOGICAL),
        # Nothing that can be placed.
        ({"run_type": "manual", "run_after": None, "logical_date": None}, None),
        ({"run_type": "manual"}, None),
        ({"run_type": "scheduled", "data_interval_end": datetime(2026, 1, 5)}, None),
        ({"run_type": "scheduled", "data_interval_end": "2026-01-05"}, None),
        ({}, None),
    ],
)
def test_due_at(run: dict[str, Any], due: datetime | None) -> None:
    assert due_at(SimpleNamespace(**run)) == due


def test_no_run_is_never_late() -> None:
    assert due_at(None) is None
    assert too_late(None, timedelta(seconds=1), END) is None


@pytest.mark.parametrize(
    ("late", "allowed", "skips"),
    [
        (timedelta(0), timedelta(hours=1), False),
        (timedelta(hours=-1), timedelta(hours=1), False),
        (timedelta(hours=1), timedelta(hours=1), False),
        (timedelta(hours=1, seconds=1), timedelta(hours=1), True),
        (timedelta(days=5), timedelta(hours=6), True),
        (timedelta(days=5), None, False),
    ],
)
def test_too_late(late: timedelta, allowed: timedelta | None, skips: bool) -> None:
    # In another zone, as Airflow may give it.
    now = (END + late).astimezone(timezone(timedelta(hours=8)))
    assert (too_late(END, allowed, now) is not None) is skips


def test_says_when_the_run_was_due() -> None:
    why = too_late(END, timedelta(hours=6), END + timedelta(days=5, hours=1, microseconds=7))
    assert (
        why == "this run was due at 2026-01-05 02:00:00 UTC, 5 days, 1:00:00 ago, and max_lateness is 6:00:00"
    )


@pytest.mark.parametrize("value", [0, 3600, "6h", timedelta(0), timedelta(hours=-1), True])
def test_refuses_what_is_no_span(value: object) -> None:
    with pytest.raises(ArgumentError, match="max_lateness must be a timedelta of more than zero"):
        check_max_lateness("max_lateness", value)
