"""The README's five minutes, as a reader would spend them."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import AirflowCli

README = Path(__file__).parents[1] / "README.md"


def blocks(label: str) -> list[str]:
    return re.findall(rf"<!-- five minutes: {label} -->\n```\w+\n(.*?)```", README.read_text(), re.DOTALL)


def test_quick_start_reaches_all_recipients_and_passes_its_test(
    sandbox: SandboxProcess, airflow_cli: AirflowCli
) -> None:
    prepare, run = blocks("shell")
    (dag,), (test,) = blocks("dag"), blocks("test")
    # The reader's port is the README's; the test's sandbox has a free one.
    prepare = prepare.replace("http://127.0.0.1:8787/router/rest", sandbox.url)
    write_dag = f"cat > home/dags/my_campaign.py <<'DAG'\n{dag}DAG\n"
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    write_test = f"cat > test_my_campaign.py <<'TEST'\n{test}TEST\n"
    test_it = "pytest -p no:cacheprovider test_my_campaign.py\n"
    script = prepare + write_dag + run + write_test + test_it
    ran = airflow_cli.command(["bash", "-euo", "pipefail", "-c", script], env)
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert "60 of 60 finished" in ran.stdout
    assert "1 passed" in ran.stdout
    record = sandbox.record()
    assert len(record["executions"]["by_biz_id"]) == record["totals"]["executed_tasks"] == 60
    assert record["order_violations"] == []
