"""Start programs so that all of them can be stopped in any case."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO


class Failed(Exception):
    """A step failed.

    :param what: one line for the user.
    :param log: file with details.
    """

    def __init__(self, what: str, log: Path) -> None:
        super().__init__(what)
        self.log = log


class Interrupted(Exception):
    """The user or the system sent a signal to stop."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


class Processes:
    """The started programs, each in a process group of its own.

    A signal sets a flag that every wait checks. Raised at once, one that arrives while a program is being started
    would leave that program running.
    """

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._signal = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number

    def check(self) -> None:
        """Raise :class:`Interrupted` after a signal."""
        if self._signal:
            raise Interrupted(self._signal)

    def run(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path, timeout: float = 600
    ) -> None:
        """Run a program to its end; append its output to `log`.

        :param timeout: seconds.
        :raises Failed: when it fails or does not end in time.
        """
        deadline = time.monotonic() + timeout
        with log.open("ab") as output:
            process = self._start(command, env, cwd, subprocess.DEVNULL, output, output)
        while process.poll() is None:
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{_shown(command)} did not end within {timeout:.0f} s", log)
            time.sleep(0.05)
        self._running.remove(process)
        if process.returncode:
            raise Failed(f"{_shown(command)} ended with status {process.returncode}", log)

    def serve(
        self, command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path, timeout: float = 30
    ) -> str:
        """Start a program that keeps running, and return its first line of output.

        Its standard input is a pipe that closes with this process.
        """
        with log.open("ab") as output:
            process = self._start(command, env, cwd, subprocess.PIPE, subprocess.PIPE, output)
        assert process.stdout is not None
        line, deadline = b"", time.monotonic() + timeout
        while not line.endswith(b"\n"):
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"{_shown(command)} was not ready after {timeout:.0f} s", log)
            if select.select([process.stdout], [], [], 0.05)[0]:
                chunk = os.read(process.stdout.fileno(), 4096)
                if not chunk:
                    raise Failed(f"{_shown(command)} ended before it was ready", log)
                line += chunk
        return line.decode().strip()

    def stop(self) -> None:
        """Stop every group with SIGTERM, after five seconds with SIGKILL."""
        for process in self._running:
            _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + 5
        for process in self._running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            # Even if its leader has ended: children may remain.
            _signal_group(process, signal.SIGKILL)
            process.wait()
        self._running.clear()

    def _start(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        stdin: int,
        stdout: int | IO[bytes],
        stderr: IO[bytes],
    ) -> subprocess.Popen[bytes]:
        self.check()
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        self._running.append(process)
        return process


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass  # The group is empty.


def _shown(command: Sequence[str]) -> str:
    """Return the command without the paths of this machine."""
    return " ".join(
        Path(part).name if part.startswith("/") else part for part in command[1:] if part != "-m"
    )[:60]
