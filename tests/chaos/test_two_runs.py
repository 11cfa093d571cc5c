"""Two live runs of one campaign_key on real databases, 20 schedules each; the gateway's record is the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.scripts import printed_lines

HERE = Path(__file__).parent
SCHEDULES = 20


def run(tmp_path: Path, server: dict[str, Any], seeds: str, *options: str) -> list[dict[str, Any]]:
    lines = printed_lines(
        HERE / "two_runs.py", json.dumps(server), seeds, *options, home=tmp_path / "airflow", timeout=900
    )
    return [json.loads(line) for line in lines if line.startswith("{")]


def twice(reports: list[dict[str, Any]]) -> dict[int, dict[str, int]]:
    return {
        report["seed"]: report["executions"]
        for report in reports
        if sorted(report["executions"].values()) != [1, 1]
    }


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_requests_of_a_live_run_are_sent_by_no_other_run(
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
    # Which schedules do it depends on milliseconds: the second run has to look while the first is about to send.
    assert any(
        twice(run(tmp_path, server, f"{first}-{first + 4}", "--without-wait")) for first in range(3, 83, 5)
    )
