"""The DAGs to be copied can be parsed, warn about nothing, and do what they say."""

from __future__ import annotations

import json
import os
import runpy
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.sandbox.process import SandboxProcess

EXAMPLES = sorted((Path(__file__).parents[1] / "dags_examples").glob("*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_can_be_parsed(file: Path) -> None:
    from airflow.providers.common.compat.sdk import BaseOperator

    (dag,) = {value.dag for value in runpy.run_path(str(file)).values() if isinstance(value, BaseOperator)}
    assert dag.dag_id == file.stem
    assert not dag.catchup
    assert dag.max_active_runs == 1


def test_there_are_examples() -> None:
    assert EXAMPLES


def test_a_campaign_with_a_key_of_its_own_repeats_nobody_when_it_is_triggered_again(
    sandbox: SandboxProcess, airflow_cli: Any, audience_db: Any
) -> None:
    now = datetime.now(CHINA)
    open_now = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    (airflow_cli.home / "dags").mkdir()
    text = next(file for file in EXAMPLES if file.stem == "campaign_once").read_text()
    (airflow_cli.home / "dags" / "campaign_once.py").write_text(
        text.replace("09:00-20:30", open_now).replace("retries=3", "retries=0")
    )
    ledger = {"conn_type": "sqlite", "host": str(airflow_cli.home / "ledger.db")}
    env = {
        "AIRFLOW_CONN_LINGYANG_DEFAULT": json.dumps(sandbox.connection()),
        "AIRFLOW_CONN_LEDGER_DB": json.dumps(ledger),
        "AIRFLOW_CONN_AUDIENCE_DB": os.environ["AIRFLOW_CONN_AUDIENCE_DB"],
    }

    def trigger(people: int) -> None:
        columns = ["order_no", "wave", "mobile", "customer", "gift", "shop"]
        rows = [(f"A{n}", n % 3, f"1000000{n:04}", f"客户{n}", "gift", "shop") for n in range(people)]
        audience_db([f"{column} TEXT" for column in columns], rows, table="customers")
        ran = airflow_cli("dags", "test", "campaign_once", **env)
        assert ran.returncode == 0, ran.stdout[-5000:]

    trigger(6)
    trigger(8)
    once = {f"spring-sale-2026/A{n}": 1 for n in range(8)}
    assert sandbox.record()["executions"]["by_biz_id"] == once
    counts = airflow_cli.xcom("campaign_once", "submit", "manifest")["counts"]
    assert (counts["accepted"], counts["already_accepted"]) == (2, 6)
    command = ["-m", "airflow_provider_lingyang.ledger", "list", "--conn-id", "ledger_db", "--json"]
    listed = airflow_cli.command([airflow_cli.python, *command], airflow_cli.env | env)
    assert "spring-sale-2026" in listed.stdout


def test_the_answers_of_a_campaign_are_in_the_warehouse_afterwards(
    sandbox: SandboxProcess, airflow_cli: Any, audience_db: Any
) -> None:
    (airflow_cli.home / "dags").mkdir()
    text = next(file for file in EXAMPLES if file.stem == "campaign_to_warehouse").read_text()
    (airflow_cli.home / "dags" / "campaign_to_warehouse.py").write_text(text)
    warehouse = airflow_cli.home / "warehouse.db"
    columns = ["order_no", "wave", "mobile", "customer", "gift", "shop"]
    rows = [(f"A{n}", n % 3, f"100007770{n:02}", f"CANARY{n}", "gift", "shop") for n in range(30)]
    audience_db([f"{column} TEXT" for column in columns], rows, table="customers")
    # So that it has to wait.
    sandbox.add_fault(kind="late_index", seconds=3, match={"batch_num": "2"})
    ran = airflow_cli(
        *("dags", "test", "campaign_to_warehouse"),
        AIRFLOW_CONN_LINGYANG_DEFAULT=json.dumps(sandbox.connection()),
        AIRFLOW_CONN_WAREHOUSE=json.dumps({"conn_type": "sqlite", "host": str(warehouse)}),
        AIRFLOW_CONN_AUDIENCE_DB=os.environ["AIRFLOW_CONN_AUDIENCE_DB"],
    )
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert "waiting in the triggerer" in ran.stdout

    value = airflow_cli.xcom("campaign_to_warehouse", "answers_to_warehouse", "return_value")
    manifest = airflow_cli.xcom("campaign_to_warehouse", "submit", "manifest")
    counts = value["counts"]
    assert value["table"] == "campaign_answers"
    assert (counts["recipients"], counts["rows"], counts["inserted"]) == (30, 30, 30)
    with closing(sqlite3.connect(warehouse)) as db:
        query = "SELECT biz_id, campaign_key, plan_id, status, intention, callback_time FROM campaign_answers"
        found = db.execute(query).fetchall()
    assert sorted(row[0] for row in found) == sorted(sandbox.record()["executions"]["by_biz_id"])
    assert {(row[1], row[2]) for row in found} == {(manifest["campaign_key"], 10001)}
    filled = [row for row in found if row[4] is not None and row[5] is not None]
    assert {row[3] for row in filled} == {"ANSWERED"}
    assert len(filled) == counts["filled"] > 0
    written = ran.stdout + airflow_cli.everything_written()
    assert "CANARY" not in written
    assert "100007770" not in written
