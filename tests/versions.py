"""Which Airflow the tests run on, for what not every Airflow has."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2]))
AIRFLOW_PYTHON = os.environ.get("LINGYANG_AIRFLOW_PYTHON", sys.executable)
"""Whose Airflow a test starts, where it is a process of its own: the one of this environment, or a user's."""
STARTED_AIRFLOW = AIRFLOW
"""Its version."""
if sys.executable != AIRFLOW_PYTHON:
    _found = subprocess.check_output(
        [AIRFLOW_PYTHON, "-c", "from importlib.metadata import version; print(version('apache-airflow'))"],
        text=True,
    )
    STARTED_AIRFLOW = tuple(map(int, _found.split(".")[:2]))
XCOMS = (
    "xcom"
    if STARTED_AIRFLOW < (3, 4)
    else "(SELECT dag_id, run_id, task_id, key, value, timestamp FROM xcom_v2 "
    "JOIN task_instance ON task_instance.id = task_instance_id) AS xcom"
)
"""Where its database has them."""
TRIGGERS_READ_XCOMS = AIRFLOW != (3, 0)
"""In ``airflow dags test``; in a triggerer they do."""
# Used where a test runs the task state store, or code that needs what Airflow ships beside it.
needs_task_state = pytest.mark.skipif(
    AIRFLOW < (3, 3), reason="a task's own state, which outlives a killed try, is new in Airflow 3.3"
)


def postgres_hook(driver: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return Airflow's PostgresHook, which uses psycopg2 or psycopg3; skips where it cannot use the latter."""
    postgres = pytest.importorskip("airflow.providers.postgres.hooks.postgres")
    if driver == "psycopg3" and not getattr(postgres, "USE_PSYCOPG3", False):
        pytest.skip("this Airflow's SQLAlchemy, or the provider, is too old for the hook to use psycopg3")
    # The oldest provider has no choice.
    monkeypatch.setattr(postgres, "USE_PSYCOPG3", driver == "psycopg3", raising=False)
    return postgres.PostgresHook


# Warnings are errors. These are about what Airflow and its own providers do among themselves.
_BRANCH = r"The `airflow\.operators\.branch\.\w+` (class|attribute) is deprecated"
"""Its provider "standard" imports this through "common-compat", from where only later Airflows do not warn."""
_NOLOAD = "The ``noload`` loader strategy is deprecated"
"""Its models use what SQLAlchemy 2.1, which it allows, deprecates."""
AIRFLOWS_OWN_WARNINGS = {
    # Flask-AppBuilder's parts on the old Flask, SQLAlchemy and marshmallow that 2.11.0 wants.
    (2, 11): [
        r"'\w+' is deprecated and will be removed in Flask 2\.",
        "Deprecated API features detected! These feature",
        r"The '__version__' attribute is deprecated",
        # Of a default that it has itself.
        "Timer and timing metrics publish in seconds were deprecated",
    ],
    # The starlette that it works with, on a newer anyio.
    (3, 0): [_BRANCH, r"The anyio\.abc\.BlockingPortal alias is deprecated"],
    (3, 1): [_BRANCH, _NOLOAD],
    (3, 2): [_NOLOAD],
}
