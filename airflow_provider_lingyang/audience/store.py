"""One private, ordered, counted reading of the audience.

An SQLite file, readable by its owner only and unlinked at once: gone after any crash. It is kept in the order of
sending while rows come in, so that giving them back sorts nothing. What earlier tries did is laid beside it, so
that deciding who is still to be sent to needs no memory either.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache

from airflow_provider_lingyang.audience.parser import Problem, Recipient
from airflow_provider_lingyang.identity import key_of
from airflow_provider_lingyang.ledger.base import PastRequest
from airflow_provider_lingyang.storage.private_sqlite import CACHE_KB, insert, open_private, written

SHOWN = 20
"""How many rows, or kinds of problems, an error names."""
_NAMED = 5
"""How many rows it names of one kind."""


class AudienceError(Exception):
    """The audience cannot be sent as it is. Nothing was sent."""


@dataclass(slots=True)
class Invalid:
    """Rows that cannot be sent: all counted; of each problem, the first are named.

    :param rows: how many.
    :param problems: (field, reason) → the first rows that have it, and how many do; at most :data:`SHOWN`.
    :param more: problems that found no room in it.
    """

    rows: int = 0
    problems: dict[tuple[str, str], tuple[list[int], int]] = field(default_factory=dict)
    more: bool = False

    def add(self, problems: list[Problem]) -> None:
        """Count one row with its problems."""
        for problem in problems:
            self._note(problem.field, problem.reason, [problem.row], 1)
        self.rows += 1

    def add_rows(self, rows: int, first: list[int], field: str, reason: str) -> None:
        """Count rows that share one problem."""
        if rows:
            self._note(field, reason, first, rows)
            self.rows += rows

    def _note(self, field: str, reason: str, first: list[int], count: int) -> None:
        known = self.problems.get((field, reason))
        if known is None and len(self.problems) >= SHOWN:
            self.more = True
            return
        named, before = known or ([], 0)
        self.problems[field, reason] = [*named, *first][:_NAMED], before + count

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


class State(IntEnum):
    """What earlier tries left a recipient in."""

    FREE = 0
    ACCEPTED = 1
    REJECTED = 2
    IN_DOUBT = 3
    LEFT_OUT = 4
    """Not they, but another row of the same contact."""


@dataclass(slots=True)
class Past:
    """What earlier tries left.

    :param in_doubt: requests with recipients in doubt, and the number of their group.
    :param vanished: recipients of this task's earlier tries who are not in the audience any more.
    :param left_out: recipients whose contact an earlier try has reached under another ``biz_id``.
    :param furthest: orders like ``batch_num``: the last that any request carried.
    """

    in_doubt: list[tuple[int, PastRequest]] = field(default_factory=list)
    vanished: int = 0
    left_out: int = 0
    furthest: str = ""


class Spool:
    """Takes recipients in any order and gives them back in the order of sending.

    :param folder: where the file lies; empty: the system's folder for temporary files.
    :raises SpoolError: it cannot be made.
    """

    def __init__(self, folder: str = "") -> None:
        self._db = open_private(folder, _SCHEMA, _WHAT)
        self._folder = folder or tempfile.gettempdir()
        self._pending: list[tuple[object, ...]] = []
        self._indexed = False
        self.last_group = 0

    def close(self) -> None:
        """Give the file's space back."""
        self._db.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, recipient: Recipient) -> None:
        """Take one recipient.

        :raises SpoolError: the disk is full.
        """
        batch_num = recipient.batch_num
        self._pending.append(
            (
                recipient.row,
                _order(batch_num),
                batch_num,
                recipient.biz_id,
                # Here and not by a function in SQL: SQLite swallows what a signal raises in one.
                key_of(recipient.biz_id),
                recipient.derived,
                recipient.contact,
                recipient.task,
            )
        )
        if len(self._pending) >= 1000:
            self._flush()

    def drop_repeated_contacts(self) -> int:
        """Keep the first row of each contact, return how many others there were."""
        self._index()
        repeats = (
            "FROM recipient WHERE EXISTS (SELECT 1 FROM recipient AS other "
            "WHERE other.contact = recipient.contact AND other.row < recipient.row)"
        )
        # Not forgotten: the next try's query may give the rows in another order.
        self._write(f"INSERT INTO dropped SELECT contact, key {repeats}")
        return self._write(f"DELETE {repeats}")

    def repeated_contacts(self) -> tuple[int, list[int]]:
        """Return how many rows repeat an earlier row's contact, and the first of their numbers."""
        self._index()
        repeats = (
            "FROM recipient AS later WHERE EXISTS (SELECT 1 FROM recipient AS other "
            "WHERE other.contact = later.contact AND other.row < later.row)"
        )
        (count,) = self._one(f"SELECT count(*) {repeats}")
        if not count:
            return 0, []
        first = self._db.execute(f"SELECT later.row {repeats} ORDER BY later.row LIMIT {SHOWN}")
        return int(count), [row for (row,) in first]

    def repeated_biz_ids(self) -> tuple[int, list[str]]:
        """Return how many rows repeat an earlier row's ``biz_id``, and the first of them in words."""
        self._index()
        repeats = (
            "FROM (SELECT biz_id, min(row) AS row FROM recipient GROUP BY biz_id HAVING count(*) > 1) AS first "
            "JOIN recipient AS later ON later.biz_id = first.biz_id AND later.row > first.row"
        )
        (count,) = self._one(f"SELECT count(*) {repeats}")
        if not count:
            return 0, []
        rows = self._db.execute(
            f"SELECT later.row, first.row, later.biz_id, later.derived {repeats} ORDER BY later.row LIMIT {SHOWN}"
        )
        return int(count), [
            f"row {later} has the contact of row {first}"
            if derived
            else f"row {later} has the biz_id {biz_id[:64]!r} of row {first}"
            for later, first, biz_id, derived in rows
        ]

    def drop_without_when_others_have(self, column: str) -> tuple[int, list[int]]:
        """Take out the rows that lack what others of the reading have.

        :param column: ``batch_num`` (no row has one, or every row has), or ``biz_id`` (likewise: a derived
            one counts as none).
        :return: how many there were, and the first of their numbers.
        """
        self._flush()
        have, lack = {
            "batch_num": ("batch_num IS NOT NULL", "batch_num IS NULL"),
            "biz_id": ("NOT derived", "derived"),
        }[column]
        (some_have,) = self._one(f"SELECT EXISTS (SELECT 1 FROM recipient WHERE {have})")
        if not some_have:
            return 0, []
        rows = self._db.execute(f"SELECT row FROM recipient WHERE {lack} ORDER BY row LIMIT {SHOWN}")
        first = [row for (row,) in rows]
        return (self._write(f"DELETE FROM recipient WHERE {lack}") if first else 0), first

    def batch_nums_of_equal_number(self) -> list[str]:
        """Return spellings such as ``1`` and ``01`` that stand for one number, if there are any."""
        self._flush()
        found = self._db.execute(
            "SELECT DISTINCT batch_num FROM recipient WHERE place IN "
            "(SELECT place FROM recipient GROUP BY place HAVING min(batch_num) <> max(batch_num)) LIMIT 20"
        )
        return sorted(batch_num for (batch_num,) in found)

    def __len__(self) -> int:
        self._flush()
        (count,) = self._one("SELECT count(*) FROM recipient")
        return int(count)

    def derived(self) -> bool:
        """Whether the ids were made from the contacts, so that no query can give them."""
        self._flush()
        (some,) = self._one("SELECT EXISTS (SELECT 1 FROM recipient WHERE derived)")
        return bool(some)

    def remember(self, requests: Iterable[PastRequest]) -> Past:
        """Take what earlier tries did: who was accepted, rejected or is in doubt is not sent to.

        :param requests: of one that comes twice the later state counts, but for who was accepted.
        :raises SpoolError: the disk is full.
        """
        self._index()
        past = Past()
        open_requests: dict[str, tuple[int, PastRequest]] = {}
        self._db.execute("BEGIN")
        for request in requests:
            self.last_group += 1
            doubtful = [key_of(biz_id) for biz_id in request.in_doubt]
            for state, keys in (
                (State.ACCEPTED, request.accepted),
                (State.REJECTED, request.rejected),
                (State.IN_DOUBT, doubtful),
                (State.FREE, request.not_executed),
            ):
                self._write_many(
                    # What was accepted stays so, whatever else is said of it.
                    "INSERT INTO past VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state, "
                    "grp = excluded.grp, pos = excluded.pos, mine = excluded.mine "
                    f"WHERE state <> {State.ACCEPTED:d}",
                    [(key, state, self.last_group, place, request.mine) for place, key in enumerate(keys)],
                )
            if request.accepted or request.rejected or doubtful:
                past.furthest = max(past.furthest, _order(request.batch_num))
            open_requests.pop(request.task_unique_code, None)
            if doubtful:
                open_requests[request.task_unique_code] = (self.last_group, request)
        self._db.execute("COMMIT")
        if not self.last_group:
            return past
        self._write(
            "UPDATE recipient SET state = past.state, grp = past.grp, pos = past.pos, mine = past.mine "
            "FROM past WHERE past.key = recipient.key"
        )
        past.left_out = self._write(
            f"UPDATE recipient SET state = {State.LEFT_OUT:d} WHERE state = {State.FREE:d} AND contact IN "
            "(SELECT dropped.contact FROM dropped JOIN past ON past.key = dropped.key "
            f"WHERE past.state <> {State.FREE:d})"
        )
        (known,) = self._one(f"SELECT count(*) FROM past WHERE mine AND state <> {State.FREE:d}")
        (seen,) = self._one(
            f"SELECT count(*) FROM recipient WHERE mine AND state NOT IN ({State.FREE:d}, {State.LEFT_OUT:d})"
        )
        past.vanished = known - seen
        past.in_doubt = list(open_requests.values())
        return past

    def group(self, number: int) -> list[tuple[str | None, str, str]]:
        """Return (batch_num, biz_id, JSON of the task) of a group's recipients, in the order of their request."""
        return list(
            self._db.execute(
                "SELECT batch_num, biz_id, task FROM recipient WHERE grp = ? ORDER BY pos", (number,)
            )
        )

    def settle(self, biz_ids: Iterable[str], state: State) -> int:
        """Change the state of recipients, and return how many of them are in the audience."""
        self._index()
        return self._write_many(
            "UPDATE recipient SET state = ? WHERE biz_id = ?", [(state, biz_id) for biz_id in biz_ids]
        )

    def regroup(self, biz_ids: Sequence[str]) -> None:
        """Free recipients whose request was not executed, to be sent together again."""
        self._index()
        self.last_group += 1
        self._write_many(
            f"UPDATE recipient SET state = {State.FREE:d}, grp = ?, pos = ? WHERE biz_id = ?",
            [(self.last_group, place, biz_id) for place, biz_id in enumerate(biz_ids)],
        )

    def in_state(self, state: State) -> int:
        """Return how many of the audience earlier tries left in a state."""
        self._flush()
        (count,) = self._one(f"SELECT count(*) FROM recipient WHERE state = {state:d}")
        return int(count)

    def ids_in_state(self, state: State) -> Iterator[str]:
        """Yield the recipients of the audience that earlier tries left in a state."""
        rows = self._db.execute(f"SELECT biz_id FROM recipient WHERE state = {state:d} ORDER BY place, row")
        # Not "yield from": see recipients().
        for (biz_id,) in rows:
            yield biz_id

    def batches(self) -> list[tuple[str | None, int]]:
        """Return (batch_num, recipients still to be sent to) in the order of sending."""
        self._flush()
        return list(
            self._db.execute(
                f"SELECT max(batch_num), count(*) FROM recipient WHERE state = {State.FREE:d} "
                "GROUP BY place ORDER BY place"
            )
        )

    def first_ids(self, batch_num: str | None, count: int) -> list[str]:
        """Return the first of a batch's recipients."""
        found = self._db.execute(
            f"SELECT biz_id FROM recipient WHERE place = ? AND state = {State.FREE:d} ORDER BY row LIMIT {count:d}",
            (_order(batch_num),),
        )
        return [biz_id for (biz_id,) in found]

    def free_ids(self, count: int) -> Iterator[list[str]]:
        """Yield the recipients that no earlier try left in a final state or in doubt, ``count`` at a time."""
        self._flush()
        found = self._db.execute(
            f"SELECT biz_id FROM recipient WHERE state = {State.FREE:d} ORDER BY place, row"
        )
        while rows := found.fetchmany(count):
            yield [biz_id for (biz_id,) in rows]

    def late(self, furthest: str) -> int:
        """Return how many are still to be sent to although a later batch has left."""
        (count,) = self._one(
            f"SELECT count(*) FROM recipient WHERE state = {State.FREE:d} AND place < ?", (furthest,)
        )
        return int(count)

    def recipients(self, batch_num: str | None) -> Iterator[tuple[str, str]]:
        """Yield (biz_id, JSON of the task) of one batch's recipients who were in no request, in the reading's order."""
        self._flush()
        found = self._db.execute(
            f"SELECT biz_id, task FROM recipient WHERE place = ? AND state = {State.FREE:d} AND grp IS NULL "
            "ORDER BY row",
            (_order(batch_num),),
        )
        # Not "yield from": abandoned half-way, it would close the cursor of a database that is closed already.
        for row in found:  # noqa: UP028
            yield row

    def grouped(self, batch_num: str | None, *, after: int = 0) -> list[tuple[int, str, str]]:
        """Return (group, biz_id, JSON of the task) of one batch's recipients whose request was not executed.

        :param after: only groups with a higher number.
        """
        return list(
            self._db.execute(
                f"SELECT grp, biz_id, task FROM recipient WHERE grp > ? AND place = ? AND state = {State.FREE:d} "
                "ORDER BY grp, pos",
                (after, _order(batch_num)),
            )
        )

    def _index(self) -> None:
        """Make rows findable by who they are: once all are there, because keeping a large index up takes longer."""
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
                insert(
                    self._db,
                    "INSERT INTO recipient (row, place, batch_num, biz_id, key, derived, contact, task)",
                    rows,
                )

    def _write(self, sql: str) -> int:
        with written(_WHAT):
            return self._db.execute(sql).rowcount

    def _write_many(self, sql: str, rows: Sequence[Sequence[object]]) -> int:
        with written(_WHAT):
            return self._db.executemany(sql, rows).rowcount if rows else 0

    def _one(self, sql: str, parameters: Sequence[object] = ()) -> tuple[int, ...]:
        row: tuple[int, ...] = self._db.execute(sql, parameters).fetchone()
        return row


_WHAT = "the audience's private copy"
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
    place TEXT NOT NULL,
    batch_num TEXT,
    biz_id TEXT NOT NULL,
    key BLOB NOT NULL,
    derived INTEGER NOT NULL,
    contact TEXT NOT NULL,
    task TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    grp INTEGER,
    pos INTEGER,
    mine INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (place, row)
) WITHOUT ROWID;
CREATE INDEX by_group ON recipient (grp, pos) WHERE grp IS NOT NULL;
CREATE TABLE dropped (contact TEXT NOT NULL, key BLOB NOT NULL);
CREATE TABLE past (
    key BLOB PRIMARY KEY,
    state INTEGER NOT NULL,
    grp INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    mine INTEGER NOT NULL
) WITHOUT ROWID;
"""


@lru_cache(maxsize=1024)
def _order(batch_num: str | None) -> str:
    """Return text that sorts like the number: its length first, so that "2" comes before "10"."""
    if batch_num is None:
        return ""
    digits = batch_num.lstrip("0")
    return f"{len(digits):03d}{digits}"
