"""One request of 100 full tasks, from Python dicts to who was accepted: this package, and what else one could use.

    python benchmarks/submit.py [--rounds 150] [--quick] [--check]

All call the same gateway (`sink.py`) with the same ten requests. A campaign sends its requests one after another, so
the sides take turns after ten calls; what one call takes between those of all others is reported beside it. Only this
package checks the tasks. The floor is http.client with everything built beforehand, which reads the answer and looks at
nothing.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import common
from common import Target, form_by_hand

REQUESTS = 10
METHOD = "alibaba.lingyang.utouch.submit.initiative.batch.task"
PARAM = "initiative_batch_task_request"
SDKS = Path(__file__).parents[1] / ".venv-sdks" / "bin" / "python"
TARGETS = {
    "wall / requests.Session by hand": Target(0.80),
    "wall / HttpHook": Target(0.65),
    "wall / taobaopy": Target(1.0, asserted=True),
    "wall / taobaopyx": Target(1.0, asserted=True),
    "wall / topsdk": Target(1.0),
    "wall / http.client, prebuilt (the floor)": Target(),
}
AUDIENCE: list[dict[str, Any]] = [
    {
        "biz_id": f"spring-sale-2026/order-{number:08}",
        "phone_number": f"1000{number:07}",
        "email": f"customer{number}@example.com",
        "outer_user_id": f"user-{number}",
        "cms_user_id": 7000000 + number,
        "user_name": "张三",
        "input_params": json.dumps(
            {"name": "张三", "order": f"2026-{number:08}", "store": "杭州西湖店", "amount": "1288.00"},
            ensure_ascii=False,
        ),
        "output_params": json.dumps({"intention": "", "callback_time": ""}),
        "source_id": 12,
        "department_id": 34,
        "cms_member_type": "gold",
        "book_charge_biz_info": json.dumps({"cost_center": "crm"}),
        "plan_execute_start_time": "2026-03-12 14:05:56",
    }
    for number in range(100 * REQUESTS)
]


def request(number: int) -> dict[str, Any]:
    tasks = AUDIENCE[number * 100 : number * 100 + 100]
    return {"task_unique_code": f"code-{number}", "batch_num": "1", "task_list": tasks, "plan_id": 123}


def accepted_in(answer: Any) -> dict[str, int]:
    result = answer[f"{METHOD.replace('.', '_')}_response"]["result"]
    assert result["success"] is True
    tasks = result["data"]["initiative_task_response"]
    return {task["task_request"]["biz_id"]: task["task_id"] for task in tasks}


def struct_by_hand(number: int) -> str:
    return json.dumps(request(number), ensure_ascii=False, separators=(",", ":"))


Submit = Callable[[int], dict[str, Any]]


@contextmanager
def this_package(url: str) -> Iterator[Submit]:
    from airflow_provider_lingyang.hooks.lingyang import LingyangHook

    hook = LingyangHook()
    yield lambda number: hook.submit_batch(request(number)).task_ids
    hook.close()


@contextmanager
def session_by_hand(url: str) -> Iterator[Submit]:
    import requests

    with requests.Session() as session:

        def submit(number: int) -> dict[str, Any]:
            answer = session.post(url, data=form_by_hand(METHOD, PARAM, struct_by_hand(number)), timeout=30)
            answer.raise_for_status()
            return accepted_in(answer.json())

        yield submit


@contextmanager
def http_hook(url: str) -> Iterator[Submit]:
    from airflow.providers.http.hooks.http import HttpHook

    parts = urlsplit(url)
    os.environ["AIRFLOW_CONN_BENCH_HTTP"] = json.dumps(
        {"conn_type": "http", "host": parts.hostname, "port": parts.port, "schema": "http"}
    )
    hook = HttpHook(method="POST", http_conn_id="bench_http")
    yield lambda number: accepted_in(
        hook.run(parts.path, data=form_by_hand(METHOD, PARAM, struct_by_hand(number))).json()
    )


@contextmanager
def floor(url: str) -> Iterator[Submit]:
    parts = urlsplit(url)
    body = urlencode(form_by_hand(METHOD, PARAM, struct_by_hand(0))).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection = http.client.HTTPConnection(parts.netloc)

    def submit(_: int) -> dict[str, Any]:
        connection.request("POST", parts.path, body, headers)
        connection.getresponse().read()
        return dict.fromkeys(range(100))

    yield submit
    connection.close()


def timed(submit: Submit) -> Callable[[], float]:
    numbers = itertools.cycle(range(REQUESTS))

    def measure() -> float:
        number = next(numbers)
        begun = time.perf_counter()
        found = submit(number)
        seconds = time.perf_counter() - begun
        assert len(found) == 100
        return seconds

    return measure


def in_a_row(measure: Callable[[], float]) -> Callable[[], float]:
    return lambda: sum(measure() for _ in range(REQUESTS)) / REQUESTS


@contextmanager
def sdk(name: str, url: str) -> Iterator[Callable[[], float]]:
    """Run another client in its own environment; it measures itself."""
    command = [str(SDKS), "-W", "ignore", str(Path(__file__).with_name("sdk.py")), name, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps([request(number) for number in range(REQUESTS)]), file=stdin, flush=True)

        def measure() -> float:
            print(file=stdin, flush=True)
            return float(stdout.readline())

        yield measure
        stdin.close()


def beside(found: dict[str, float]) -> dict[str, float]:
    ours = found.pop("this package")
    return {name: ours / seconds for name, seconds in found.items()}


def main() -> int:
    options = common.options(__doc__).parse_args()
    rounds = options.rounds or (40 if options.quick else 150)
    with common.sink() as url, ExitStack() as stack:
        sides: dict[str, Callable[[], float]] = {}
        for name, side in (
            ("this package", this_package),
            ("requests.Session by hand", session_by_hand),
            ("HttpHook", http_hook),
            ("http.client, prebuilt (the floor)", floor),
        ):
            sides[name] = timed(stack.enter_context(side(url)))
        for name in ("taobaopy", "taobaopyx", "topsdk"):
            sides[name] = stack.enter_context(sdk(name, url))
        common.in_turn(sides, REQUESTS)  # imports, connections, the sink's answers
        single = common.in_turn(sides, rounds)
        found = common.in_turn({name: in_a_row(side) for name, side in sides.items()}, rounds // 4)
    size = len(struct_by_hand(0).encode())
    print(f"{common.machine()}: one request of 100 tasks, {size / 1024:.0f} KB of JSON, {rounds} rounds")
    for name, seconds in found.items():
        print(f"  {name:36} {seconds * 1e3:7.2f} ms, between others {single[name] * 1e3:7.2f} ms")
    ratios = {f"wall / {name}": seconds for name, seconds in beside(found).items()}
    ratios |= {f"one between others / {name}": seconds for name, seconds in beside(single).items()}
    return common.report(TARGETS, ratios, options)


if __name__ == "__main__":
    sys.exit(main())
