"""Fixtures with a sandbox, for tests of your own DAGs. The first test that uses one starts it.

Every pytest in the environment imports this module, so the package is imported only when a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_provider_lingyang.sandbox.process import SandboxProcess


@pytest.fixture(scope="session")
def lingyang_sandbox_options() -> Sequence[str]:
    """Arguments of the sandbox's command line. Override this fixture in your conftest.py for others."""
    return ("--answer-after", "0")


@pytest.fixture(scope="session")
def lingyang_sandbox_process(lingyang_sandbox_options: Sequence[str]) -> Iterator[SandboxProcess]:
    """The sandbox, one process for all tests with the requests and faults of earlier ones. See ``lingyang_sandbox``."""
    from airflow_provider_lingyang.sandbox.process import SandboxProcess

    with SandboxProcess(*map(str, lingyang_sandbox_options)) as process:
        yield process


@pytest.fixture
def lingyang_sandbox(lingyang_sandbox_process: SandboxProcess) -> SandboxProcess:
    """A gateway that contacts no recipient, without faults and with an empty record.

    ``contacted()`` returns all contacts in order, ``contacted_twice()`` the repeated ones, ``record()`` all requests;
    ``add_fault(kind=…)`` makes requests fail.
    """
    from airflow_provider_lingyang.gateway.rate_limiter import forget_limiters

    # A ban that an earlier test met lasts no longer.
    forget_limiters()
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
    """The connection ``lingyang_default`` to ``lingyang_sandbox``, until the test ends.

    Call it for another connection, ``lingyang_connection("lingyang_test")``, or other extras,
    ``lingyang_connection(timeout=2, result_query=None)``; it returns the connection.
    """
    import json

    def connect(conn_id: str = "lingyang_default", **extra: Any) -> dict[str, Any]:
        connection = lingyang_sandbox.connection(**extra)
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
        return connection

    connect()
    return connect
