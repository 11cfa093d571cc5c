"""The commands inside Airflow's own command line, where it takes those of providers (3.2 and later)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from airflow_provider_lingyang.cli.definition import LEDGER_COMMANDS, get_lingyang_cli_commands
from tests.conftest import AirflowCli
from tests.ledger.conftest import SqlLedgers
from tests.versions import STARTED_AIRFLOW


def test_both_command_lines_have_the_same_commands() -> None:
    ((group,),) = [command.subcommands for command in get_lingyang_cli_commands()]  # type: ignore[union-attr]
    assert group.subcommands is LEDGER_COMMANDS
    assert [command.name for command in LEDGER_COMMANDS] == [
        *("list", "show", "settle", "prune", "forget", "stats")
    ]


def test_every_call_of_airflow_reads_the_definition_without_anything_heavy() -> None:
    """It comes on top of what Airflow's own definitions import, and of the package itself."""
    code = (
        "import sys, airflow.cli.cli_config\n"
        "before = set(sys.modules)\n"
        "import airflow_provider_lingyang.cli.definition as definition\n"
        "definition.get_lingyang_cli_commands()\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    package = "airflow_provider_lingyang"
    assert {*ran.stderr.split()} - {package} == {f"{package}.cli", f"{package}.cli.definition"}


@pytest.mark.skipif(STARTED_AIRFLOW < (3, 2), reason="this Airflow takes no commands of providers")
def test_airflows_own_command_line_lists_a_ledger(
    airflow_cli: AirflowCli, make_sql: Callable[[str], SqlLedgers]
) -> None:
    database = make_sql("sqlite")
    ledger = database.start(campaign_key="春季")
    ledger.write([], [database.intent("one", "ab")])
    ledger.release()
    connection = json.dumps({"conn_type": "sqlite", "host": str(database.path)})
    of_ledger = ("--conn-id", "ledger")

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [airflow_cli.python, "-m", "airflow", "lingyang", "ledger", *args]
        env = airflow_cli.env | {"AIRFLOW_CONN_LEDGER": connection}
        # Airflow's own log lines go to stderr.
        return airflow_cli.command(["sh", "-c", 'exec "$@" 2>/dev/null', "sh", *command], env)

    (listed,) = json.loads(run("list", *of_ledger, "--output", "json").stdout)
    assert (listed["campaign_key"], listed["in_doubt"]) == ("春季", 2)
    assert "春季" in run("list", *of_ledger).stdout
    campaign = ("--campaign-key", "春季", "--plan-id", "1")
    settled = run("settle", *of_ledger, *campaign, "one=accepted", "--yes", "-o", "plain")
    assert (settled.returncode, settled.stdout.split()[-4:]) == (0, ["one", "accepted", "2", "True"])
    failed = run("show", *of_ledger, "--plan-id", "9")
    assert (failed.returncode, failed.stdout) == (1, "")
