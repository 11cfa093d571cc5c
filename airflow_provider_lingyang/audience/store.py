"""One private, ordered, counted reading of the audience.

An SQLite file, readable by its owner only and unlinked at once: gone after any crash. It is kept in the order of
sending while rows come in, so that reading them sorts nothing.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any

from airflow_provider_lingyang.audience.parser import Problems, Recipient
from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.storage.private_sqlite import CACHE_KB, insert, open_private, written

SHOWN = 20
"""How many rows, or kinds of problems, an error names."""
INVALID, NOT_SENT = "invalid", "not_sent"
"""States of rows that are left out."""
_NAMED = 5
"""How many rows it names of one kind."""


class AudienceError(Exception):
    """The audience cannot be sent as it is. Nothing was sent."""


@dataclass(slots=True)
class Invalid:
    """Rows that cannot be sent: all counted; of each problem, the first are named.

    :param rows: how many.
    :param problems: (field, reason) → the first rows that have it, and how many do; at most :data:`SHOWN`.
    :param more: whether there are more problems than it names.
    """

    rows: int = 0
    problems: dict[tuple[str, str], tuple[list[int], int]] = field(default_factory=dict)
    more: bool = False

    def add(self, problems: Problems, first: list[int], rows: int = 1) -> None:
        """Count rows that share their problems.

        :param first: the numbers of the first of them.
        """
        self.rows += rows
        for problem in problems:
            if problem not in self.problems and len(self.problems) >= SHOWN:
                self.more = True
                continue
            named, before = self.problems.get(problem, ([], 0))
            self.problems[problem] = [*named, *first][:_NAMED], before + rows

    def __str__(self) -> str:
        shown = [
            f"{_rows(named, count)}: {field} {reason}"
            for (field, reason), (named, count) in self.problems.items()
        ]
        return "; ".join(shown) + ("; …" if self.more else "")


def _rows(named: list[int], count: int) -> str:
    """Return ``row 3``, ``rows 3 and 7`` or ``rows 3, 7, 9 and 17 more``."""
    if count == 1:
        return f"row {named[0]}"
    *before, last = [*map(str, named), *([f"{count - len(named)} more"] if count > len(named) else [])]
    return f"rows {', '.join(before)} and {last}"


class AudienceStore:
    """Keeps recipients in the order of sending, whatever the order of the rows.

    :param folder: where the file lies; empty: the system's folder for temporary files.
    :param keeps_left_out: whether to keep rows that are not sent, too. Default False: they are counted only.
    :raises SpoolError: it cannot be made; by every method that writes: the disk is full.
    """

    def __init__(self, folder: str = "", *, keeps_left_out: bool = False) -> None:
        self._db = open_private(folder, _SCHEMA, _WHAT)
        self._folder = folder or tempfile.gettempdir()
        self._keeps_left_out = keeps_left_out
        self._pending: list[tuple[object, ...]] = []
        self._left_out: list[tuple[object, ...]] = []
        self._kept: list[tuple[object, ...]] = []
        self._has_kept = False
        self._indexed = False

    def close(self) -> None:
        """Close the file, which frees its space."""
        self._db.close()

    def __enter__(self) -> AudienceStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, recipient: Recipient) -> None:
        """Add one recipient."""
        # The last two not by a function in SQL: SQLite swallows what a signal handler raises in one.
        computed = order_key(recipient.batch_num), recipient_hash(recipient.biz_id)
        self._pending.append((*_values(recipient), *computed))
        if recipient.kept is not None:
            self._kept.append((recipient.row, recipient.kept))
        if len(self._pending) >= 1000:
            self._flush()

    def leave_out(self, row: int, problems: Problems) -> None:
        """Keep why a row is not valid, where rows that are not sent are kept.

        :param row: its number.
        """
        if not self._keeps_left_out:
            return
        why = "; ".join(f"{field} {reason}" for field, reason in problems)
        self._left_out.append((row, INVALID, problems.batch_num, problems.biz_id, why, problems.kept))
        if len(self._left_out) >= 1000:
            self._flush()

    def kept(self, biz_ids: Sequence[str]) -> list[str | None]:
        """Return the JSON of the columns that are kept, of each recipient; empty where none is."""
        if not self._has_kept:
            return []
        sql = "SELECT max(kept.kept) FROM recipient JOIN kept USING (row) WHERE biz_id = ?"
        return [self._db.execute(sql, (biz_id,)).fetchone()[0] for biz_id in biz_ids]

    def left_out(self) -> Iterator[tuple[int, str, str | None, str | None, str, str | None]]:
        """Yield rows that are kept although they are not sent: number, state, batch_num, biz_id, reason, kept."""
        self._flush()
        # Not "yield from": abandoned half-way, it would close the cursor of a database that is closed already.
        for row in self._db.execute(f"SELECT {_LEFT_OUT} FROM left_out ORDER BY row"):  # noqa: UP028
            yield row

    def in_states(self, *states: int) -> Iterator[tuple[int, str | None, str, int, str | None]]:
        """Yield recipients by their states: row, batch_num, biz_id, state, kept."""
        self._flush()
        marks = ",".join("?" * len(states))
        for row in self._db.execute(  # noqa: UP028  # as above
            f"SELECT row, batch_num, biz_id, state, {_ITS_KEPT} FROM recipient WHERE state IN ({marks}) "
            "ORDER BY order_key, row",
            states,
        ):
            yield row

    def _leave_out(self, state: str, reason: str, where: str, biz_id: str = "biz_id") -> None:
        if self._keeps_left_out:
            self._flush()
            with written(_WHAT):
                self._db.execute(
                    f"INSERT INTO left_out ({_LEFT_OUT}) SELECT row, ?, batch_num, {biz_id}, ?, {_ITS_KEPT} {where}",
                    (state, reason),
                )

    def drop_repeated_contacts(self, reason: str) -> int:
        """Keep the first row of each contact, return how many others there were.

        :param reason: why they are not sent.
        """
        self.index()
        self._leave_out(NOT_SENT, reason, _REPEATED_CONTACTS)
        # Not forgotten: the next try's query may give the rows in another order.
        self.write(f"INSERT INTO dropped SELECT contact, key {_REPEATED_CONTACTS}")
        return self.write(f"DELETE {_REPEATED_CONTACTS}")

    def repeated_contacts(self) -> tuple[int, list[int]]:
        """Return how many rows repeat an earlier row's contact, and the first of their numbers."""
        self.index()
        count, first = self._first("row", _REPEATED_CONTACTS)
        return count, [row for (row,) in first]

    def repeated_biz_ids(self) -> tuple[int, list[str]]:
        """Return how many rows repeat an earlier row's ``biz_id``, and the first of them in words."""
        self.index()
        repeats = (
            "FROM (SELECT biz_id, min(row) AS row FROM recipient GROUP BY biz_id HAVING count(*) > 1) AS first "
            "JOIN recipient AS later ON later.biz_id = first.biz_id AND later.row > first.row"
        )
        count, rows = self._first("later.row, first.row, later.biz_id, later.derived", repeats)
        return count, [
            f"row {later} has the contact of row {first}"
            if derived
            else f"row {later} has the biz_id {biz_id[:64]!r} of row {first}"
            for later, first, biz_id, derived in rows
        ]

    def drop_incomplete(self, column: str, reason: str) -> tuple[int, list[int]]:
        """Drop the rows that lack what other rows have.

        :param column: ``batch_num`` (no row has one, or every row has), or ``biz_id`` (likewise: a derived
            one counts as none).
        :param reason: why they are not valid.
        :return: how many there were, and the first of their numbers.
        """
        self._flush()
        lack = {"batch_num": "batch_num IS NULL", "biz_id": "derived"}[column]
        (some_have,) = self.one(f"SELECT EXISTS (SELECT 1 FROM recipient WHERE NOT ({lack}))")
        if not some_have:
            return 0, []
        count, first = self._first("row", f"FROM recipient WHERE {lack}")
        if count:
            biz_id = "NULL" if column == "biz_id" else "biz_id"
            self._leave_out(INVALID, f"{column} {reason}", f"FROM recipient WHERE {lack}", biz_id)
            self.write(f"DELETE FROM recipient WHERE {lack}")
        return count, [row for (row,) in first]

    def _first(self, columns: str, source: str) -> tuple[int, list[tuple[Any, ...]]]:
        """Return how many rows a query has, and the first of them by the first of its columns."""
        (count,) = self.one(f"SELECT count(*) {source}")
        rows = self.execute(f"SELECT {columns} {source} ORDER BY 1 LIMIT {SHOWN}") if count else ()
        return count, list(rows)

    def batch_nums_of_equal_number(self) -> list[str]:
        """Return spellings such as ``1`` and ``01`` that stand for one number, if there are any."""
        self._flush()
        found = self._db.execute(
            "SELECT DISTINCT batch_num FROM recipient WHERE order_key IN "
            "(SELECT order_key FROM recipient GROUP BY order_key HAVING min(batch_num) <> max(batch_num)) LIMIT 20"
        )
        return sorted(batch_num for (batch_num,) in found)

    def __len__(self) -> int:
        self._flush()
        return self.one("SELECT count(*) FROM recipient")[0]

    def derived(self) -> bool:
        """Whether the ids were made from the contacts, so that no query can give them."""
        self._flush()
        return bool(self.one("SELECT EXISTS (SELECT 1 FROM recipient WHERE derived)")[0])

    def index(self) -> None:
        """Index the recipients: once all are there, because keeping a large index up takes longer."""
        self._flush()
        if not self._indexed:
            quoted = self._folder.replace("'", "''")
            with written(_WHAT):
                # Where SQLite sorts what does not fit into memory: in files like this one, unlinked at once. It is a
                # setting of the process, so others in it have theirs back afterwards.
                self._db.execute(f"PRAGMA temp_store_directory='{quoted}'")
                try:
                    for sql in _INDEXES:
                        self._db.execute(sql)
                finally:
                    self._db.execute("PRAGMA temp_store_directory=''")
            self._indexed = True

    def _flush(self) -> None:
        if self._pending:
            rows, self._pending = self._pending, []
            with written(_WHAT):
                insert(self._db, f"INSERT INTO recipient ({', '.join(_COLUMNS)}, order_key, key)", rows)
        if self._kept:
            rows, self._kept = self._kept, []
            self._has_kept = True
            with written(_WHAT):
                insert(self._db, "INSERT INTO kept (row, kept)", rows)
        if self._left_out:
            rows, self._left_out = self._left_out, []
            with written(_WHAT):
                insert(self._db, f"INSERT INTO left_out ({_LEFT_OUT})", rows)

    def write(self, sql: str) -> int:
        """Run a statement that writes, and return how many rows it changed."""
        with written(_WHAT):
            return self._db.execute(sql).rowcount

    def write_many(self, sql: str, rows: Sequence[Sequence[object]]) -> int:
        """Run a statement once for each row, and return how many rows it changed."""
        with written(_WHAT):
            return self._db.executemany(sql, rows).rowcount if rows else 0

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run a statement that reads."""
        return self._db.execute(sql, parameters)

    def one(self, sql: str, parameters: Sequence[object] = ()) -> tuple[int, ...]:
        """Return the one row of a statement."""
        row: tuple[int, ...] = self._db.execute(sql, parameters).fetchone()
        return row


_WHAT = "the audience's private copy"
_COLUMNS = tuple(name for name in Recipient.__slots__ if name != "kept")
"""The table's columns of the same names."""
_values = attrgetter(*_COLUMNS)
_LEFT_OUT = "row, state, batch_num, biz_id, reason, kept"
_ITS_KEPT = "(SELECT kept FROM kept WHERE kept.row = recipient.row)"
_REPEATED_CONTACTS = (
    "FROM recipient WHERE EXISTS (SELECT 1 FROM recipient AS other "
    "WHERE other.contact = recipient.contact AND other.row < recipient.row)"
)
# Sorting takes as much memory again as the cache may have.
_INDEXES = (
    f"PRAGMA cache_size=-{CACHE_KB // 4}",
    "CREATE INDEX IF NOT EXISTS by_biz_id ON recipient (biz_id, row)",
    "CREATE INDEX IF NOT EXISTS by_contact ON recipient (contact, row)",
    f"PRAGMA cache_size=-{CACHE_KB}",
)
# WITHOUT ROWID: the table is its own index in the order of sending.
_SCHEMA = """
CREATE TABLE recipient (
    row INTEGER NOT NULL,
    order_key TEXT NOT NULL,
    batch_num TEXT,
    biz_id TEXT NOT NULL,
    key BLOB NOT NULL,
    derived INTEGER NOT NULL,
    contact TEXT NOT NULL,
    task TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    group_no INTEGER,
    position INTEGER,
    is_own INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (order_key, row)
) WITHOUT ROWID;
CREATE INDEX by_group ON recipient (group_no, position) WHERE group_no IS NOT NULL;
CREATE TABLE dropped (contact TEXT NOT NULL, key BLOB NOT NULL);
CREATE TABLE left_out (
    row INTEGER PRIMARY KEY, state TEXT NOT NULL, batch_num TEXT, biz_id TEXT, reason TEXT NOT NULL, kept TEXT
);
CREATE TABLE kept (row INTEGER PRIMARY KEY, kept TEXT NOT NULL);
"""


@lru_cache(maxsize=1024)
def order_key(batch_num: str | None) -> str:
    """Return text that sorts like the number: its length first, so that "2" comes before "10"."""
    if batch_num is None:
        return ""
    digits = batch_num.lstrip("0")
    return f"{len(digits):03d}{digits}"
