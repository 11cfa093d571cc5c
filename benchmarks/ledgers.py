"""What the ledger costs while a campaign is sent: in the task's own state, and in PostgreSQL, beside none.

    python benchmarks/ledgers.py [--rounds 3] [--quick] [--check]

Tasks in real workers: scheduler, LocalExecutor and API server of Airflow, whose own database is on the same PostgreSQL.
800 requests of 20 people, 8 at a time, answers after 50 ms; from the first request to the last answer, as the gateway
(`sink.py`) sees it.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

import common
from common import HOME, Target

ROOT = Path(__file__).parents[1]
DELAY = 0.05
LEDGERS = ("nothing", "task_state", "sql")
TARGETS = {f"wall with {name} / without": Target(1.15) for name in LEDGERS[1:]}


def audience(rows: int) -> str:
    path = Path(HOME, "audience.db")
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE audience (biz_id, phone_number, order_no)")
        people = ((f"order-{n:08}", f"1000{n:07}", f"2026-{n:08}") for n in range(rows))
        db.executemany("INSERT INTO audience VALUES (?, ?, ?)", people)
    db.close()
    return json.dumps({"conn_type": "sqlite", "host": str(path)})


def main() -> int:
    options = common.options(__doc__).parse_args()
    requests, rounds = (200, 2) if options.quick else (800, 3)
    rounds = options.rounds or rounds
    # The tests' own Airflow.
    sys.path.insert(0, str(ROOT))
    from tests.helpers.airflow_processes import AirflowProcesses, own_database
    from tests.helpers.servers import Postgres

    with ExitStack() as stack:
        server = stack.enter_context(Postgres()).connection
        sinks = {name: stack.enter_context(common.sink(DELAY)) for name in LEDGERS}
        env = {f"AIRFLOW_CONN_GATEWAY_{name.upper()}": common.connection(url) for name, url in sinks.items()}
        env["AIRFLOW_CONN_AUDIENCE"] = audience(requests * 20)
        env["AIRFLOW_CONN_LEDGER"] = json.dumps(server)
        airflow = AirflowProcesses(Path(HOME), own_database(server), Path(__file__).with_name("dags"), env)
        airflow.start()
        stack.callback(airflow.stop)
        seconds: dict[str, list[float]] = {name: [] for name in LEDGERS}
        for number in range(rounds):
            run = f"round_{number}"
            airflow.api("POST", "/api/v2/dags/campaign/dagRuns", {"dag_run_id": run, "logical_date": None})
            path = f"/api/v2/dags/campaign/dagRuns/{run}"
            airflow.until(
                lambda path=path: airflow.api("GET", path)["state"] in ("success", "failed"),
                f"the end of {run}",
                600,
                # Whoever asks more often takes the API server's time from the ledger.
                every=3,
            )
            assert airflow.api("GET", path)["state"] == "success", airflow.logs()
            for name, url in sinks.items():
                arrived, took = common.span(url)
                assert arrived == requests
                seconds[name].append(took)
    print(f"{common.machine()}: {requests} requests of 20, 8 at a time, answers after 50 ms, in real workers")
    median = {name: statistics.median(runs) for name, runs in seconds.items()}
    for name, took in median.items():
        print(f"  {name:12} {took:6.2f} s")
    figures = {f"wall with {name} / without": median[name] / median["nothing"] for name in LEDGERS[1:]}
    return common.report(TARGETS, figures, options)


if __name__ == "__main__":
    sys.exit(main())
