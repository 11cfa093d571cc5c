"""Clients of the platform that are not ours get the right answers from the sandbox.

They live in an environment of their own (``make sdks``), because they pin old libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Protocol

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess

HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("LINGYANG_SDKS", HERE.parents[1] / ".venv-sdks")) / "bin" / "python"
SUBMIT = "alibaba.lingyang.utouch.submit.initiative.batch.task"
STRUCT = {
    "task_unique_code": "c1",
    "batch_num": "1",
    "plan_id": 123,
    "task_list": [
        {
            "biz_id": "B1",
            "phone_number": "10000000001",
            "input_params": '{"name":"张三 \\"😀\\" \\\\ + & = %"}',
            "output_params": '{"intention":""}',
            "plan_execute_start_time": "2024-03-12 14:05:56",
        }
    ],
}


class Ask(Protocol):
    """Calls a method of the platform, and returns the JSON that the client made of its answer."""

    def __call__(self, method: str, params: dict[str, str], secret: str = "sandbox-secret") -> Any: ...


@pytest.fixture(params=["topsdk", "taobaopyx"])
def ask(request: pytest.FixtureRequest, sandbox: SandboxProcess) -> Ask:
    """Calls the sandbox through a client; gives what the client understood."""
    if not PYTHON.exists():
        if os.environ.get("LINGYANG_REQUIRE_SERVERS"):
            pytest.fail(f"the other clients' environment is not there: {PYTHON}")
        pytest.skip("the other clients' environment is not there: make sdks")
    host, port = sandbox.base_url.removeprefix("http://").split(":")

    def ask(method: str, params: dict[str, str], secret: str = "sandbox-secret") -> Any:
        ran = subprocess.run(
            [PYTHON, "-W", "ignore", HERE / f"call_with_{request.param}.py", host, port, secret],
            input=json.dumps({"method": method, "params": params}),
            # taobaopyx signs the host's own wall clock.
            env={**os.environ, "TZ": "Asia/Shanghai"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    return ask


def test_time_get_is_answered(ask: Ask) -> None:
    assert set(ask("taobao.time.get", {})["time_get_response"]) == {"time", "request_id"}


def test_a_batch_is_accepted_and_looked_up(ask: Ask, sandbox: SandboxProcess) -> None:
    struct = json.dumps(STRUCT, ensure_ascii=False)
    answer = ask(SUBMIT, {"initiative_batch_task_request": struct})
    result = answer["alibaba_lingyang_utouch_submit_initiative_batch_task_response"]["result"]
    (task,) = result["data"]["initiative_task_response"]
    assert result["success"] is True
    assert task["task_request"]["input_params"] == STRUCT["task_list"][0]["input_params"]  # type: ignore[index]
    assert sandbox.record()["executions"]["by_biz_id"] == {"B1": 1}
    found = ask("sandbox.lingyang.utouch.query.task.result", {"task_result_query": '{"biz_ids":["B1"]}'})
    (item,) = next(iter(found.values()))["result"]["data"]["task_result"]
    assert (item["biz_id"], item["task_id"]) == ("B1", task["task_id"])


def test_a_wrong_secret_is_an_invalid_signature(ask: Ask) -> None:
    assert ask("taobao.time.get", {}, secret="wrong")["code"] == 25


@pytest.mark.parametrize(
    ("fault", "code", "sub_code"),
    [
        ({"kind": "throttle", "seconds": 1}, 7, "accesscontrol.limited-by-api-access-count"),
        ({"kind": "permission"}, 11, "isv.permission-api-package-limit"),
        ({"kind": "error"}, 15, "isp.remote-service-error"),
    ],
)
def test_a_refusal_is_understood(
    ask: Ask, sandbox: SandboxProcess, fault: dict[str, Any], code: int, sub_code: str
) -> None:
    sandbox.add_fault(**fault)
    assert ask("taobao.time.get", {}) == {"code": code, "sub_code": sub_code}
