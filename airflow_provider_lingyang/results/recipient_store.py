"""Who is waited for, and what they have answered so far: a private file, because there may be a million of them."""

from __future__ import annotations

import json
import re
import weakref
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice, repeat
from typing import Any, NamedTuple

from airflow_provider_lingyang.ledger.base import key_of
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import (
    ANSWERED,
    FINISHED,
    STATES,
    UNKNOWN,
    WAITING,
    Rules,
    Verdict,
    empty_slots,
    is_filled,
    state_of,
)
from airflow_provider_lingyang.storage.private_sqlite import insert, open_private, written

PAGE = 1000
_BUCKETS = 64
_MAX_VALUES = 50
"""Different values of one slot that are told apart, and slots that are; free text has as many as people."""
_SHOWN = 10
_WHAT = "the private list of who is waited for"
_CODES = {state: code for code, state in enumerate(STATES)}


def _in_state(*states: str) -> re.Pattern[bytes]:
    # Many at a time, but not all there are: only some are looked for.
    return re.compile(b"[%s]{1,%d}" % (bytes(_CODES[state] for state in states), PAGE))


_UNFINISHED = _in_state(*STATES[len(FINISHED) :])
_SHOWN_FIRST = _in_state(*(state for state in STATES if state not in (*FINISHED, WAITING)))
_SHOWN_LAST = _in_state(WAITING)

Row = tuple[int, str, str | None]
"""Somebody who is not finished: the fields of :class:`Person`. Plain, because Python's garbage collector follows named
tuples for ever, and with a million of them it holds everybody up."""


class Person(NamedTuple):
    """Somebody who is not finished, for those who are given answers.

    :param number: from 1, in the order of the source.
    :param task_id: the task that was accepted, where it is known.
    """

    number: int
    biz_id: str
    task_id: str | None


@dataclass(slots=True)
class Changes:
    """What some answers add to a list, until it is written down."""

    people: int = 0
    kept: list[tuple[Any, ...]] = field(default_factory=list)
    tally: Counter[tuple[str, str]] = field(default_factory=Counter)
    told: list[tuple[Sequence[Row], Mapping[str, TaskResult]]] = field(default_factory=list)

    @property
    def to_write(self) -> bool:
        """Whether there is anything."""
        return bool(self.kept or self.tally or self.told)


Take = Callable[[Sequence[Person], Mapping[str, TaskResult]], None]
"""Takes what was told about some people, by ``biz_id``."""


