"""Whether a run comes too late to contact its recipients. Pure: a run is read by its attributes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_OF_INTERVAL = ("scheduled", "backfill")
"""Types of runs that are due at the end of their data interval; others are due when they were asked for."""


def due_at(dag_run: Any) -> datetime | None:
    """Return the moment at which a run was due, or None where it has none: then it is never late.

    :param dag_run: Airflow's, of any version; None: there is none.
    :return: of a scheduled or backfilled run ``data_interval_end``; of a manual, asset or API run ``run_after``, which
        Airflow 2 calls the logical date.
    """
    run_type = getattr(dag_run, "run_type", None)
    names = ["run_after", "logical_date"]
    # An enumeration in some versions, its text in others.
    if str(getattr(run_type, "value", run_type)) in _OF_INTERVAL:
        names.insert(0, "data_interval_end")
    for name in names:
        moment = getattr(dag_run, name, None)
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            return moment
    return None


def too_late(due: datetime | None, max_lateness: timedelta | None, now: datetime) -> str | None:
    """Return why a run must not begin any more, as a sentence; None where it may.

    :param due: see :func:`due_at`.
    :param max_lateness: None: no run is too late.
    :param now: aware.
    """
    if due is None or max_lateness is None or now - due <= max_lateness:
        return None
    late = timedelta(seconds=int((now - due).total_seconds()))
    return (
        f"this run was due at {due.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, {late} ago, and max_lateness is "
        f"{max_lateness}"
    )
