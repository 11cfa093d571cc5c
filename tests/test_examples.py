"""The DAGs to be copied can be parsed, warn about nothing, and do what they say."""

from __future__ import annotations

import json
import os
import re
import runpy
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowCli, FillDb
from tests.versions import AIRFLOW, TRIGGERS_READ_XCOMS

EXAMPLES = sorted((Path(__file__).parents[1] / "dags_examples").glob("*.py"))


def on_its_airflow(file: Path) -> Any:
    approval = file.stem == "campaign_with_approval"
    too_old = pytest.mark.skipif(approval and AIRFLOW < (3, 1), reason="approval is new in Airflow 3.1")
    return pytest.param(file, marks=too_old, id=file.stem)


@pytest.mark.parametrize("file", [on_its_airflow(file) for file in EXAMPLES])
def test_an_example_can_be_parsed(file: Path) -> None:
    from airflow.providers.common.compat.sdk import BaseOperator, MappedOperator

    values = runpy.run_path(str(file)).values()
    (dag,) = {value.dag for value in values if isinstance(value, (BaseOperator, MappedOperator))}
    assert dag.dag_id == file.stem
    assert not dag.catchup
    assert dag.max_active_runs == 1
    # The failure of a request in doubt says that the examples do.
    assert "var.value.get('lingyang_settle_' ~ dag.dag_id, '')" in file.read_text()


def test_there_are_examples() -> None:
    assert EXAMPLES


def copy(airflow_cli: AirflowCli, name: str) -> None:
    """Put an example into the DAGs folder, as it is, or open at this hour if it is not."""
    now = datetime.now(CHINA)
    text = next(file for file in EXAMPLES if file.stem == name).read_text()
    if not time(9) <= now.time() < time(20, 20):
        open_now = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
        text = text.replace("09:00-20:30", open_now)
    (airflow_cli.home / "dags").mkdir()
    (airflow_cli.home / "dags" / f"{name}.py").write_text(text)


def tried(airflow_cli: AirflowCli, sandbox: SandboxProcess, name: str, *more: str, **env: str) -> str:
    """Run a copied example, and return what was printed."""
    ran = airflow_cli(
        *("dags", "test", name, *more),
        AIRFLOW_CONN_LINGYANG_DEFAULT=json.dumps(sandbox.connection()),
        AIRFLOW_CONN_AUDIENCE_DB=os.environ.get("AIRFLOW_CONN_AUDIENCE_DB", ""),
        **env,
    )
    assert ran.returncode == 0, ran.stdout[-5000:]
    printed: str = ran.stdout
    return printed


def some_hours_ago(hours: int) -> str:
    """Return a logical date that no max_lateness refuses on Airflow 2, where `dags test` takes it for the run's time."""
    return (datetime.now(UTC) - timedelta(hours=hours)).isoformat()


def customers(audience_db: FillDb, count: int) -> None:
    columns = ["order_no", "wave", "mobile", "customer"]
    rows = [(f"A{n}", str(n % 3 + 1), f"1000000{n:04}", f"客户{n}") for n in range(count)]
    audience_db([f"{column} TEXT" for column in columns], rows, table="customers")


def test_recipients_of_an_upstream_task_are_called_and_waited_for(
    sandbox: SandboxProcess, airflow_cli: AirflowCli
) -> None:
    copy(airflow_cli, "campaign_from_xcom")
    printed = tried(airflow_cli, sandbox, "campaign_from_xcom")
    assert len(sandbox.record()["executions"]["by_biz_id"]) == 20
    assert (
        airflow_cli.xcom("campaign_from_xcom", "wait_for_answers", "return_value")["counts"]["finished"] == 20
    )
    # Airflow keeps them as XCom, which the example says; its log does not show them. What 3.0 prints on the screen
    # for `dags test` alone is every message of a task to its supervisor, as "debug": an XCom, too.
    lines = [line for line in printed.splitlines() if AIRFLOW != (3, 0) or "[debug " not in line]
    assert "客户" not in "\n".join(lines)


def test_recipients_of_a_function_are_called_and_waited_for_and_not_stored(
    sandbox: SandboxProcess, airflow_cli: AirflowCli
) -> None:
    copy(airflow_cli, "campaign_taskflow")
    printed = tried(airflow_cli, sandbox, "campaign_taskflow")
    record = sandbox.record()
    assert len(record["executions"]["by_biz_id"]) == 20
    assert all(biz_id.split("/")[1].startswith("new-") for biz_id in record["executions"]["by_biz_id"])
    assert record["order_violations"] == []
    assert (
        airflow_cli.xcom("campaign_taskflow", "wait_for_answers", "return_value")["counts"]["finished"] == 20
    )
    written = printed + airflow_cli.everything_written()
    # Airflow keeps the DAG's code, too, where the names are made.
    assert not re.search(r"客户[0-9]", written)


