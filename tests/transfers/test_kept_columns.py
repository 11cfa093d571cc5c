"""Columns that a campaign keeps of its audience reach the table of results, through the ledger."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.campaigns import bare_row
from tests.transfers.conftest import MakeTransfer, Pushed, Submit, Warehouse

TIERS = ("gold", None, '"金卡"')


def kept_row(number: int) -> dict[str, Any]:
    return bare_row(number) | {"tier": TIERS[number % 3], "points": number, "vip": number % 2 == 0}


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))


@pytest.fixture
def kept(sandbox: SandboxProcess, submit: Submit, ledger: None) -> Mapping[str, object]:
    """The manifest of a campaign of more than a page of recipients."""
    rows = [kept_row(number) for number in range(1100)]
    return submit(audience=rows, ledger_conn_id="ledger", keep_columns=["tier", "points", "vip"])


def test_each_kept_column_is_one_of_the_table(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, kept: Mapping[str, object]
) -> None:
    expected = {
        f"B{number}": (TIERS[number % 3], str(number), "false" if number % 2 else "true")
        for number in range(1100)
    }
    for inserted in (1100, 0):
        counts = run.execute(transfer(campaign=kept))["counts"]
        assert (counts["rows"], counts["inserted"]) == (1100, inserted)
        assert warehouse.rows("tier", "points", "vip") == expected
    # Written again where only the status of a row is.
    warehouse.sql("UPDATE answers SET tier='x', a='kept'")
    results = [(f"B{number}", "{}", "OK") for number in range(1100)]
    run.execute(transfer(campaign=kept, **pushed(results)))
    assert warehouse.rows("tier", "points", "vip") == expected
    assert set(warehouse.rows("a").values()) == {"kept"}


def test_a_table_without_them_says_how_to_add_them(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, submit: Submit, kept: Mapping[str, object]
) -> None:
    run.execute(transfer(campaign=submit(3, task_id="other")))
    text = run.fails(transfer(campaign=kept))
    assert "lacks the columns tier, points, vip: add them (" in text
    statements = text.partition("(")[2].partition(")")[0].split("; ")
    assert statements[0].startswith(f"ALTER TABLE answers ADD {warehouse.quote}tier{warehouse.quote} ")
    for statement in (*statements, "DELETE FROM answers"):
        warehouse.sql(statement)
    run.execute(transfer(campaign=kept))
    assert warehouse.rows("points")["B1099"] == "1099"


def test_a_slot_of_the_same_name_needs_another_column(
    sqlite: Warehouse, run: Run, transfer: MakeTransfer, kept: Mapping[str, object]
) -> None:
    text = run.fails(transfer(campaign=kept, slots=["Tier"]))
    assert "slot 'Tier' would be column 'Tier', which the campaign has kept of its audience" in text
    run.execute(transfer(campaign=kept, slots={"Tier": "other"}))
    assert sqlite.rows("tier", "other")["B0"][0] == "gold"


def test_a_ledger_that_is_away_fails_for_the_moment(
    sqlite: Warehouse,
    run: Run,
    transfer: MakeTransfer,
    kept: Mapping[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without ids in XCom the recipients come from the ledger, too.
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "none" / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))
    run.xcom["submit", "biz_ids"] = [f"B{number}" for number in range(1100)]
    assert "the columns that the campaign kept cannot be read" in run.stops(transfer(campaign=kept))
