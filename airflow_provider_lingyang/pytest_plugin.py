"""The sandbox as fixtures for tests of your own DAGs: installed with the package, started by the first test that asks.

Every pytest in the environment imports this module, so it imports nothing of its own before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_lingyang.sandbox.process import SandboxProcess


@pytest.fixture(scope="session")
def lingyang_sandbox_options() -> Sequence[str]:
    """Arguments of the sandbox's command line. Define a fixture of this name in your conftest.py for others."""
    return ("--answer-after", "0")


@pytest.fixture(scope="session")
def lingyang_sandbox_process(lingyang_sandbox_options: Sequence[str]) -> Iterator[SandboxProcess]:
    """The sandbox, one process for all tests, with whatever tests have left in it; see ``lingyang_sandbox``."""
    from airflow_provider_lingyang.sandbox.process import SandboxProcess

    with SandboxProcess(*map(str, lingyang_sandbox_options)) as process:
        yield process


@pytest.fixture
def lingyang_sandbox(lingyang_sandbox_process: SandboxProcess) -> SandboxProcess:
    """A gateway that calls nobody, without faults or a past.

    ``contacted()`` gives everybody it was made to contact, in order, ``contacted_twice()`` those of whom that is true,
    ``record()`` all that it saw, and ``add_fault(kind=…)`` makes something go wrong.
    """
    if not lingyang_sandbox_process.running:
        lingyang_sandbox_process.kill()
        lingyang_sandbox_process.start()
    lingyang_sandbox_process.clear_faults()
    lingyang_sandbox_process.reset()
    return lingyang_sandbox_process


@pytest.fixture
def lingyang_connection(
    lingyang_sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """The connection ``lingyang_default``, which leads to ``lingyang_sandbox`` until the test ends.

    Call it to have another one, ``lingyang_connection("lingyang_test")``, or other extras,
    ``lingyang_connection(timeout=2, result_query=None)``; it returns the connection.
    """
    import json

    def connect(conn_id: str = "lingyang_default", **extra: Any) -> dict[str, Any]:
        connection = lingyang_sandbox.connection(**extra)
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return connection

    connect()
    return connect
