"""Runs schedules and sums them up: ``python tests/chaos/run.py --seeds 0-199 [--workers 3]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def work(first: int, last: int, step: int, folder: Path) -> int:
    """Run every ``step``-th schedule in this process, and print a line of JSON for each."""
    home = folder / "airflow"
    home.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
        "NO_PROXY": "127.0.0.1",
    }
    sys.path.insert(0, str(HERE))
    import campaigns
    import schedules

    with campaigns.world(folder) as world:
        for seed in range(first, last + 1, step):
            try:
                report = campaigns.Run(schedules.make(seed), world).run()
            except Exception as error:
                report = campaigns.Report(seed, [f"the harness failed: {type(error).__name__}: {error}"])
            print(json.dumps(vars(report) | {"hard": report.hard}), flush=True)
            if not report.violations:
                shutil.rmtree(folder / f"schedule-{seed}", ignore_errors=True)
    return 0


def spread(first: int, last: int, workers: int, folder: Path) -> list[dict[str, Any]]:
    """Run the schedules in several processes, each with sandboxes of its own; return their reports."""
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, str(HERE / "run.py"), "--work", str(folder / f"worker-{number}")),
                *("--seeds", f"{first + number}-{last}", "--workers", str(workers)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for number in range(workers)
    ]
    reports = []
    try:
        for process in processes:
            assert process.stdout is not None
            reports += [json.loads(line) for line in process.stdout if line.startswith("{")]
            if process.wait() != 0:
                raise RuntimeError(f"a worker ended with {process.returncode}")
    finally:
        for process in processes:
            # With all that it forked; its sandboxes end by themselves when it does.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    return sorted(reports, key=lambda report: int(report["seed"]))


def summary(reports: list[dict[str, Any]]) -> str:
    """Return the figures, as a person reads them."""
    total: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    for report in reports:
        fired.update(report["fired"])
        total.update({name: report[name] for name in ("tries", "kills", "settled", "duplicates", "lost")})
        total.update({name: report[name] for name in ("in_doubt", "order_violations", "hard")})
    lines = [
        f"schedules {len(reports)}, with a kill or an ambiguous answer {total['hard']}, tries {total['tries']}, "
        f"kills {total['kills']}",
        f"duplicates {total['duplicates']}, lost {total['lost']}, order violations {total['order_violations']}, "
        f"in doubt on the way {total['in_doubt']}, requests settled by hand {total['settled']}",
        "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(fired.items())),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-199", help="first-last, or one (default %(default)s)")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    if options.work:
        return work(int(first), int(last or first), options.workers, options.work)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="lingyang-chaos-"))
    reports = spread(int(first), int(last or first), options.workers, folder)
    bad = [report for report in reports if report["violations"]]
    for report in bad:
        print(f"seed {report['seed']}: " + "; ".join(report["violations"]))
        print(f"  again: python tests/chaos/run.py --seeds {report['seed']}")
    print(summary(reports))
    print(f"{len(bad)} schedule(s) with violations, {time.monotonic() - started:.0f} s")
    if bad:
        print(f"what they left: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
