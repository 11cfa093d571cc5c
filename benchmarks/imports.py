"""What it costs to parse a DAG file that imports the operators and sensors, beside other providers.

    python benchmarks/imports.py [--rounds 7] [--quick] [--check]

Each in a fresh process which has imported `from airflow.sdk import DAG, BaseOperator` already; each side in turn.
"""

from __future__ import annotations

import json
import subprocess
import sys

import common
from common import Target

MODULES = {
    "this package": (
        "airflow_provider_lingyang.operators.lingyang",
        "airflow_provider_lingyang.sensors.lingyang",
    ),
    "airbyte": ("airflow.providers.airbyte.operators.airbyte", "airflow.providers.airbyte.sensors.airbyte"),
    "http": ("airflow.providers.http.operators.http", "airflow.providers.http.sensors.http"),
    "dbt-cloud": ("airflow.providers.dbt.cloud.operators.dbt", "airflow.providers.dbt.cloud.sensors.dbt"),
}
MEASURE = """
import importlib, json, sys, time
from airflow.sdk import DAG, BaseOperator
before = set(sys.modules)
begun = time.perf_counter()
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps([len(set(sys.modules) - before), time.perf_counter() - begun]))
"""
TARGETS = {
    "modules imported": Target(60, asserted=True),
    "time / airbyte": Target(1.0, asserted=True),
}


def main() -> int:
    options = common.options(__doc__).parse_args()
    counts: dict[str, int] = {}

    def measure(name: str) -> float:
        command = [sys.executable, "-W", "ignore", "-c", MEASURE, *MODULES[name]]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        counts[name], seconds = json.loads(printed.splitlines()[-1])
        return float(seconds)

    sides = {name: lambda name=name: measure(name) for name in MODULES}  # type: ignore[misc]
    common.in_turn(sides, 1)  # compiles what was never imported
    found = common.in_turn(sides, options.rounds or (3 if options.quick else 7))
    print(f"{common.machine()}: imported after `from airflow.sdk import DAG, BaseOperator`")
    for name, seconds in found.items():
        print(f"  {name:14} {counts[name]:4} modules  {seconds * 1e3:6.0f} ms")
    ours = found["this package"]
    figures = {"modules imported": float(counts["this package"])}
    figures |= {f"time / {name}": ours / seconds for name, seconds in found.items() if name != "this package"}
    return common.report(TARGETS, figures, options)


if __name__ == "__main__":
    sys.exit(main())
