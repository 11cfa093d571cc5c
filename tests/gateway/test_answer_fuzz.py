"""Thousands of damaged answers: each is a result or a ``LingyangError``, and none repeats the request."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, SUBMIT_PARAM, InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.protocol import read_answer
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt, read_receipt
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.lookup.page import read_page
from airflow_provider_lingyang.lookup.query import ResultQuery

ROUNDS = int(os.environ.get("LINGYANG_FUZZ_ROUNDS", "1000"))
"""Answers per kind of damage and reader."""

CANARIES = ("10000031337", "canary@example.com", "金丝雀张三", 'Canary "quoted"', "canary-slot", "8888831337")
SECRET = "canary-app-secret"
TASK = {
    "biz_id": "b-1",
    "phone_number": CANARIES[0],
    "email": CANARIES[1],
    "user_name": CANARIES[2],
    "input_params": {"note": CANARIES[3]},
    "output_params": {"slot": CANARIES[4]},
    "cms_user_id": int(CANARIES[5]),
}
STRUCT = InitiativeBatchTaskRequest.model_validate(
    {"task_unique_code": "c", "plan_id": 1, "task_list": [TASK]}
).to_json()
SCRUB = Scrubber({SUBMIT_PARAM: STRUCT}, {SECRET: "app_secret"})
QUERY = ResultQuery(
    method="x", biz_ids_field="b", items_path="result.data", status_field="state", task_id_field="task_id"
)

ECHO = json.loads(STRUCT)["task_list"][0] | {"plan_execute_start_time": "Thu Mar 14 15:16:52 CST 2024"}
GOOD: list[Any] = [
    {
        SUBMIT_METHOD.replace(".", "_") + "_response": {
            "result": {
                "code": "200",
                "success": True,
                "message": f"ok {CANARIES[0]}",
                "data": {"initiative_task_response": [{"task_id": 2**53 + 1, "task_request": ECHO}]},
            },
            "request_id": "r1",
        }
    },
    {"result": {"success": False, "code": "400", "message": f"{CANARIES[2]} {SECRET}"}, "request_id": "r2"},
    {
        "error_response": {
            "code": 15,
            "msg": STRUCT,
            "sub_code": "isv.x",
            "sub_msg": " ".join(CANARIES),
            "request_id": "r",
        }
    },
    {"error_response": {"code": 7, "sub_msg": f"{SECRET} This ban will last for 3 more seconds"}},
    {
        "a_response": {
            "result": {
                "success": True,
                "data": [{"biz_id": "b-1", "state": "DONE", "output_params": '{"slot":"x"}', "task_id": 1}],
            }
        }
    },
]
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**70,
    1.5,
    float("nan"),
    float("inf"),
    "",
    " ",
    "true",
    "false",
    "{}",
]
ODD += [
    [],
    {},
    [[]],
    [{}],
    {"": None},
    {"a": {}},
    "x" * 2000,
    "\ud800",
    "\x00",
    *CANARIES,
    {CANARIES[0]: CANARIES[1]},
]
ODD += [
    [{CANARIES[2]: SECRET}],
    json.loads('{"a":' * 60 + "1" + "}" * 60),
    SECRET,
    "error_response",
    "_response",
]


def xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{name}>{xml(item)}</{name}>" for name, item in value.items())
    if isinstance(value, list):
        return "".join(f"<item>{xml(item)}</item>" for item in value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("&", "&amp;").replace("<", "&lt;")


BODIES = [
    text.encode()
    for value in GOOD
    for text in (json.dumps(value, ensure_ascii=False), json.dumps(value), xml(value))
]


def damaged_bytes(rng: random.Random) -> bytes:
    """Flip, cut, double, insert and swap pieces."""
    body = bytearray(rng.choice(BODIES))
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, to = sorted(rng.randrange(len(body) + 1) for _ in range(2))
        match rng.randrange(7):
            case 0 if body:
                body[at % len(body)] = rng.randrange(256)
            case 1:
                del body[at : at + rng.choice((1, 2, 50))]
            case 2:
                body[at:at] = body[at:to][:200]
            case 3:
                body[at:at] = rng.choice(
                    (b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\x00", b"\xff", b"<", b">", b"&")
                )
            case 4:
                body = body[:at]
            case 5:
                body[at:at] = rng.choice(
                    (b"<!DOCTYPE x>", b"\\ud800", b"1e999", b"-", b"NaN", b"null", b"9" * 5000)
                )
            case _:
                body = body[to:] + body[:to]
    return bytes(body)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in a structure."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def damaged_structure(rng: random.Random) -> bytes:
    """Replace, rename, drop, wrap and exchange fields."""
    document = copy.deepcopy(rng.choice(GOOD))
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        found = list(places(document))
        if not found:
            break
        container, key = rng.choice(found)
        match rng.randrange(6):
            case 0 | 1:
                container[key] = copy.deepcopy(rng.choice(ODD))
            case 2:
                del container[key]
            case 3 if isinstance(container, dict):
                names = [
                    "error_response",
                    "result",
                    "success",
                    "data",
                    "task_request",
                    "biz_id",
                    "x_response",
                    CANARIES[0],
                    "",
                ]
                container[rng.choice(names)] = container.pop(key)
            case 4:
                container[key] = rng.choice(([container[key]], {"x": container[key]}, [container[key]] * 2))
            case _:
                other, its_key = rng.choice(found)
                if its_key in other if isinstance(other, dict) else its_key < len(other):
                    container[key] = copy.deepcopy(other[its_key])
    if rng.randrange(3) == 0:
        return xml(document).encode(errors="surrogatepass")
    return json.dumps(document, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")


def receipt(body: bytes, status: int) -> None:
    found = read_receipt(read(body, status))
    assert isinstance(found, SubmitReceipt)
    for biz_id, task_id in found.task_ids.items():
        assert isinstance(biz_id, str)
        assert task_id is None or type(task_id) is int
    assert_private(repr(found))


def results(body: bytes, status: int) -> None:
    answer = read(body, status)
    found = read_page(QUERY, answer).results
    for biz_id, result in QUERY.preferred(found).items():
        assert isinstance(biz_id, str)
        assert result.status is None or isinstance(result.status, str)


def read(body: bytes, status: int) -> Any:
    return read_answer(status=status, content_type="text/javascript", body=body, scrub=SCRUB)


def assert_private(text: str) -> None:
    for canary in (*CANARIES, SECRET, json.dumps(CANARIES[2])[1:-1], json.dumps(CANARIES[3])[1:-1]):
        assert canary not in text


@pytest.mark.parametrize("reader", [receipt, results])
@pytest.mark.parametrize("damage", [damaged_bytes, damaged_structure])
def test_a_damaged_answer_is_a_result_or_a_typed_error_without_the_request(
    damage: Callable[[random.Random], bytes], reader: Callable[[bytes, int], None]
) -> None:
    outcomes = {"result": 0, "error": 0}
    for seed in range(ROUNDS):
        rng = random.Random(seed)
        body = damage(rng)
        status = rng.choice((200, 200, 200, 200, 302, 500))
        caught: LingyangError | None = None
        try:
            reader(body, status)
        except LingyangError as error:
            caught = error
        outcomes["error" if caught else "result"] += 1
        if caught is not None:
            shown = str(caught) + repr(caught) + repr(vars(caught))
            assert_private(shown)
            shown.encode()
            assert caught.__context__ is None or caught.__suppress_context__
    # A fuzzer that breaks everything, or nothing, tests nothing.
    assert min(outcomes.values()) > ROUNDS / 200, outcomes


def test_undamaged_answers_are_read() -> None:
    for body in BODIES[:3]:
        receipt(body, 200)
    for body in BODIES[12:14]:
        results(body, 200)
    for body in BODIES[3:12]:
        with pytest.raises(LingyangError):
            receipt(body, 200)
