"""Ends every process of the sessions that are named on standard input, as soon as that closes.

It closes with the tests, however they end; a killed test run leaves nothing behind either.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection

import psutil


def members(sessions: Collection[int]) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


def main() -> int:
    sessions = {int(line) for line in sys.stdin}
    deadline = time.monotonic() + 20
    while pids := members(sessions):
        if time.monotonic() > deadline:
            return 1
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    return 0


if __name__ == "__main__":
    sys.exit(main())
