"""The record: every request and every executed task, in SQLite.

An execution is recorded before its answer is sent, so a lost answer hides none.
:mod:`~airflow_provider_lingyang.sandbox.report` renders it as JSON.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY, method TEXT, received_at REAL, answered_at REAL, ended_at REAL, outcome TEXT,
    executed INTEGER NOT NULL DEFAULT 0, task_unique_code TEXT, batch_num TEXT, batch_order INTEGER,
    plan_id INTEGER, biz_ids TEXT, accepted INTEGER NOT NULL DEFAULT 0, code TEXT, sub_code TEXT,
    request_id TEXT, digest TEXT);
CREATE INDEX IF NOT EXISTS requests_by_code ON requests (task_unique_code);
CREATE INDEX IF NOT EXISTS requests_by_order ON requests (plan_id, batch_order);
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY, task_id INTEGER UNIQUE, seq INTEGER, position INTEGER, biz_id TEXT,
    phone TEXT, email TEXT, outer_user TEXT, output_params TEXT, executed_at REAL, visible_at REAL,
    created_at TEXT);
CREATE INDEX IF NOT EXISTS tasks_by_biz_id ON tasks (biz_id);
CREATE INDEX IF NOT EXISTS tasks_by_seq ON tasks (seq);
CREATE TABLE IF NOT EXISTS order_violations (
    kind TEXT, plan_id INTEGER, seq INTEGER, batch_num TEXT, other_seq INTEGER, other_batch_num TEXT);
"""
_BEYOND_DOUBLES = 9_100_000_000_000_000_000


@dataclass
class Entry:
    """One request as recorded; see ``report.py`` for the keys of ``requests``."""

    method: str
    received_at: float
    request_id: str
    task_unique_code: str | None = None
    batch_num: str | None = None
    plan_id: int | None = None
    biz_ids: list[str] = field(default_factory=list)
    is_client_gone: Callable[[], bool] = lambda: False
    """Whether the client has closed the connection: then this request no longer counts as open."""
    seq: int = 0
    answered_at: float | None = None
    ended_at: float | None = None
    outcome: str = "open"
    executed: bool = False
    accepted: int = 0
    code: str = ""
    sub_code: str = ""
    digest: str = ""

    @property
    def batch_order(self) -> int | None:
        """``batch_num`` as a number, its place in the plan; None unless it is 1 to 18 digits."""
        text = self.batch_num or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


