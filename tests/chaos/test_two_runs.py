"""Two live runs of one campaign_key on real databases, 20 schedules each; the gateway's record is the judge."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCHEDULES = 20


def run(tmp_path: Path, server: dict[str, Any], seeds: str, *options: str) -> list[dict[str, Any]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN")}
    env |= {"AIRFLOW_HOME": str(tmp_path / "airflow"), "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "two_runs.py"), json.dumps(server), seeds, *options],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=900)
    finally:
        # With whatever it forked or started and could not end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err[-3000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def twice(reports: list[dict[str, Any]]) -> dict[int, dict[str, int]]:
    return {
        report["seed"]: report["executions"]
        for report in reports
        if sorted(report["executions"].values()) != [1, 1]
    }


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_what_a_live_run_may_still_send_is_sent_by_no_other_run(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    server = request.getfixturevalue(f"{kind}_server")
    reports = run(tmp_path, server, f"0-{SCHEDULES - 1}")
    assert [report["seed"] for report in reports] == list(range(SCHEDULES))
    assert twice(reports) == {}


def test_without_the_wait_for_the_other_run_recipients_are_contacted_twice(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server = request.getfixturevalue("postgres_server")
    assert twice(run(tmp_path, server, "3-7", "--without-wait"))
