"""Airflow's task state store in small, over a file: it outlives a killed process and fences a replaced try."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class NotFoundError(Exception):
    """What a try gets that Airflow has replaced by another one: its ``ti.id`` is retired."""

    # As the API server words it, and the supervisor hands it on.
    error = SimpleNamespace(detail={"status_code": 404, "detail": {"detail": {"reason": "not_found"}}})


class TaskStateStore:
    """What ``context["task_state_store"]`` is, for one try.

    :param token: the try; only the one that began last may write.
    :param before, after: called with the key around each write; whatever they raise, the write raises.
    """

    def __init__(
        self,
        path: Path,
        token: int,
        before: Callable[[str], None] = lambda key: None,
        after: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._path, self._token, self._before, self._after = path, token, before, after
        with closing(self._open()) as db:
            db.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT)")
            db.execute("CREATE TABLE IF NOT EXISTS current (token INTEGER)")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=20, isolation_level=None)

    def begin(self) -> None:
        """Retire all other tries."""
        with closing(self._open()) as db:
            db.execute("DELETE FROM current")
            db.execute("INSERT INTO current VALUES (?)", (self._token,))

    def get(self, key: str, default: Any = None) -> Any:
        with closing(self._open()) as db:
            found = db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else default

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self._before(key)
        with closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")
            (current,) = db.execute("SELECT token FROM current").fetchone()
            if not self.fenced(current):
                db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, json.dumps(value)))
            db.execute("COMMIT")
            if self.fenced(current):
                raise NotFoundError
        self._after(key)

    def fenced(self, current: int) -> bool:
        return current != self._token