class Record:
    """The store: requests and executed tasks.

    :param path: an SQLite file that survives restarts (created with mode 0600), or ``:memory:``.
    """

    def __init__(self, path: str = ":memory:") -> None:
        if path != ":memory:":
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        # Only the server's thread uses it at a time; tests create it in another one.
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode=WAL")
        # Commits survive a killed process; only a power cut may lose one.
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(_TABLES)
        # Requests that were open when an earlier process was killed.
        self.db.execute("UPDATE requests SET outcome='lost' WHERE outcome='open'")
        self.db.execute("UPDATE requests SET ended_at=received_at WHERE ended_at IS NULL")
        self._seq = self._highest("seq", "requests")
        self._number = self._highest("number", "tasks")
        self._open: dict[int, Entry] = {}

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def clear(self) -> None:
        """Delete requests and tasks. ``seq`` and task ids go on: none is used twice."""
        for table in ("requests", "tasks", "order_violations"):
            self.db.execute(f"DELETE FROM {table}")
        self._open.clear()

    def arrive(self, entry: Entry) -> None:
        """Record the arrival of a request, and whether it is out of order."""
        self._seq += 1
        entry.seq = self._seq
        if entry.batch_order is not None:
            self._check_order(entry)
        self._open[entry.seq] = entry
        self.db.execute(
            "INSERT INTO requests (seq, method, received_at, outcome, task_unique_code, batch_num, batch_order,"
            " plan_id, biz_ids, request_id) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                entry.seq,
                entry.method,
                entry.received_at,
                entry.outcome,
                entry.task_unique_code,
                entry.batch_num,
                entry.batch_order,
                entry.plan_id,
                json.dumps(entry.biz_ids),
                entry.request_id,
            ),
        )

    def update(self, entry: Entry) -> None:
        """Record the present state of a request; an ended one is open no longer."""
        if entry.ended_at is not None:
            self._open.pop(entry.seq, None)
        self.db.execute(
            "UPDATE requests SET answered_at=?, ended_at=?, outcome=?, executed=?, accepted=?, code=?, sub_code=?,"
            " digest=? WHERE seq=? AND request_id=?",
            (
                entry.answered_at,
                entry.ended_at,
                entry.outcome,
                entry.executed,
                entry.accepted,
                entry.code,
                entry.sub_code,
                entry.digest,
                entry.seq,
                entry.request_id,
            ),
        )

    def execute(
        self,
        entry: Entry,
        tasks: Sequence[tuple[int, dict[str, Any]]],
        now: float,
        visible_at: float,
        created: str,
    ) -> list[int]:
        """Record tasks as executed, in one transaction with their request.

        :param entry: the request of the tasks.
        :param tasks: position in the request, and the task.
        :param now: epoch seconds.
        :param visible_at: epoch seconds from which look-ups find them.
        :param created: time of execution, as look-ups show it.
        :returns: the new task ids; a double cannot hold every second one exactly.
        """
        rows: list[tuple[Any, ...]] = []
        for position, task in tasks:
            self._number += 1
            task_id = self._number + (_BEYOND_DOUBLES if self._number % 2 else 200_000_000_000)
            contact = tuple(task.get(name, "") for name in ("phone_number", "email", "outer_user_id"))
            head = (self._number, task_id, entry.seq, position, task.get("biz_id"), *contact)
            rows.append((*head, task["output_params"], now, visible_at, created))
        entry.executed, entry.accepted = True, len(rows)
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self.db.executemany(f"INSERT INTO tasks VALUES ({','.join('?' * 12)})", rows)
            self.update(entry)
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return [row[1] for row in rows]

    def first_execution(self, task_unique_code: str) -> tuple[str, dict[int, int]] | None:
        """Return the struct's digest and position → task id of a code's first execution, or None."""
        row = self.db.execute(
            "SELECT seq, digest FROM requests WHERE task_unique_code=? AND executed ORDER BY seq LIMIT 1",
            (task_unique_code,),
        ).fetchone()
        if row is None:
            return None
        ids = self.db.execute("SELECT position, task_id FROM tasks WHERE seq=?", (row["seq"],))
        return row["digest"], dict(tuple(pair) for pair in ids)

    def find(self, biz_ids: Sequence[str], now: float) -> list[sqlite3.Row]:
        """Return the tasks of these recipients that are visible at ``now``, in order of execution."""
        marks = ",".join("?" * len(biz_ids))
        return self.db.execute(
            f"SELECT * FROM tasks WHERE biz_id IN ({marks}) AND visible_at <= ? ORDER BY number",
            (*biz_ids, now),
        ).fetchall()

    def _highest(self, column: str, table: str) -> int:
        row = self.db.execute(f"SELECT COALESCE(MAX({column}), 0) FROM {table}").fetchone()
        return int(row[0])

    def _check_order(self, entry: Entry) -> None:
        order = entry.batch_order
        assert order is not None
        for other in self._open.values():
            earlier = other.batch_order
            if (
                other.plan_id == entry.plan_id
                and earlier is not None
                and earlier < order
                and not other.is_client_gone()
            ):
                self._violation("overlap", entry, other.seq, other.batch_num)
        later = self.db.execute(
            "SELECT seq, batch_num FROM requests WHERE plan_id IS ? AND batch_order > ?"
            " ORDER BY batch_order DESC LIMIT 1",
            (entry.plan_id, order),
        ).fetchone()
        if later is not None:
            self._violation("late", entry, later["seq"], later["batch_num"])

    def _violation(self, kind: str, entry: Entry, other_seq: int, other_batch_num: str | None) -> None:
        self.db.execute(
            "INSERT INTO order_violations VALUES (?,?,?,?,?,?)",
            (kind, entry.plan_id, entry.seq, entry.batch_num, other_seq, other_batch_num),
        )
