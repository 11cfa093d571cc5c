"""Programs in sessions of their own, which end with the process that started them, however that ends.

As a command it is the keeper of these sessions: it ends every process of those that are named on standard input, as
soon as that closes. It closes with the process that holds it, a killed one too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

_PATIENCE = 20.0
"""Seconds until every process of the sessions has ended."""


def members(sessions: Collection[int]) -> list[int]:
    """Return the processes of some sessions; an ended one that waits for its parent is none."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


def kill(sessions: Collection[int]) -> bool:
    """Kill every process of some sessions with SIGKILL; return whether none is left."""
    deadline = time.monotonic() + _PATIENCE
    while pids := members(sessions):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    return True


class Sessions:
    """Starts programs, and ends all their processes when it is closed, or when this process ends."""

    def __enter__(self) -> Self:
        self._started: list[subprocess.Popen[bytes]] = []
        self._keeper = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of them.

        :raises AssertionError: some processes are left over.
        """
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        left = self._keeper.wait(_PATIENCE + 10)
        for process in self._started:
            process.wait(10)
        assert not left, "processes are left over"

    def add(self, session: int) -> None:
        """Have a session end with the others that was started elsewhere."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(b"%d\n" % session)
        self._keeper.stdin.flush()

    def start(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Path, **how: Any
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own; its output is appended to a file."""
        with output.open("ab") as stream:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **how,
            )
        self.add(process.pid)
        self._started.append(process)
        return process


def main() -> int:
    """Be the keeper."""
    return int(not kill({int(line) for line in sys.stdin}))


if __name__ == "__main__":
    sys.exit(main())
