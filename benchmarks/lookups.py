"""Waiting for many people's answers in the triggerer: how long, at what cost, in how much memory, blocking whom.

    python benchmarks/lookups.py [--rounds 3] [--check] [--quick]

The gateway is `benchmarks/sink.py`, a process of its own, which answers after 50 ms. Against the package's trigger
stands a loop written by hand on the same aiohttp: sign, post, json.loads, note who is finished. Both run in turn, in
one process; medians are compared as ratios.

What Airflow itself holds in memory is left out of Python's garbage collection here: to go through it once takes longer
than anything that is measured, whoever's objects set it off.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import common
from common import HOME, Target, form_by_hand

DELAY = 0.05
AT_A_TIME = 50
METHOD = "sink.query"
TARGETS = {
    "wall / ideal, 1 id a call": Target(1.10),
    "wall / ideal, 50 ids a call": Target(1.10),
    "CPU / loop by hand, 1 id a call": Target(1.30, asserted=True),
    "CPU / loop by hand, 50 ids a call": Target(1.30, asserted=True),
    "event loop blocked, longest, ms": Target(50),
    "peak memory, 100,000 ids more than 1,000, MB": Target(16, asserted=True),
}
os.environ["AIRFLOW__LINGYANG__LOOKUPS_AT_A_TIME"] = str(AT_A_TIME)

from airflow_provider_lingyang.triggers.lingyang import LingyangResultTrigger  # noqa: E402  # after the environment


def biz_ids(count: int) -> list[str]:
    return [f"spring-sale-2026/order-{number:08}" for number in range(count)]


def query(per_call: int) -> dict[str, Any]:
    return {
        "method": METHOD,
        "request_param": "task_result_query",
        "biz_ids_field": "biz_ids",
        "max_biz_ids": per_call,
        "items_path": "result.data",
        "task_id_field": "task_id",
        "status_field": "status",
        "done_values": ["DONE"],
    }


async def by_trigger(source: dict[str, Any], per_call: int) -> dict[str, int]:
    request = {
        "lingyang_conn_id": "lingyang_default",
        "source": source,
        "required_slots": [],
        "result_query": query(per_call),
        "results": None,
    }
    now = time.time()
    trigger = LingyangResultTrigger(
        request=request,
        complete_ratio=1.0,
        poke_interval=0,
        max_wait=None,
        started=now,
        deadline=now + 600,
    )
    (event,) = [event.payload async for event in trigger.run()]
    assert event["status"] == "complete", event
    counts: dict[str, int] = event["counts"]
    return counts


async def by_hand(url: str, ids: list[str], per_call: int) -> dict[str, int]:
    waiting = set(ids)
    chunks = iter([ids[start : start + per_call] for start in range(0, len(ids), per_call)])
    connector = aiohttp.TCPConnector(limit=0)

    async def work(session: aiohttp.ClientSession) -> None:
        for chunk in chunks:
            struct = json.dumps({"biz_ids": chunk}, separators=(",", ":"))
            form = form_by_hand(METHOD, "task_result_query", struct)
            async with session.post(url, data=form) as response:
                answer = await response.json()
            for item in answer["sink_response"]["result"]["data"]["task_result"]:
                if item["status"] == "DONE":
                    waiting.discard(item["biz_id"])

    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(work(session) for _ in range(AT_A_TIME)))
    return {"recipients": len(ids), "finished": len(ids) - len(waiting)}


async def longest_block(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """Do the work, and measure for how long at most nothing else had its turn on the loop."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - begun - 0.005)

    watching = asyncio.ensure_future(watch())
    try:
        return await work, longest
    finally:
        watching.cancel()


def measured(work: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[dict[str, int], float, float, float]:
    """Return what it returns, wall seconds, CPU seconds, and the longest block in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    counts, blocked = asyncio.run(longest_block(work()))
    return counts, time.perf_counter() - wall, time.process_time() - cpu, blocked


def compare(url: str, count: int, per_call: int, rounds: int) -> dict[str, float]:
    ids = biz_ids(count)
    ours, theirs = [], []
    asyncio.run(by_trigger({"biz_ids": ids[:per_call]}, per_call))  # imports
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        ours.append(measured(lambda: by_trigger({"biz_ids": ids}, per_call)))
        theirs.append(measured(lambda: by_hand(url, ids, per_call)))
        for counts, *_ in (ours[-1], theirs[-1]):
            assert counts["recipients"] == counts["finished"] == count, counts
    ideal = count / per_call / AT_A_TIME * DELAY

    def median(runs: list[Any], what: int) -> float:
        return statistics.median(run[what] for run in runs)

    def show(name: str, runs: list[Any]) -> None:
        print(
            f"  {name:14} wall {median(runs, 1):6.2f} s (ideal {ideal:.2f})   CPU per id "
            f"{median(runs, 2) / count * 1e6:6.1f} us   loop blocked at most {median(runs, 3) * 1e3:4.0f} ms"
        )

    print(
        f"{count:,} ids, {per_call} a call, {AT_A_TIME} calls at a time, answers after {DELAY * 1e3:.0f} ms:"
    )
    show("trigger", ours)
    show("loop by hand", theirs)
    name = f"{per_call} id{'s' if per_call > 1 else ''} a call"
    return {
        f"wall / ideal, {name}": median(ours, 1) / ideal,
        f"CPU / loop by hand, {name}": median(ours, 2) / median(theirs, 2),
        "event loop blocked, longest, ms": statistics.median(run[3] for run in ours) * 1e3,
    }


def peak_memory(count: int) -> float:
    """MB that a process needs at most which waits for so many people, whose ids a query gives."""
    path = Path(HOME, f"ids-{count}.db")
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE person (biz_id TEXT)")
        db.executemany("INSERT INTO person VALUES (?)", ((biz_id,) for biz_id in biz_ids(count)))
    db.close()
    command = [sys.executable, __file__, "--memory", str(path), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure_memory(path: str, count: int) -> None:
    os.environ["AIRFLOW_CONN_IDS"] = json.dumps({"conn_type": "sqlite", "host": path})
    source = {"query": {"sql": "SELECT biz_id FROM person", "conn_id": "ids", "parameters": None}}
    with common.sink(DELAY):
        counts = asyncio.run(by_trigger(source, 50))
    assert counts["finished"] == count
    print(common.peak_memory())


def main() -> int:
    parser = common.options(__doc__)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        measure_memory(options.memory[0], int(options.memory[1]))
        return 0
    print(f"{common.machine()}, aiohttp {aiohttp.__version__}")
    found: dict[str, float] = {}
    with common.sink(DELAY) as url:
        tenth = 10 if options.quick else 1
        for count, per_call in ((10_000 // tenth, 1), (500_000 // tenth, 50)):
            for name, value in compare(url, count, per_call, options.rounds or 3).items():
                found[name] = max(value, found.get(name, 0.0))
    small, large = peak_memory(1_000), peak_memory(100_000)
    print(f"peak memory of the process: {small:.0f} MB for 1,000 ids, {large:.0f} MB for 100,000")
    found["peak memory, 100,000 ids more than 1,000, MB"] = large - small
    return common.report(TARGETS, found, options)


if __name__ == "__main__":
    sys.exit(main())
