"""Without its safeguards the package breaks its promises, and the judge of the chaos test sees it."""

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
SAFEGUARDS = ["write-ahead", "skip", "lookup_settle", "fencing", "fencing sql"]


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN")}
    env |= {"AIRFLOW_HOME": str(tmp_path / "airflow"), "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, str(HERE / "broken.py"), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=120)
    finally:
        # With whatever it forked or started and could not end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err[-3000:]
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.parametrize("safeguard", SAFEGUARDS)
def test_a_safeguard_that_is_taken_out_breaks_a_promise(tmp_path: Path, safeguard: str) -> None:
    report = run(tmp_path, safeguard)
    assert report["duplicates"] > 0
    assert any("contacted too often" in violation for violation in report["violations"])


@pytest.mark.parametrize("safeguard", SAFEGUARDS)
def test_with_it_the_same_schedule_breaks_none(tmp_path: Path, safeguard: str) -> None:
    assert run(tmp_path, safeguard, "--whole")["violations"] == []