def test_each_city_has_a_plan_and_an_instance_of_its_own(
    sandbox: SandboxProcess, airflow_cli: AirflowCli, audience_db: FillDb
) -> None:
    copy(airflow_cli, "campaign_mapped")
    cities = ["杭州", "成都"]
    rows = [(f"A{n}", f"1000000{n:04}", f"客户{n}", cities[n % 2]) for n in range(6)]
    audience_db(
        [f"{column} TEXT" for column in ("order_no", "mobile", "customer", "city")], rows, table="customers"
    )
    ledger = {"conn_type": "sqlite", "host": str(airflow_cli.home / "ledger.db")}
    printed = tried(airflow_cli, sandbox, "campaign_mapped", AIRFLOW_CONN_LEDGER_DB=json.dumps(ledger))
    for city in cities:
        assert f"{city}: recipients 3, finished 3" in printed
    assert "广州: recipients 0, finished 0" in printed
    executed = sandbox.record()["executions"]["by_biz_id"]
    assert sorted(biz_id.rpartition("/")[2] for biz_id in executed) == [f"A{n}" for n in range(6)]
    assert set(executed.values()) == {1}


def test_weekly_campaign_calls_the_same_recipients_under_new_ids(
    sandbox: SandboxProcess, airflow_cli: AirflowCli, audience_db: FillDb
) -> None:
    copy(airflow_cli, "campaign_weekly")
    customers(audience_db, 6)
    for moment in some_hours_ago(2), some_hours_ago(1):
        assert "finished 6" in tried(airflow_cli, sandbox, "campaign_weekly", moment)
    executed = sandbox.record()["executions"]["by_biz_id"]
    assert len(executed) == 12
    assert set(executed.values()) == {1}


def test_more_ids_than_xcom_carries_are_found_by_the_query(
    sandbox: SandboxProcess, airflow_cli: AirflowCli, audience_db: FillDb
) -> None:
    copy(airflow_cli, "campaign_weekly")
    customers(audience_db, 6)
    assert "finished 6" in tried(
        airflow_cli, sandbox, "campaign_weekly", some_hours_ago(1), AIRFLOW__LINGYANG__XCOM_IDS_LIMIT="5"
    )


def test_pushed_answers_are_waited_for_without_a_look_up(
    sandbox: SandboxProcess, airflow_cli: AirflowCli, audience_db: FillDb, tmp_path: Path
) -> None:
    copy(airflow_cli, "campaign_pushed_results")
    customers(audience_db, 6)
    path, stop = tmp_path / "results.db", threading.Event()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE pushed_results (biz_id TEXT PRIMARY KEY, message TEXT)")

    def consume() -> None:
        """What the customer's consumer of the platform's messages does."""
        message = json.dumps({"slots": [{"name": "intention", "value": "愿意"}], "info": {"duration": 12}})
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            while not stop.wait(1):
                for biz_id in sandbox.record(requests=False)["executions"]["by_biz_id"]:
                    db.execute("INSERT OR IGNORE INTO pushed_results VALUES (?, ?)", (biz_id, message))

    consumer = threading.Thread(target=consume)
    consumer.start()
    try:
        connection = {"conn_type": "sqlite", "host": str(path)}
        tried(airflow_cli, sandbox, "campaign_pushed_results", AIRFLOW_CONN_RESULTS_DB=json.dumps(connection))
    finally:
        stop.set()
        consumer.join()
    value = airflow_cli.xcom("campaign_pushed_results", "wait_for_answers", "return_value")
    assert value["counts"]["answered"] == 6
    assert value["slots"] == {"intention": {"愿意": 6}}
    assert not [each for each in sandbox.record()["requests"] if each["method"] == LOOKUP]


def test_campaign_key_of_its_own_repeats_no_recipient_when_triggered_again(
    sandbox: SandboxProcess, airflow_cli: AirflowCli, audience_db: FillDb
) -> None:
    copy(airflow_cli, "campaign_once")
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
    command = ["-m", "airflow_provider_lingyang.ledger", "list", "--conn-id", "ledger_db", "-o", "json"]
    listed = airflow_cli.command([airflow_cli.python, *command], airflow_cli.env | env)
    assert "spring-sale-2026" in listed.stdout


def test_the_answers_of_a_campaign_are_in_the_warehouse_afterwards(
    sandbox: SandboxProcess, airflow_cli: AirflowCli, audience_db: FillDb
) -> None:
    copy(airflow_cli, "campaign_to_warehouse")
    warehouse = airflow_cli.home / "warehouse.db"
    columns = ["order_no", "wave", "mobile", "customer", "gift", "shop"]
    rows = [(f"A{n}", n % 3, f"100007770{n:02}", f"CANARY{n}", "gift", "shop") for n in range(30)]
    audience_db([f"{column} TEXT" for column in columns], rows, table="customers")
    if TRIGGERS_READ_XCOMS:  # So that it has to wait: the first look of a process takes seconds itself.
        sandbox.add_fault(kind="late_index", seconds=8, match={"batch_num": "2"})
    ran = airflow_cli(
        *("dags", "test", "campaign_to_warehouse"),
        AIRFLOW_CONN_LINGYANG_DEFAULT=json.dumps(sandbox.connection()),
        AIRFLOW_CONN_WAREHOUSE=json.dumps({"conn_type": "sqlite", "host": str(warehouse)}),
        AIRFLOW_CONN_AUDIENCE_DB=os.environ["AIRFLOW_CONN_AUDIENCE_DB"],
    )
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert ("waiting in the triggerer" in ran.stdout) == TRIGGERS_READ_XCOMS

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
