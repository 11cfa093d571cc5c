"""A million people from a database to the gateway: what memory a task needs for them, and what time for each.

    python benchmarks/million.py [--rows 1000000] [--rounds 1] [--quick] [--check]

Each run is a task in a process of its own: `LingyangSubmitBatchOperator.execute`, or what one would write by hand with
`hook.get_records` and a loop that signs and posts. The gateway is `sink.py`. Imports and a first small campaign are
left out of the times; the memory is the process's peak, all included.

What costs little to read is run with 10,000 rows and with all of them; the former, which is over in a second, twice
before and twice after. An audience by XCom, and the one by hand, which hold everything in memory, are run with a tenth
of them. The next try of a finished campaign finds all recipients accepted and sends nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import common
from common import Target

BASE = 10_000
WARM_UP = 200
COLUMNS = "order_no, mobile, wave, customer, product, amount"
SOURCES = ("sqlite", "psycopg2", "psycopg3")
GROWTH, PER_ROW = "MB more than for 10,000", "time per row / that of 10,000"
TARGETS = {
    **{f"{source}: {GROWTH}": Target(64, asserted=True) for source in SOURCES},
    **{f"{source}: {PER_ROW}": Target(1.15) for source in SOURCES},
    f"sqlite, SQL ledger: {GROWTH}": Target(64, asserted=True),
    f"sqlite, task state ledger: {GROWTH}": Target(64, asserted=True),
    f"sqlite, SQL ledger, next try: {GROWTH}": Target(64, asserted=True),
    f"sqlite, task state ledger, next try: {GROWTH}": Target(64, asserted=True),
}


class TaskInstance:
    """The part of a task instance that the operator uses."""

    dag_id, task_id, map_index, max_tries = "bench", "submit", -1, 3

    def __init__(self, run_id: str, try_number: int) -> None:
        self.run_id, self.try_number = run_id, try_number

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)


class Store:
    """Airflow's task state store, in a file instead of behind its API server."""

    def __init__(self, path: str, run_id: str) -> None:
        self._run_id = run_id
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT)")

    def get(self, key: str) -> Any:
        found = self._db.execute("SELECT value FROM state WHERE key = ?", (self._run_id + key,)).fetchone()
        return found and json.loads(found[0])

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO state VALUES (?, ?)", (self._run_id + key, json.dumps(value))
        )


def by_operator(
    rows: int, *, xcom: str = "", ledger: str = "", store: str = "", next_try: bool = False, run: int = 0
) -> None:
    from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

    source: dict[str, Any] = {"sql": query(rows), "sql_conn_id": "audience"}
    if xcom:
        # As Airflow hands it over: all of it, parsed.
        source = {"audience": json.loads(Path(xcom).read_text())[:rows]}
    if ledger:
        source["ledger_conn_id"] = "ledger"
    operator = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=123,
        channel="call",
        columns={"biz_id": "order_no", "phone_number": "mobile", "batch_num": "wave"},
        input_params_columns=["customer", "product", "amount"],
        output_slots=["intention", "callback_time"],
        **source,
    )
    run_id = f"warm-up-{os.getpid()}" if rows == WARM_UP else f"run-{rows}-{run}"
    context: dict[str, Any] = {"ti": TaskInstance(run_id, 2 if next_try else 1)}
    if store:
        context["task_state_store"] = Store(store, run_id)
    counts = operator.execute(context)["counts"]  # type: ignore[arg-type]
    assert counts["already_accepted" if next_try else "accepted"] == counts["audience"] == rows, counts


