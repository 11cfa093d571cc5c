"""Start the sandbox: ``python -m airflow_provider_lingyang.sandbox``.

Prints its URL, the only line on stdout, when it accepts requests; ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Sequence

from aiohttp import web

from airflow_provider_lingyang.sandbox import ROUTER
from airflow_provider_lingyang.sandbox.app import create_runner
from airflow_provider_lingyang.sandbox.record import Record
from airflow_provider_lingyang.sandbox.state import SandboxState


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; an invalid one ends the process with a message."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_lingyang.sandbox",
        description="A gateway to try and test against. App key sandbox, App secret sandbox-secret.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default %(default)s)")
    parser.add_argument("--port", type=int, default=8787, help="0 takes a free one (default %(default)s)")
    parser.add_argument(
        "--store", default=":memory:", metavar="FILE", help="keep record and tasks in this SQLite file"
    )
    parser.add_argument(
        "--dedupe",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="deduplicate: execute a task_unique_code only once (default no: the platform documents none)",
    )
    parser.add_argument(
        "--answer-after",
        type=_seconds,
        default=3.0,
        metavar="SECONDS",
        help="seconds after which the last recipient has answered (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides the recipients' answers (default %(default)s)"
    )
    parser.add_argument(
        "--exit-on-stdin-close",
        action="store_true",
        help="end when standard input closes, so that it never outlives the program that started it",
    )
    options = parser.parse_args(argv)
    try:
        options.address = _loopback(options.host)
    except ValueError as error:
        parser.error(str(error))
    if not 0 <= options.port <= 65535:
        parser.error("--port must be from 0 to 65535")
    return options


async def serve(state: SandboxState, listener: socket.socket, *, exit_on_stdin_close: bool) -> None:
    """Serve until SIGTERM, SIGINT or, with ``exit_on_stdin_close``, the end of standard input."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_on_stdin_close:
        threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True).start()
    runner = create_runner(state)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    print(f"sandbox gateway ready: http://{host}:{port}{ROUTER}", flush=True)
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
        state.record.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = arguments(argv)
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    try:
        listener = socket.create_server((options.address, options.port), family=family, backlog=1024)
    except OSError as error:
        print(
            f"sandbox: cannot listen on {options.host} port {options.port}: {error.strerror}", file=sys.stderr
        )
        return 1
    try:
        record = Record(options.store)
    except (OSError, sqlite3.Error) as error:
        listener.close()
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        print(f"sandbox: cannot use --store {options.store}: {why}", file=sys.stderr)
        return 1
    state = SandboxState(record, options.dedupe, options.answer_after, options.seed)
    asyncio.run(serve(state, listener, exit_on_stdin_close=options.exit_on_stdin_close))
    return 0


def _loopback(host: str) -> str:
    """Return the address to bind. Only loopback: the sandbox's secret is in its help text."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM) if host else []
    except OSError as error:
        raise ValueError(f"--host {host}: {error.strerror}") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(ipaddress.ip_address(address).is_loopback for address in addresses):
        raise ValueError(f"--host {host or repr(host)}: only a loopback address is allowed")
    return addresses[0]


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("must be a number of seconds, 0 or more")
    return value


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # A daemon thread blocked in sys.stdin would hold its lock when the interpreter ends; os.read takes none.
    while os.read(0, 4096):
        pass
    try:
        loop.call_soon_threadsafe(stop.set)
    except RuntimeError:
        pass  # The loop has ended already.


if __name__ == "__main__":
    sys.exit(main())
