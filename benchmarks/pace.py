"""Whether processes keep one rate limit together: 4 of them at 5 requests a second, and a throttle of 20 s.

    python benchmarks/pace.py [--quick] [--check]

Each process is a task with a campaign of its own and one request a recipient; they share the ledger's database on
PostgreSQL. Counted by the sandbox, on its own clock: the requests of all together for 40 s from the moment on at which
the last of them has begun, and how often each process meets the throttle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
from common import Target

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess

ROOT = Path(__file__).parents[1]
PROCESSES = 4
RATE = 5.0
BAN = 20.0
LEAST, MOST, MET = (
    "requests a second of all together, at least",
    "requests a second of all together, at most",
    "throttles that one process met, at most",
)
TARGETS = {
    LEAST: Target(0.9 * RATE, at_least=True, asserted=True),
    MOST: Target(1.04 * RATE, asserted=True),
    MET: Target(1.0, asserted=True),
}


class TaskInstance:
    """What the operator uses of one."""

    dag_id, run_id, map_index, try_number = "bench", "run", -1, 1

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps(value)


def submit(plan: int, recipients: int) -> None:
    """Submit a campaign, in a process of its own."""
    audience = [
        {
            "biz_id": f"{plan}-{n}",
            "phone_number": f"1{plan:03}{n:07}",
            "input_params": {},
            "output_params": {},
        }
        for n in range(recipients)
    ]
    operator = LingyangSubmitBatchOperator(
        task_id=f"submit_{plan}", plan_id=plan, audience=audience, batch_size=1, ledger_conn_id="ledger"
    )
    operator.execute({"ti": TaskInstance(operator.task_id)})  # type: ignore[typeddict-item]


@contextmanager
def campaigns(recipients: int, *, plans: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Run one in each process, of a plan from ``plans`` on; end those that still run."""
    command = [sys.executable, str(Path(__file__)), "--campaign"]
    processes = [
        subprocess.Popen([*command, str(plans + number), str(recipients)]) for number in range(PROCESSES)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def requests_of(sandbox: SandboxProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandbox.record(executions=False)["requests"]
    return found


def together(sandbox: SandboxProcess, seconds: float) -> float:
    """Return the requests a second of all processes together."""
    with campaigns(int(RATE * (seconds + 60)), plans=100) as processes:
        while len({each["plan_id"] for each in requests_of(sandbox)}) < PROCESSES:
            assert all(process.poll() is None for process in processes)
            time.sleep(0.5)
        time.sleep(seconds + 1)
        found = requests_of(sandbox)
    firsts: dict[int, float] = {}
    for each in found:
        firsts.setdefault(each["plan_id"], each["received_at"])
    begun = max(firsts.values())
    return sum(begun <= each["received_at"] < begun + seconds for each in found) / seconds


def throttled(sandbox: SandboxProcess) -> int:
    """Return how often the process met a throttle that met it most often."""
    sandbox.reset()
    sandbox.add_fault(kind="throttle", seconds=BAN, after=20)
    with campaigns(15, plans=200) as processes:
        assert [process.wait(600) for process in processes] == [0] * PROCESSES
    record = sandbox.record()
    assert record["totals"]["executed_tasks"] == PROCESSES * 15
    met = Counter(each["plan_id"] for each in record["requests"] if each["outcome"] == "throttled")
    assert met
    return max(met.values())


def main() -> int:
    parser = common.options(__doc__)
    parser.add_argument("--campaign", nargs=2, type=int, help="submit the campaign of this plan: for itself")
    options = parser.parse_args()
    if options.campaign:
        submit(*options.campaign)
        return 0
    seconds = 20.0 if options.quick else 40.0
    # The tests' own server: they forget what Airflow was told before they begin.
    sys.path.insert(0, str(ROOT))
    environment = dict(os.environ)
    from tests.helpers.servers import Postgres

    os.environ |= environment
    with Postgres() as server, SandboxProcess("--answer-after", "0") as sandbox:
        os.environ["AIRFLOW_CONN_LEDGER"] = json.dumps(server.connection)
        connection = sandbox.connection(max_requests_per_second=RATE)
        os.environ["AIRFLOW_CONN_LINGYANG_DEFAULT"] = json.dumps(connection)
        rate, met = together(sandbox, seconds), throttled(sandbox)
    print(f"{common.machine()}: {PROCESSES} processes at {RATE:g} requests a second, for {seconds:g} s")
    return common.report(TARGETS, {LEAST: rate, MOST: rate, MET: met}, options)


if __name__ == "__main__":
    sys.exit(main())