def by_hand(rows: int) -> None:
    import requests
    from airflow.providers.common.compat.sdk import BaseHook
    from common import form_by_hand
    from submit import METHOD, PARAM, accepted_in

    url = BaseHook.get_connection("lingyang_default").host
    hook = BaseHook.get_connection("audience").get_hook()
    records = hook.get_records(query(rows))
    records.sort(key=lambda record: record[2])
    with requests.Session() as session:
        for wave, of_wave in itertools.groupby(records, key=lambda record: record[2]):
            while some := list(itertools.islice(of_wave, 100)):
                tasks = [
                    {
                        "biz_id": order_no,
                        "phone_number": mobile,
                        "input_params": json.dumps(
                            {"customer": customer, "product": product, "amount": amount}
                        ),
                        "output_params": json.dumps({"intention": "", "callback_time": ""}),
                    }
                    for order_no, mobile, _, customer, product, amount in some
                ]
                request = {
                    "task_unique_code": some[0][0],
                    "batch_num": str(wave),
                    "task_list": tasks,
                    "plan_id": 123,
                }
                struct = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
                answer = session.post(url, data=form_by_hand(METHOD, PARAM, struct), timeout=30)
                answer.raise_for_status()
                assert len(accepted_in(answer.json())) == len(some)


def query(rows: int) -> str:
    return f"SELECT {COLUMNS} FROM audience WHERE number <= {rows}"


def child(options: argparse.Namespace) -> None:
    """Be the task, and print what it took."""
    if options.source != "sqlite":
        from airflow.providers.postgres.hooks import postgres

        postgres.USE_PSYCOPG3 = options.source == "psycopg3"
    arguments: dict[str, Any] = json.loads(options.arguments)
    hand = arguments.pop("by_hand", False)

    def run(rows: int) -> None:
        if hand:
            by_hand(rows)
        else:
            by_operator(rows, **arguments)

    if not arguments.get("next_try"):
        run(WARM_UP)
    begun, cpu = time.perf_counter(), time.process_time()
    run(options.rows)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    peak = common.peak_memory()
    print(json.dumps({"MB": peak, "us": seconds / options.rows * 1e6, "CPU": cpu / options.rows * 1e6}))


Cost = dict[str, float]


