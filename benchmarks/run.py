"""All benchmarks, one after the other; then the figures in one picture.

python benchmarks/run.py [--quick] [--check] [--plot FILE.svg] [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import common
from plot import draw

HERE = Path(__file__).parent
NAMES = ("imports", "submit", "sending", "ledgers", "ledger_size", "pace", "lookups", "million")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help=f"only these of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument(
        "--check", action="store_true", help="fail where a target is missed that no noise moves"
    )
    parser.add_argument("--plot", type=Path, help="draw the figures that have a target")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    passed_on = ["--quick"] * options.quick + ["--check"] * options.check
    failed = []
    figures = []
    for name in options.names or NAMES:
        print(f"\n== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder, "results.json")
            command = [sys.executable, str(HERE / f"{name}.py"), *passed_on, "--results", str(results)]
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
            if results.exists():
                figures += [(name, *row) for row in json.loads(results.read_text())]
    if options.plot:
        options.plot.write_text(draw(figures, common.machine()))
        print(f"\ndrawn into {options.plot}")
    if failed:
        print(f"\nFAILED: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
