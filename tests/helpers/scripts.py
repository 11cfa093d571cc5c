"""Run a script of the tests as a process of its own, with whatever it starts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


def printed_lines(script: Path, *arguments: str, home: Path, timeout: float) -> list[str]:
    """Return the lines that a script printed; it must end well.

    :param home: its AIRFLOW_HOME. It knows none of the Airflow connections of the tests.
    :param timeout: seconds.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_CONN")}
    env |= {"AIRFLOW_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        # With whatever it forked or started and could not end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, err[-3000:]
    return out.splitlines()
