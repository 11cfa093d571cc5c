"""How close to the wire's own pace a campaign is sent: 2,000 requests of 100 people, 8 at a time, answers after 50 ms.

    python benchmarks/sending.py [--rounds 3] [--quick] [--check]

The ideal is 2,000 / 8 x 50 ms. Measured by the gateway (`sink.py`), from the first request to the last answer; what the
operator needs before the first request is reported for each row of the audience.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import common
from common import HOME, Target

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

DELAY = 0.05
IN_FLIGHT = 8
BATCH = 100
TARGETS = {"ideal / wall, from first request to last answer": Target(0.90, at_least=True)}


class TaskInstance:
    """What the operator uses of one."""

    dag_id, run_id, task_id, map_index, try_number = "bench", "run", "submit", -1, 1

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)


def audience(rows: int) -> None:
    path = Path(HOME, "audience.db")
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE audience (biz_id, phone_number, user_name, order_no, amount, store)")
        db.executemany(
            "INSERT INTO audience VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    f"spring-sale-2026/order-{n:08}",
                    f"1000{n:07}",
                    "张三",
                    f"2026-{n:08}",
                    n % 977,
                    "杭州西湖店",
                )
                for n in range(rows)
            ),
        )
    db.close()
    os.environ["AIRFLOW_CONN_AUDIENCE"] = json.dumps({"conn_type": "sqlite", "host": str(path)})


def send(url: str, requests: int) -> tuple[float, float]:
    """Return the seconds of sending and the seconds of everything else."""
    operator = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=123,
        channel="sms",
        sql="SELECT * FROM audience",
        sql_conn_id="audience",
        columns={"user_name": "user_name"},
        input_params_columns=["order_no", "amount", "store"],
        output_slots=["answer"],
        batch_size=BATCH,
        max_in_flight=IN_FLIGHT,
    )
    begun = time.perf_counter()
    manifest = operator.execute({"ti": TaskInstance()})  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    arrived, sending = common.span(url)
    assert arrived == requests
    assert manifest["counts"]["accepted"] == requests * BATCH
    return sending, seconds - sending


def main() -> int:
    options = common.options(__doc__).parse_args()
    requests = 400 if options.quick else 2000
    audience(requests * BATCH)
    ideal = requests / IN_FLIGHT * DELAY
    with common.sink(DELAY) as url:
        runs = [send(url, requests) for _ in range(options.rounds or 3)]
    sending, rest = (statistics.median(run[what] for run in runs) for what in (0, 1))
    print(f"{common.machine()}: {requests:,} requests of {BATCH}, {IN_FLIGHT} at a time, answers after 50 ms")
    print(
        f"  sending {sending:.2f} s (ideal {ideal:.2f}), before it {rest / requests / BATCH * 1e6:.0f} us a row"
    )
    return common.report(TARGETS, {next(iter(TARGETS)): ideal / sending}, options)


if __name__ == "__main__":
    sys.exit(main())
