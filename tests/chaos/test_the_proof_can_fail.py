"""Without its safeguards the package breaks its promises, and the judge of the chaos test sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.scripts import printed_lines

HERE = Path(__file__).parent
SAFEGUARDS = ["write-ahead", "skip", "lookup_settle", "fencing", "fencing sql"]


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    lines = printed_lines(HERE / "broken.py", *arguments, home=tmp_path / "airflow", timeout=120)
    found: dict[str, Any] = json.loads(lines[-1])
    return found


@pytest.mark.parametrize("safeguard", SAFEGUARDS)
def test_a_safeguard_that_is_taken_out_breaks_a_promise(tmp_path: Path, safeguard: str) -> None:
    report = run(tmp_path, safeguard)
    assert report["duplicates"] > 0
    assert any("contacted too often" in violation for violation in report["violations"])


@pytest.mark.parametrize("safeguard", SAFEGUARDS)
def test_with_it_the_same_schedule_breaks_none(tmp_path: Path, safeguard: str) -> None:
    assert run(tmp_path, safeguard, "--whole")["violations"] == []