class WaitingList:
    """Holds the recipients of a campaign until each is finished. For one thread at a time.

    Who they are and what they answered is in a file; who they are, a page of people at a time: a row for each of them,
    in an index that finds who is there twice, takes several times as long to write and to read. So nine bytes a person
    stay in memory: how far they are, and the hash of their ``biz_id``.

    :param rules: when somebody is finished.
    :param folder: where its file lies; empty: the system's folder for temporary files.
    :param tally: whether to count and keep answers; not, where only the number of finished people matters.
    :param keep: single answers are kept while there are no more recipients than this.
    :param absent: the state of those of whom nothing was ever told.
    :param also: is given everything that is taken, too.
    :raises SpoolError: the file cannot be made.
    """

    def __init__(
        self,
        rules: Rules,
        folder: str = "",
        *,
        tally: bool = True,
        keep: int = 0,
        absent: str = UNKNOWN,
        also: Take | None = None,
    ) -> None:
        self.rules = rules
        self._tally = tally
        self._keep = keep
        self._keeps = False
        self._absent = _CODES[absent]
        self._also = also
        # A triggerer may hold many of them.
        self._db = open_private(folder, _SCHEMA, _WHAT, cache_kb=1024)
        # For who pokes a sensor without executing it.
        weakref.finalize(self, self._db.close)
        self._states = bytearray()
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._indexed = False
        self._empty: Counter[str] = Counter()
        self._unreadable = 0
        self._slots: dict[str, None] = dict.fromkeys(rules.required_slots)

    def close(self) -> None:
        """Give the file's space back."""
        self._db.close()

    def __len__(self) -> int:
        return len(self._states)

    def add(self, people: Iterable[tuple[str, str | None]]) -> int:
        """Take recipients, and return how many of them were there already.

        :param people: ``biz_id`` and, where it is known, the task that was accepted.
        :raises SpoolError: the disk is full.
        """
        people = iter(people)
        return self._added(zip(*rows, strict=True) for rows in iter(lambda: list(islice(people, PAGE)), []))

    def add_ids(self, pages: Iterable[Sequence[str]]) -> int:
        """Take recipients whose task is not known, and return how many of them were there already.

        :param pages: their ``biz_id``, some at a time, :data:`PAGE` at most.
        :raises SpoolError: the disk is full.
        """
        return self._added((page, ()) for page in pages)

    def digest(self) -> int:
        """Return a number that tells one set of people from another, in whatever order they came."""
        found = 0
        for biz_id in self._all():
            found ^= int.from_bytes(key_of(biz_id))
        return found

    def clear(self) -> None:
        """Forget everybody, and what they answered; for before the first look."""
        self._forget()
        self._db.execute("DELETE FROM kept")
        self._db.execute("DELETE FROM tally")

    def begin(self) -> None:
        """Begin a new look at everybody who is not finished."""
        self._empty.clear()
        self._unreadable = 0
        self._keeps = len(self) <= self._keep

    def all_ids(self) -> list[str]:
        """Return everybody's ``biz_id``."""
        return list(self._all())

    def page(self, after: int = 0, size: int = PAGE) -> list[Row]:
        """Return so many of those who are not finished, by their number.

        :param after: only with a higher number.
        """
        return self._numbered(_numbers(_UNFINISHED, self._states, after, size))

    def find(self, biz_ids: Sequence[str]) -> list[Row]:
        """Return those of some people who are waited for; :data:`PAGE` people at most.

        The first time, it writes an index of everybody.

        :raises SpoolError: the disk is full.
        """
        self._index()
        marks = ",".join("?" * len(biz_ids))
        rows: list[Row] = self._db.execute(
            f"SELECT number, biz_id, task_id FROM person WHERE biz_id IN ({marks})", tuple(biz_ids)
        ).fetchall()
        return [row for row in rows if STATES[self._states[row[0] - 1]] not in FINISHED]

    def judge(self, people: Sequence[Row], results: Mapping[str, TaskResult], changes: Changes) -> None:
        """Find out what was told about some people; of those who are in no result nothing was. Writes nothing.

        :param people: who are not finished.
        :param changes: what is to be written is added here.
        """
        changes.people += len(people)
        if self._also is not None:
            changes.told.append((people, results))
        states, rules = self._states, self.rules
        for number, biz_id, task_id in people:
            result = results.get(biz_id)
            if result is None:
                states[number - 1] = self._absent
                continue
            state = state_of(result, rules, task_id)
            states[number - 1] = _CODES[state]
            if state not in FINISHED:
                self._empty.update(empty_slots(result, rules))
                self._unreadable += not result.readable
                continue
            if self._keeps:
                changes.kept.append((number, *_kept(result)))
            if self._tally and state == ANSWERED:
                changes.tally.update(self._values(result))
            if self._tally and not result.readable:
                self._unreadable += 1

    def write(self, changes: Changes) -> None:
        """Write down what some answers add.

        :raises SpoolError: the disk is full.
        """
        self._write("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", changes.kept)
        self._write(
            "INSERT INTO tally VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET people = people + excluded.people",
            [(slot, value, count) for (slot, value), count in changes.tally.items()],
        )
        if self._also is not None and changes.told:
            people = [Person._make(row) for some, _ in changes.told for row in some]
            results = {biz_id: result for _, told in changes.told for biz_id, result in told.items()}
            self._also(people, results)

    def take(self, people: Sequence[Row], results: Mapping[str, TaskResult]) -> None:
        """Take what was told about some people: :meth:`judge` and :meth:`write`."""
        changes = Changes()
        self.judge(people, results, changes)
        self.write(changes)

    def verdict(self, complete_ratio: float) -> Verdict:
        """Return what the answers so far mean."""
        first = self._numbered(_numbers(_SHOWN_FIRST, self._states, 0, _SHOWN))
        first += self._numbered(_numbers(_SHOWN_LAST, self._states, 0, _SHOWN - len(first)))
        return Verdict.of(
            {state: self._states.count(code) for state, code in _CODES.items()},
            complete_ratio,
            empty=dict(self._empty),
            unreadable=self._unreadable,
            first=[biz_id for _, biz_id, _ in first],
        )

    def slots(self) -> dict[str, dict[str, int]]:
        """Return slot → value → how many people answered so; of more than 50 values the rarest together as "…"."""
        told: dict[str, dict[str, int]] = {}
        for slot in self._slots:
            # The most frequent first; of equally frequent ones that which came first.
            rows = self._db.execute(
                "SELECT value, people FROM tally WHERE slot = ? ORDER BY people DESC, rowid",
                (storable(slot),),
            )
            told[slot] = dict(islice(rows, _MAX_VALUES))
            if rest := sum(people for _, people in rows):
                told[slot]["…"] = rest
        return told

    def results(self) -> dict[str, dict[str, Any]] | None:
        """Return each finished recipient's state, status, task and slots; None where they are too many."""
        if len(self) > self._keep:
            return None
        biz_ids = self.all_ids()
        return {
            biz_ids[number - 1]: {
                "state": STATES[self._states[number - 1]],
                "status": status,
                "task_id": task_id,
                "slots": json.loads(slots),
            }
            for number, status, task_id, slots in self._db.execute("SELECT * FROM kept ORDER BY number")
        }

    def _values(self, result: TaskResult) -> Iterator[tuple[str, str]]:
        if not self.rules.required_slots:
            for slot in result.output_params:
                if len(self._slots) < _MAX_VALUES:
                    self._slots.setdefault(slot)
        return ((storable(slot), storable(as_text(result.output_params.get(slot)))) for slot in self._slots)

    def _added(self, pages: Iterable[Iterable[Sequence[Any]]]) -> int:
        before = len(self)
        for biz_ids, task_ids in pages:
            self._append(biz_ids, task_ids)
        given = len(self) - before
        # Different people may share a hash, equal ones must. A bucket at a time, because a set takes much memory.
        if any(len(set(bucket)) < len(bucket) for bucket in self._hashes):
            self._drop_repeated(before)
        return given - (len(self) - before)

    def _append(self, biz_ids: Sequence[str], task_ids: Sequence[str | None]) -> None:
        tasks = None if task_ids.count(None) == len(task_ids) else json.dumps(task_ids)
        with written(_WHAT):
            self._db.execute("INSERT INTO page VALUES (?, ?, ?)", (len(self) + 1, json.dumps(biz_ids), tasks))
        buckets = [bucket.append for bucket in self._hashes]
        for hashed in map(hash, biz_ids):
            buckets[hashed % _BUCKETS](hashed)
        self._states.extend(bytes((self._absent,)) * len(biz_ids))
        self._indexed = False

    def _drop_repeated(self, before: int) -> None:
        """Take out who is there twice, but the first time.

        :param before: how many people there were before the latest; each is there once, and keeps their number.
        """
        self._index()
        (people,) = self._db.execute("SELECT count(*) FROM person").fetchone()
        if people == len(self):
            return
        with written(_WHAT):
            self._db.execute("CREATE TABLE first AS SELECT biz_id, task_id FROM person ORDER BY number")
        states = self._states[:before]
        self._forget()
        self.add(self._db.execute("SELECT * FROM first ORDER BY rowid"))
        self._states[:before] = states
        self._db.execute("DROP TABLE first")

    def _forget(self) -> None:
        self._db.execute("DELETE FROM page")
        self._db.execute("DELETE FROM person")
        self._states.clear()
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._indexed = False

    def _index(self) -> None:
        """Write down everybody in a row of their own; of those who are there twice, the first."""
        if self._indexed:
            return
        with written(_WHAT):
            self._db.execute("DELETE FROM person")
            for number, biz_ids, task_ids in self._db.execute("SELECT * FROM page ORDER BY number"):
                rows = _rows(number, biz_ids, task_ids)
                insert(self._db, "INSERT OR IGNORE INTO person (number, biz_id, task_id)", rows)
        self._indexed = True

    def _all(self) -> Iterator[str]:
        for (biz_ids,) in self._db.execute("SELECT biz_ids FROM page ORDER BY number"):
            yield from json.loads(biz_ids)

    def _numbered(self, numbers: Sequence[int]) -> list[Row]:
        """Return who has some numbers, which ascend."""
        found: list[Row] = []
        done = 0
        while done < len(numbers):
            page = self._db.execute(
                "SELECT * FROM page WHERE number <= ? ORDER BY number DESC LIMIT 1", (numbers[done],)
            ).fetchone()
            first, rows = page[0], _rows(*page)
            end = bisect_left(numbers, first + len(rows), done)
            found += (
                rows if end - done == len(rows) else [rows[number - first] for number in numbers[done:end]]
            )
            done = end
        return found

    def _write(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        if not rows:
            return
        with written(_WHAT):
            self._db.execute("BEGIN")
            self._db.executemany(sql, rows)
            self._db.execute("COMMIT")


def _numbers(wanted: re.Pattern[bytes], states: bytearray, after: int, size: int) -> list[int]:
    """Return the numbers, higher than `after`, of some people whose state is a wanted one."""
    numbers: list[int] = []
    for found in wanted.finditer(states, after):
        numbers.extend(range(found.start() + 1, found.end() + 1))
        if len(numbers) >= size:
            break
    return numbers[:size]


def _rows(first: int, biz_ids: str, task_ids: str | None) -> list[Row]:
    """Return the people of a page."""
    tasks: Iterable[str | None] = repeat(None) if task_ids is None else json.loads(task_ids)
    return list(zip(count(first), json.loads(biz_ids), tasks, strict=False))


def _kept(result: TaskResult) -> tuple[str, ...]:
    slots = json.dumps(dict(result.output_params), ensure_ascii=False)
    return tuple(text and storable(text) for text in (result.status, result.task_id, slots))  # type: ignore[misc]


def storable(text: str) -> str:
    """Return text without what databases refuse: NUL and halves of characters, each as U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_text(value: Any) -> str:
    """Return what a slot holds as text; blank where it holds no answer."""
    if not is_filled(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_SCHEMA = """
CREATE TABLE page (number INTEGER PRIMARY KEY, biz_ids TEXT NOT NULL, task_ids TEXT);
CREATE TABLE person (biz_id TEXT PRIMARY KEY, number INTEGER NOT NULL, task_id TEXT) WITHOUT ROWID;
CREATE TABLE kept (number INTEGER PRIMARY KEY, status TEXT, task_id TEXT, slots TEXT);
CREATE TABLE tally (slot TEXT NOT NULL, value TEXT NOT NULL, people INTEGER NOT NULL, UNIQUE (slot, value));
"""
