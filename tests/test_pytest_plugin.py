"""The plugin as users' tests meet it: in a pytest of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from airflow_provider_lingyang.sandbox.process import SandboxProcess

BATCH = """
from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.hooks.lingyang import LingyangHook

def submit(*people, code, batch_num=None):
    tasks = [
        {"biz_id": biz_id, "phone_number": phone, "input_params": {}, "output_params": {}} for biz_id, phone in people
    ]
    request = {"plan_id": 7, "task_unique_code": code, "task_list": tasks}
    return LingyangHook().submit_batch(request | ({} if batch_num is None else {"batch_num": batch_num}))
"""


def run(folder: Path, test: str) -> None:
    """Run tests of a user, all of which pass."""
    (folder / "test_of_a_user.py").write_text(test)
    # Airflow 2.11 itself warns of what SQLAlchemy will change.
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error::pytest.PytestWarning\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


def test_plugin_comes_with_the_package_without_pytest() -> None:
    package = distribution("airflow-provider-lingyang")
    (entry,) = [entry for entry in package.entry_points if entry.group == "pytest11"]
    assert entry.value == "airflow_provider_lingyang.pytest_plugin"
    needed = [each for each in package.requires or [] if "extra ==" not in each]
    assert needed
    assert not [each for each in needed if each.startswith("pytest")]


def test_unused_plugin_imports_and_starts_nothing(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
import os, sys

def test_mine():
    ours = {name for name in sys.modules if name.startswith("airflow")}
    assert ours == {"airflow_provider_lingyang", "airflow_provider_lingyang.pytest_plugin"}
    assert not {"aiohttp", "requests", "pydantic", "sqlalchemy"} & set(sys.modules)
    assert not [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]
""",
    )
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-c",
        "import pytest; import airflow_provider_lingyang.pytest_plugin",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    # What is imported after pytest itself, and because of the plugin alone.
    (end,) = [place for place, line in enumerate(lines) if line.endswith("| pytest")]
    names = [line.rpartition("|")[2].strip() for line in lines[end + 1 :]]
    assert names == ["airflow_provider_lingyang", "airflow_provider_lingyang.pytest_plugin"]


def test_each_test_finds_a_gateway_without_a_past_and_the_environment_as_it_was(tmp_path: Path) -> None:
    run(
        tmp_path,
        BATCH
        + """
import json, os, pytest

processes = set()

def test_first(lingyang_sandbox, lingyang_connection):
    processes.add(lingyang_sandbox.pid)
    submit(("A1", "10000000001"), ("A2", "10000000002"), code="c1", batch_num="1")
    submit(("A3", "10000000003"), code="c2", batch_num="2")
    assert [(who.biz_id, who.phone_number, who.batch_num, who.plan_id) for who in lingyang_sandbox.contacted()] == [
        ("A1", "10000000001", "1", 7), ("A2", "10000000002", "1", 7), ("A3", "10000000003", "2", 7)
    ]
    assert lingyang_sandbox.contacted_twice() == {}
    submit(("A3", "10000000004"), ("A4", "10000000001"), code="c3")
    assert lingyang_sandbox.contacted_twice() == {"A3": 2, "10000000001": 2}
    submit(("10000000001", "10000000005"), code="c4")
    assert lingyang_sandbox.contacted_twice() == {"A3": 2, "10000000001": 2}
    lingyang_sandbox.add_fault(kind="http", status=500, times=None)

def test_second(lingyang_connection, lingyang_sandbox):
    processes.add(lingyang_sandbox.pid)
    assert lingyang_sandbox.contacted() == []
    submit(("A1", "10000000001"), code="c1")
    assert len(lingyang_sandbox.contacted()) == 1
    connection = lingyang_connection("mine", timeout=2)
    assert json.loads(os.environ["AIRFLOW_CONN_MINE"]) == connection
    assert LingyangHook("mine").settings.timeout == 2
    lingyang_sandbox.kill()

def test_without():
    assert not [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]

def test_after_a_kill(lingyang_connection, lingyang_sandbox):
    submit(("A1", "10000000001"), code="c1")
    assert len(lingyang_sandbox.contacted()) == 1
    assert len(processes) == 1
    assert lingyang_sandbox.pid not in processes
""",
    )


def test_sandbox_options_can_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        """
import pytest

@pytest.fixture(scope="session")
def lingyang_sandbox_options():
    return ("--dedupe",)
"""
    )
    run(
        tmp_path,
        BATCH
        + """
def test_mine(lingyang_sandbox, lingyang_connection):
    for _ in range(2):
        submit(("A1", "10000000001"), code="c1")
    assert len(lingyang_sandbox.contacted()) == 1
""",
    )


def test_sandbox_ends_with_the_tests(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
def test_mine(lingyang_sandbox):
    with open("pid", "w") as file:
        file.write(str(lingyang_sandbox.pid))
""",
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_plugin_is_used_by_our_own_tests(sandbox: SandboxProcess) -> None:
    assert json.loads(os.environ["AIRFLOW_CONN_LINGYANG_DEFAULT"]) == sandbox.connection(timeout=15)
