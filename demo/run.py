"""Run a campaign from a SQL table through the sandbox to filled slots: `make demo`.

Needs Python 3.11 only. Exits with status 0 only if the gateway's record agrees with the manifest.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sqlite3
import sys
import time
import traceback
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import audience
from comparison import Comparison, compare
from processes import Failed, Interrupted, Processes
from show import FAINT, GREEN, RED, Screen, tail

ROOT = Path(__file__).resolve().parent.parent
DAG = "campaign_from_sql"
# Facts about the installed package, read in its environment.
FACTS = """
import json, platform
from importlib.metadata import version
from airflow_provider_lingyang.sandbox import APP_KEY, APP_SECRET
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY
print(json.dumps({
    "airflow": version("apache-airflow"), "python": platform.python_version(),
    "package": version("airflow-provider-lingyang"),
    "login": APP_KEY, "password": APP_SECRET, "result_query": RESULT_QUERY,
}))
"""
OWN_ACCOUNT = f"""\
For your own account: copy dags_examples/{DAG}.py into your DAGs folder, change what it marks as
yours (table, columns, plan), and create two connections in your Airflow: lingyang_default (gateway URL,
App key, App secret, result_query) and audience_db (your database). README.md has each step."""


class Demo:
    """One run of the demo.

    :param python: interpreter of the environment to use; None: that of the clone, made if needed.
    :param work: folder to empty and fill.
    :param screen: prints.
    :param processes: starts and stops the programs.
    """

    def __init__(self, python: Path | None, work: Path, screen: Screen, processes: Processes) -> None:
        self.python = python or ROOT / ".venv" / "bin" / "python"
        self.own_environment = python is None
        self.work = work
        self.screen = screen
        self.processes = processes
        self.stage = "0 (start)"
        self.last_log = work
        # Without the settings of the user's own Airflow; no request leaves this machine.
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))
        }
        self.env |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        self.env |= {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}

    def log(self, name: str) -> Path:
        self.last_log = self.work / "log" / f"{name}.log"
        return self.last_log

    def module(self, *arguments: str) -> list[str]:
        return [str(self.python), "-m", *arguments]

    def enter(self, number: int, name: str, doing: str) -> Any:
        self.stage = f"{number} ({name})"
        return self.screen.stage(number, name, doing)

    def run(self) -> None:
        started = time.monotonic()
        with self.enter(1, "environment", "Airflow, this package and its tools, versions pinned") as notes:
            facts = self.environment()
            notes += [
                f"Airflow {facts['airflow']}",
                f"Python {facts['python']}",
                f"provider {facts['package']}",
            ]
        with self.enter(
            2, "sandbox", "a gateway on a free port of this machine; it calls no recipient"
        ) as notes:
            url = self.processes.serve(
                self.module("airflow_provider_lingyang.sandbox", "--port=0", "--exit-on-stdin-close"),
                self.log("sandbox"),
                self.env,
                self.work,
            ).split()[-1]
            notes.append(url)
        with self.enter(3, "audience", "a SQL table of customers, in no order") as notes:
            order_numbers = audience.make(self.work / "audience.db")
            notes += [f"{len(order_numbers)} customers", f"{audience.WAVES} waves", "audience.db"]
        with self.enter(4, "campaign", f"airflow dags test {DAG}") as notes:
            run_id, xcoms = self.campaign(url, facts)
            manifest, result = xcoms["submit", "manifest"], xcoms["wait_for_answers", "return_value"]
            notes += [
                f"submitted in {manifest['duration_s']:.1f} s",
                f"{result['counts']['finished']} finished",
            ]
        with self.enter(5, "comparison", "the manifest against the gateway's own record") as notes:
            comparison = self.compare(manifest, url, {f"{run_id}/{number}" for number in order_numbers})
            notes.append("they agree")
        self.report(comparison, result, time.monotonic() - started)

    def environment(self) -> dict[str, Any]:
        if self.own_environment:
            # A broken environment is removed with its own log; this one remains.
            command = [sys.executable, str(ROOT / "demo" / "environment.py")]
            self.processes.run(command, self.log("environment"), {**os.environ}, ROOT)
        answer = self.log("facts")
        self.processes.run([str(self.python), "-c", FACTS], answer, self.env, self.work)
        facts: dict[str, Any] = json.loads(answer.read_text().splitlines()[-1])
        return facts

    def campaign(self, url: str, facts: dict[str, Any]) -> tuple[str, dict[tuple[str, str], Any]]:
        """Run the DAG file unchanged, in an Airflow of its own; return the run id and the XComs."""
        home, log = self.work / "airflow", self.log("campaign")
        gateway = {
            "conn_type": "lingyang",
            "host": url,
            "login": facts["login"],
            "password": facts["password"],
            "extra": {"result_query": facts["result_query"]},
        }
        env = self.env | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags_examples"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_LINGYANG_DEFAULT": json.dumps(gateway),
            "AIRFLOW_CONN_AUDIENCE_DB": json.dumps(
                {"conn_type": "sqlite", "host": str(self.work / "audience.db")}
            ),
        }
        self.processes.run(self.module("airflow", "db", "migrate"), self.log("migrate"), env, self.work)
        self.processes.run(self.module("airflow", "dags", "test", DAG), log, env, self.work, timeout=180)
        with closing(sqlite3.connect(f"{(home / 'airflow.db').as_uri()}?mode=ro", uri=True)) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            # From Airflow 3.4 on, an XCom belongs to a task instance by its id.
            xcom = "xcom" if "xcom" in tables else "xcom_v2 JOIN task_instance ti ON ti.id = task_instance_id"
            rows = db.execute(
                f"SELECT run_id, task_id, key, value FROM {xcom} WHERE dag_id = ?", (DAG,)
            ).fetchall()
        xcoms = {(task, key): _json(value) for _, task, key, value in rows}
        for key in (("submit", "manifest"), ("wait_for_answers", "return_value")):
            if not xcoms.get(key):
                raise Failed(f"the DAG ended well, but XCom {key} is missing", log)
        return rows[0][0], xcoms

    def compare(self, manifest: dict[str, Any], url: str, expected: set[str]) -> Comparison:
        log = self.log("comparison")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url.removesuffix("/router/rest") + "/sandbox/record", timeout=30) as answer:
            record = json.load(answer)
        comparison = compare(manifest, record, expected)
        log.write_text(
            "\n".join([*comparison.problems, json.dumps({"manifest": manifest, "record": record}, indent=1)]),
            encoding="utf-8",
        )
        if comparison.problems:
            self.screen.batches(comparison)
            raise Failed("; ".join(comparison.problems), log)
        return comparison

    def report(self, comparison: Comparison, result: dict[str, Any], seconds: float) -> None:
        screen = self.screen
        screen.say()
        screen.batches(comparison)
        screen.say()
        screen.slot_values(result)
        screen.say()
        screen.say(OWN_ACCOUNT)
        screen.say(f"What the tasks logged: {self.log('campaign')}")
        screen.say()
        facts = [
            f"audience {comparison.audience} = accepted {comparison.accepted} = received {comparison.received}",
            f"duplicates {comparison.duplicates}",
            "order kept",
            f"{seconds:.0f} s",
        ]
        screen.say(f"{screen.colour('OK', GREEN)}  {f' {screen.dot} '.join(facts)}")


def _json(value: str | bytes | None) -> Any:
    """Parse an XCom's value: Airflow 2 keeps bytes of JSON, Airflow 3 JSON, sometimes encoded twice."""
    while isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except ValueError:
            break
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, help="use the environment of this interpreter, as it is")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".demo", help="folder to empty and fill (default .demo)"
    )
    options = parser.parse_args()
    screen, processes = Screen(), Processes()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            screen.say(f"FAILED  another run is at work in {work}")
            return 1
        for old in ("airflow", "log"):
            shutil.rmtree(work / old, ignore_errors=True)
        (work / "audience.db").unlink(missing_ok=True)
        (work / "log").mkdir()
        # Not resolved: through the link, an interpreter belongs to its environment.
        demo = Demo(options.python and options.python.absolute(), work, screen, processes)
        try:
            try:
                demo.run()
            finally:
                processes.stop()
        except Interrupted as interruption:
            screen.say(f"STOPPED  by {interruption} in stage {demo.stage}, with all its programs")
            return interruption.exit_status
        except Failed as failure:
            what, log = str(failure), failure.log
            for line in tail(log.read_text(encoding="utf-8", errors="replace").splitlines()):
                screen.say(screen.colour(f"  {line[:500]}", FAINT))
        except Exception as error:
            what, log = f"{type(error).__name__}: {error}", demo.last_log
            with log.open("a", encoding="utf-8") as output:
                traceback.print_exc(file=output)
        else:
            return 0
        screen.say(f"{screen.colour('FAILED', RED)}  stage {demo.stage}: {what} {screen.dot} log: {log}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
