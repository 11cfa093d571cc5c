"""What the benchmarks share: an Airflow of their own, the sink, medians of runs in turn, and targets."""

from __future__ import annotations

import argparse
import atexit
import hmac
import json
import logging
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

HOME = tempfile.mkdtemp(prefix="lingyang-bench-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "NO_PROXY": "127.0.0.1",
}
logging.disable(logging.WARNING)

CHINA = ZoneInfo("Asia/Shanghai")
APP_KEY, APP_SECRET = "bench-key", "bench-secret"


@contextmanager
def sink(delay: float = 0.0) -> Iterator[str]:
    """Run the gateway that costs next to nothing; give its URL, which ``lingyang_default`` leads to."""
    command = [sys.executable, str(Path(__file__).with_name("sink.py")), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()
        os.environ["AIRFLOW_CONN_LINGYANG_DEFAULT"] = connection(url)
        yield url
        process.stdin.close()


def connection(url: str) -> str:
    """Return an Airflow connection to a gateway."""
    return json.dumps({"conn_type": "lingyang", "host": url, "login": APP_KEY, "password": APP_SECRET})


def form_by_hand(method: str, param: str, struct: str) -> dict[str, str]:
    """Return a signed form, as one would write it without this package."""
    form = {
        "method": method,
        "app_key": APP_KEY,
        "timestamp": datetime.now(CHINA).strftime("%Y-%m-%d %H:%M:%S"),
        "format": "json",
        "v": "2.0",
        "sign_method": "hmac-sha256",
        param: struct,
    }
    text = "".join(name + form[name] for name in sorted(form))
    form["sign"] = hmac.new(APP_SECRET.encode(), text.encode(), "sha256").hexdigest().upper()
    return form


def span(url: str) -> tuple[int, float]:
    """Return how many requests the sink got since it was last asked, and the seconds to the last answer."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        told = json.load(answer)
    return told["requests"], told["seconds"]


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def peak_memory() -> float:
    """MB that this process has needed at most."""
    try:
        # What getrusage tells on Linux begins with the size of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Measure each side once a round, and return the median of each."""
    runs: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            runs[name].append(measure())
    return {name: statistics.median(values) for name, values in runs.items()}


@dataclass(frozen=True)
class Target:
    """What a figure is to reach.

    :param bound: the figure is at most this; None: it is only reported.
    :param at_least: the bound is a lower one.
    :param asserted: whether ``--check`` fails where it is missed: for what does not depend on how busy the machine is.
    """

    bound: float | None = None
    at_least: bool = False
    asserted: bool = False

    def met(self, figure: float) -> bool:
        if self.bound is None:
            return True
        return figure >= self.bound if self.at_least else figure <= self.bound


def options(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(doc or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, help="how often each side is measured")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument(
        "--check", action="store_true", help="fail where a target is missed that no noise moves"
    )
    parser.add_argument("--results", type=Path, help="write the figures and their targets there, as JSON")
    return parser


def report(targets: Mapping[str, Target], found: Mapping[str, float], options: argparse.Namespace) -> int:
    """Print each figure beside its target; return the exit status."""
    missed = 0
    for name, figure in found.items():
        target = targets.get(name, Target())
        missed += target.asserted and not target.met(figure)
        words = "reported"
        if target.bound is not None:
            words = f"{'≥' if target.at_least else '≤'} {target.bound:g}  {'met' if target.met(figure) else 'MISSED'}"
        print(f"{name:60} {figure:8.2f}   {words}")
    if options.results:
        rows = [
            [name, figure, target.bound, target.at_least]
            for name, figure in found.items()
            for target in [targets.get(name, Target())]
        ]
        options.results.write_text(json.dumps(rows))
    return int(options.check and missed > 0)
