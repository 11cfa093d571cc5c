"""Without its safeguards the package breaks its promises, and the judge of the chaos test sees it."""

from __future__ import annotations

import json
import os
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
    done = subprocess.run(
        [sys.executable, str(HERE / "broken.py"), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("safeguard", SAFEGUARDS)
def test_a_safeguard_that_is_taken_out_breaks_a_promise(tmp_path: Path, safeguard: str) -> None:
    report = run(tmp_path, safeguard)
    assert report["duplicates"] > 0
    assert any("contacted too often" in violation for violation in report["violations"])


@pytest.mark.parametrize("safeguard", SAFEGUARDS)
def test_with_it_the_same_schedule_breaks_none(tmp_path: Path, safeguard: str) -> None:
    assert run(tmp_path, safeguard, "--whole")["violations"] == []
