"""Several runs that share one campaign_key, in one ledger. The gateway's record is the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.operators.conftest import Campaign
from tests.operators.people import LOST, everybody_once, row


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a run of the campaign."""
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))

    def run(run_id: str) -> Campaign:
        run = Run()
        make = run.context
        run.context = lambda *args, **kwargs: make(*args, run_id=run_id, **kwargs)  # type: ignore[method-assign]
        return Campaign(run, {"ledger_conn_id": "ledger", "campaign_key": "spring"}, None)

    return run


OWN, OTHERS = [row(1), row(2)], [row(number) for number in range(3, 9)]


@pytest.mark.parametrize("fault", [{"kind": "throttle", "seconds": 0, "after": 1, "times": 9}, LOST])
def test_one_run_does_not_start_anew_what_another_one_has_begun(
    blind: SandboxProcess, shared: Any, fault: dict[str, Any]
) -> None:
    own, other = shared("own"), shared("other")
    blind.add_fault(**fault)
    other.next_try("stops" if fault is not LOST else "fails", audience=OTHERS)
    blind.clear_faults()
    own.next_try(audience=OWN)
    own.clear()
    message = own.next_try("fails", audience=OWN, on_clear="resubmit")
    assert "other tasks or runs with this campaign_key have sent to people of their own" in message
    settle = {doubt["task_unique_code"]: "accepted" for doubt in other.run.manifest()["in_doubt"]}
    other.next_try(audience=OTHERS, settle=settle)
    assert everybody_once(blind, 8)
