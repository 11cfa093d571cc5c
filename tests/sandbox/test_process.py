"""The sandbox as a process: command line, end, and a store that survives a kill."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_lingyang.sandbox import process as process_module
from airflow_provider_lingyang.sandbox.__main__ import arguments
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from tests.sandbox.client import TIMEOUT, Client, Gateway

ROOT = Path(process_module.__file__).parents[2]
COMMAND = [sys.executable, "-m", "airflow_provider_lingyang.sandbox"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command, and kill it after the test."""
    started = []

    def begin(*args: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        child = subprocess.Popen(
            [*COMMAND, *args], stdout=pipe, stderr=pipe, stdin=pipe, text=True, env=ENVIRONMENT
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        child.kill()
        child.communicate()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A zombie whose parent died is gone as well.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_prints_one_line_and_ends_cleanly_with_requests_open(
    start: Start, number: signal.Signals
) -> None:
    child = start("--port", "0")
    assert child.stdout
    line = child.stdout.readline()
    assert line.startswith("sandbox gateway ready: http://127.0.0.1:")
    assert line.endswith("/router/rest\n")
    client = Client(line.split()[-1])
    client.add_fault(kind="no_answer")
    client.add_fault(kind="slow", seconds=600)
    with client.opened(client.submit_params()), client.opened(client.submit_params()):
        client.until(lambda: client.record()["totals"]["open"] == 2)
        child.send_signal(number)
        out, err = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, out, err) == (0, "", "")


def test_refuses_other_than_loopback_addresses(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    child = start("--port", "0", "--host", "0.0.0.0")
    out, err = child.communicate(timeout=TIMEOUT)
    assert (child.returncode, out) == (2, "")
    assert "only a loopback address is allowed" in err
    for host in ("::", "192.0.2.1", ""):
        with pytest.raises(SystemExit):
            arguments(["--host", host])
        assert "only a loopback address is allowed" in capsys.readouterr().err
    assert [arguments(["--host", host]).address for host in ("127.0.0.2", "::1")] == ["127.0.0.2", "::1"]


@pytest.mark.parametrize(
    "args",
    [
        ["--answer-after", "-1"],
        ["--answer-after", "nan"],
        ["--answer-after", "inf"],
        ["--port", "65536"],
        ["--port", "x"],
        ["--nope"],
    ],
)
def test_refuses_invalid_options(args: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments(args)


def test_the_defaults_are_those_of_the_readme() -> None:
    options = arguments([])
    assert (options.host, options.port, options.store) == ("127.0.0.1", 8787, ":memory:")
    assert (options.dedupe, options.answer_after) == (False, 3.0)
    assert arguments(["--dedupe"]).dedupe is True
    assert arguments(["--no-dedupe"]).dedupe is False


def test_reports_a_taken_port(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        child = start("--port", str(taken.getsockname()[1]))
        _, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 1
    assert err.startswith("sandbox: cannot listen on 127.0.0.1 port")


def test_reports_an_unusable_store(start: Start, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("no database\n" * 100)
    for store, why in ((tmp_path / "nowhere" / "s.db", "No such file"), (other, "file is not a database")):
        _, err = (child := start("--port", "0", "--store", str(store))).communicate(timeout=TIMEOUT)
        assert child.returncode == 1
        assert err.startswith(f"sandbox: cannot use --store {store}: {why}")
        assert err.count("\n") == 1


def test_accepts_localhost_and_a_seed() -> None:
    with SandboxProcess("--host", "localhost", "--seed", "3", "--answer-after", "0") as sandbox:
        client = Client(sandbox.url)
        client.submit()
        assert client.lookup("order-1")["order-1"]["status"] in ("ANSWERED", "NOT_REACHED")


def test_a_store_survives_a_kill_at_the_same_address(tmp_path: Path) -> None:
    store = tmp_path / "sandbox.db"
    sandbox = SandboxProcess("--store", str(store), "--dedupe", "--answer-after", "0")
    with sandbox:
        client = Client(sandbox.url)
        first = client.submit(batch_num="2", task_list=[client.task(n) for n in range(3)])
        sandbox.add_fault(kind="no_answer")
        with client.opened(client.submit_params(task_unique_code="code-2", task_list=[client.task(9)])):
            client.until(lambda: sandbox.record()["totals"]["open"] == 1)
            sandbox.kill()
        port = int(sandbox.base_url.rpartition(":")[2])
        before = sandbox.url
        with SandboxProcess("--store", str(store), "--dedupe", "--answer-after", "0", port=port) as again:
            assert again.url == before
            record = again.record()
            assert record["executions"]["by_code"] == {"code-1": 1, "code-2": 1}
            assert [request["outcome"] for request in record["requests"]] == ["executed", "fault:no_answer"]
            assert record["totals"]["open"] == 0
            assert set(client.lookup("order-0", "order-9")) == {"order-0", "order-9"}
            repeated = client.submit(batch_num="2", task_list=[client.task(n) for n in range(3)])
            assert repeated.result == first.result
            new = client.submit(task_unique_code="code-3", batch_num="1", task_list=[client.task(4)])
            assert new.echoes[0]["task_id"] not in [echo["task_id"] for echo in first.echoes]
            record = again.record()
            assert [request["seq"] for request in record["requests"]] == [1, 2, 3, 4, 5]
            assert [violation["kind"] for violation in record["order_violations"]] == ["late"]
    assert store.stat().st_mode & 0o777 == 0o600


def test_a_killed_sandbox_can_be_started_again_by_the_same_object() -> None:
    sandbox = SandboxProcess()
    with sandbox:
        first = sandbox.pid
        sandbox.kill()
        assert gone(first)
        sandbox.start()
        assert Client(sandbox.url).submit().result["success"] is True
        second = sandbox.pid
    assert gone(second)
    sandbox.stop()


def test_control_methods() -> None:
    with SandboxProcess() as sandbox:
        rule = sandbox.add_fault(kind="http", status=503, times=2)
        assert sandbox.faults() == [rule]
        with pytest.raises(ValueError, match="unknown kind 'nope'"):
            sandbox.add_fault(kind="nope")
        sandbox.clear_faults()
        assert sandbox.faults() == []
        sandbox.reset()
        assert "requests" in sandbox.record()
        assert set(sandbox.record(requests=False, executions=False)) == {
            "totals",
            "overlap",
            "order_violations",
        }
        connection = json.loads(json.dumps(sandbox.connection(timeout=2)))
        assert connection["host"] == sandbox.url == f"{sandbox.base_url}/router/rest"
        assert (connection["conn_type"], connection["login"]) == ("lingyang", "sandbox")
        assert connection["password"] == "sandbox-secret"
        assert connection["extra"] == {"result_query": RESULT_QUERY, "timeout": 2}


def test_ignores_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with SandboxProcess() as sandbox:
        assert sandbox.record()["requests"] == []


def test_result_query_matches_the_look_up(gateway: Gateway) -> None:
    gateway.submit()
    gateway.moment += 10
    struct = json.dumps({RESULT_QUERY["biz_ids_field"]: ["order-1"] * RESULT_QUERY["max_biz_ids"]})
    (items,) = gateway.call(RESULT_QUERY["method"], **{RESULT_QUERY["request_param"]: struct}).json.values()
    for step in RESULT_QUERY["items_path"].split("."):
        items = items[step]
    ((item,),) = items.values()
    fields = {
        name: RESULT_QUERY[f"{name}_field"]
        for name in ("biz_id", "output_params", "task_id", "created_at", "status")
    }
    assert set(item) == set(fields.values())
    assert item[fields["status"]] in RESULT_QUERY["done_values"] + RESULT_QUERY["failed_values"]


def test_start_error_reports_its_reason() -> None:
    with pytest.raises(RuntimeError, match=r"ended at once: [\s\S]*unrecognized arguments: --nope"):
        SandboxProcess("--nope").start()
    with pytest.raises(RuntimeError, match="was not ready within 0 s"):
        SandboxProcess(start_timeout=0).start()
    with pytest.raises(RuntimeError, match="not started"):
        SandboxProcess().url  # noqa: B018  # reading it raises


def test_sandbox_ends_when_an_exception_leaves_the_block() -> None:
    sandbox = SandboxProcess()
    pids = []

    def fail() -> None:
        with sandbox:
            pids.append(sandbox.pid)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gone(*pids)


def test_sandbox_ends_when_its_parent_process_is_killed() -> None:
    code = (
        "from airflow_provider_lingyang.sandbox.process import SandboxProcess\n"
        "sandbox = SandboxProcess().start()\n"
        "print(sandbox.pid, flush=True)\n"
        "input()\n"
    )
    pipe = subprocess.PIPE
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.communicate()
    try:
        Client("http://127.0.0.1:1").until(lambda: gone(pid))
    finally:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
