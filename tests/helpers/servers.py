"""Servers of this machine, each of its own, that can be stopped and started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.helpers.sessions import Sessions

_PATIENCE = 120
"""Seconds for a server to begin or to end."""


class ServerMissingError(Exception):
    """A server is not installed: its name."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A PostgreSQL server of its own, which can be stopped and started again.

    :param folder: where its data are to be, a folder that is not there yet; None: a temporary one.
    :param settings: of the server, besides those that keep it on this machine.
    :raises ServerMissingError: it is not installed.
    """

    def __init__(self, folder: Path | None = None, settings: str = "") -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        initdb = str(found[-1]) if found else shutil.which("initdb")
        if initdb is None:
            raise ServerMissingError("PostgreSQL")
        # It refuses to run as root; Debian's package brings a user for it.
        user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        if folder is None or (user and not _is_open_to_all(folder.parent)):
            folder = Path(tempfile.mkdtemp(prefix="lingyang-postgres-"))
        else:
            folder.mkdir()
        self.folder = folder
        if user:
            shutil.chown(folder, **user)
        self._port = free_port()
        self._settings = settings
        self._run: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        # A session of their own: an interrupt from the terminal is not for them.
        self._run |= {"check": True, "start_new_session": True, **user}
        arguments = ["-D", f"{folder}/data", "-U", "lingyang", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([initdb, *arguments], **self._run)
        self._pid_file = folder / "data" / "postmaster.pid"
        pg_ctl = str(Path(initdb).with_name("pg_ctl"))
        self._pg_ctl = [pg_ctl, "-D", f"{folder}/data", "-l", f"{folder}/log", "-w", "-t", str(_PATIENCE)]

    @property
    def connection(self) -> dict[str, Any]:
        """The server as an Airflow connection."""
        address = {"host": "127.0.0.1", "port": self._port, "login": "lingyang", "schema": "postgres"}
        return {"conn_type": "postgres"} | address

    @property
    def log(self) -> Path:
        """What the server writes."""
        return self.folder / "log"

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._pid_file.exists()

    @property
    def pid(self) -> int:
        """The running server's process id."""
        return int(self._pid_file.read_text().splitlines()[0])

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        subprocess.run([*self._pg_ctl, "-o", f"{options} {self._settings}", "start"], **self._run)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it.

        :param mode: ``immediate``, as a crash would, or ``fast``: connections are closed, their transactions undone.
        """
        subprocess.run([*self._pg_ctl, "-m", mode, "stop"], **self._run)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


def _is_open_to_all(folder: Path) -> bool:
    """Whether another user can reach what is in a folder."""
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.absolute().parents))


@contextmanager
def mariadb() -> Iterator[dict[str, Any]]:
    """Run a MariaDB server with its bare defaults; give it as an Airflow connection.

    :raises ServerMissingError: it is not installed.
    """
    # Debian puts the server where only root looks for programs.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    install, server = shutil.which("mariadb-install-db", path=path), shutil.which("mariadbd", path=path)
    if install is None or server is None:
        raise ServerMissingError("MariaDB")
    # It refuses to run as root; Debian's package brings a user for it.
    user = {"user": "mysql", "group": "mysql"} if os.geteuid() == 0 else {}
    folder = tempfile.mkdtemp(prefix="lingyang-mariadb-")
    if user:
        shutil.chown(folder, **user)
    port = free_port()
    run: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **user}
    options = ["--no-defaults", f"--datadir={folder}/data"]
    network = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder}/socket"]
    quiet = ["--log-warnings=0", "--innodb-flush-log-at-trx-commit=0"]
    try:
        made = subprocess.run(
            [install, *options, "--skip-name-resolve", "--auth-root-authentication-method=normal"],
            check=False,
            stderr=subprocess.PIPE,
            text=True,
            **run,
        )
        assert made.returncode == 0, f"MariaDB's tables could not be made: {made.stderr}"
        with subprocess.Popen(
            [server, *options, *network, *quiet], stderr=subprocess.PIPE, text=True, **run
        ) as process:
            try:
                assert process.stderr is not None
                assert any("ready for connections" in line for line in process.stderr), (
                    "MariaDB did not start"
                )
                yield {"conn_type": "mysql", "host": "127.0.0.1", "port": port, "login": "root"} | {
                    "schema": "test",
                    "extra": {"client": "mysql-connector-python"},
                }
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Redis:
    """A Redis server of its own, which can be stopped and started again. It keeps its data.

    :param folder: an empty one, for its data and its log.
    :param sessions: end it at the latest.
    :raises ServerMissingError: it is not installed.
    """

    def __init__(self, folder: Path, sessions: Sessions) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise ServerMissingError("Redis")
        self._folder = folder
        self._sessions = sessions
        self.port = free_port()
        self._command = [found, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)]
        self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = self._sessions.start(
            self._command, env=os.environ, cwd=self._folder, output=self._folder / "redis.txt"
        )
        deadline = time.monotonic() + _PATIENCE
        while not self.answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "Redis does not start"
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it accepts commands."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                client.sendall(b"PING\r\n")
                return client.recv(100).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it: it writes its data first."""
        self._process.terminate()
        self._process.wait(_PATIENCE)