def task(source: str, rows: int, **arguments: Any) -> Cost:
    """Run one task in a process of its own."""
    command = [sys.executable, __file__, "--rows", str(rows), "--source", source]
    done = subprocess.run(
        [*command, "--arguments", json.dumps(arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    cost: Cost = json.loads(done.stdout.splitlines()[-1])
    return cost


def people(rows: int) -> Iterator[tuple[Any, ...]]:
    for number in range(1, rows + 1):
        yield (
            number,
            f"spring-sale-2026/order-{number:08}",
            # In no order, and no two the same.
            f"1{number * 6_700_417 % 10**10:010}",
            number % 12 + 1,
            f"客户{number}",
            "无线耳机 Pro",
            number % 900 + 0.5,
        )


@contextmanager
def databases(rows: int) -> Iterator[dict[str, str]]:
    """Fill the audience into each kind of database; give their connections as JSON."""
    path = Path(common.HOME, "audience.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"CREATE TABLE audience (number INTEGER PRIMARY KEY, {COLUMNS})")
        db.executemany("INSERT INTO audience VALUES (?, ?, ?, ?, ?, ?, ?)", people(rows))
        db.commit()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import psycopg2
    from psycopg2.extras import execute_values

    from tests.helpers.servers import Postgres

    with Postgres() as postgres:
        server = postgres.connection
        with (
            closing(
                psycopg2.connect(
                    host=server["host"], port=server["port"], user=server["login"], dbname=server["schema"]
                )
            ) as db,
            db.cursor() as cursor,
        ):
            cursor.execute(
                "CREATE TABLE audience (number int PRIMARY KEY, order_no text, mobile text, wave int, customer text, "
                "product text, amount float8)"
            )
            execute_values(cursor, "INSERT INTO audience VALUES %s", people(rows), page_size=5000)
            db.commit()
            db.autocommit = True
            cursor.execute("VACUUM ANALYZE audience")
        sqlite = json.dumps({"conn_type": "sqlite", "host": str(path)})
        yield {"sqlite": sqlite, "psycopg2": json.dumps(server), "psycopg3": json.dumps(server)}


def show(name: str, rows: int, cost: Cost) -> None:
    print(
        f"  {name:44} {rows:9,} rows  {cost['MB']:7.0f} MB  {cost['us']:7.1f} us a row, {cost['CPU']:6.1f} of CPU",
        flush=True,
    )


def compare(
    name: str, source: str, rows: int, rounds: int, found: dict[str, float], **arguments: Any
) -> Cost:
    """Run a task with few rows and with many, in turn; the few more often, because that is over in a second."""
    runs: dict[int, list[Cost]] = {BASE: [], rows: []}
    for _ in range(rounds):
        for count in (BASE, BASE, rows, BASE, BASE):
            # With a ledger each is a campaign of its own, and what is tried again is the first one.
            run = 0 if arguments.get("next_try") else len(runs[count])
            runs[count].append(task(source, count, run=run, **arguments))
    few, many = (
        {what: statistics.median(cost[what] for cost in costs) for what in costs[0]}
        for costs in runs.values()
    )
    show(name, BASE, few)
    show(name, rows, many)
    found[f"{name}: {GROWTH}"] = many["MB"] - few["MB"]
    if not arguments.get("next_try"):
        found[f"{name}: {PER_ROW}"] = many["us"] / few["us"]
        found[f"{name}: CPU per row / that of 10,000"] = many["CPU"] / few["CPU"]
    return many


def with_ledgers(rows: int, found: dict[str, float]) -> None:
    for name, argument in (("SQL ledger", "ledger"), ("task state ledger", "store")):
        path = str(Path(common.HOME, f"{argument}.db"))
        os.environ["AIRFLOW_CONN_LEDGER"] = json.dumps({"conn_type": "sqlite", "host": path})
        compare(f"sqlite, {name}", "sqlite", rows, 1, found, **{argument: path})
        compare(f"sqlite, {name}, next try", "sqlite", rows, 1, found, next_try=True, **{argument: path})


def against_hand(source: str, rows: int, found: dict[str, float]) -> None:
    hand = task(source, rows, by_hand=True)
    ours = task(source, rows)
    show(f"{source}, by hand", rows, hand)
    show(source, rows, ours)
    size = f"{rows:,} rows"
    found[f"{source}, {size}: memory / by hand"] = ours["MB"] / hand["MB"]
    found[f"{source}, {size}: time / by hand"] = ours["us"] / hand["us"]
    found[f"{source}, {size}: CPU / by hand"] = ours["CPU"] / hand["CPU"]


def by_xcom(rows: int, found: dict[str, float]) -> None:
    path = Path(common.HOME, "xcom.json")
    names = COLUMNS.split(", ")
    path.write_text(json.dumps([dict(zip(names, row[1:], strict=True)) for row in people(rows)]))
    cost = task("sqlite", rows, xcom=str(path))
    show("by XCom", rows, cost)
    found[f"by XCom, {rows:,} rows: MB"] = cost["MB"]


def main() -> int:
    parser = common.options(__doc__)
    parser.add_argument("--rows", type=int, help="1,000,000; with --quick 50,000")
    parser.add_argument("--source", choices=SOURCES, help="only this one")
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arguments:
        logging.disable(logging.WARNING)
        child(options)
        return 0
    rows = options.rows or (50_000 if options.quick else 1_000_000)
    rounds = options.rounds or 1
    print(f"{common.machine()}: {rows:,} rows, {rounds} round(s)", flush=True)
    found: dict[str, float] = {}
    with databases(rows) as connections, common.sink():
        for source in SOURCES if options.source is None else (options.source,):
            os.environ["AIRFLOW_CONN_AUDIENCE"] = connections[source]
            compare(source, source, rows, rounds, found)
            against_hand(source, rows // 10, found)
        if options.source in (None, "sqlite"):
            os.environ["AIRFLOW_CONN_AUDIENCE"] = connections["sqlite"]
            by_xcom(rows // 10, found)
            with_ledgers(rows, found)
    return common.report(TARGETS, found, options)


if __name__ == "__main__":
    sys.exit(main())
