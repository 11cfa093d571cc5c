"""The ledger in Airflow's task state store (Airflow 3.3 and later).

Keys, of at most 60 KB each::

    lingyang                              that this task instance was here
    lingyang/PLAN                         the campaign's latest generation, its header and facts, whether it is finished
    lingyang/PLAN/GENERATION/w000001 …    requests by task_unique_code; what stands later outranks what stands earlier

A try appends segments of its own and rewrites only the last of them: outcomes join their intents there, so that a
million recipients need some 360 keys. A segment is the text of a JSON object: Airflow, which hands a value on four
times, would look at every part of an object each time. A try that was replaced is fenced by Airflow: its writes fail.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from typing_extensions import override

from airflow_provider_lingyang.errors import (
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    LedgerUnusableError,
)
from airflow_provider_lingyang.identity import digest, recipient_hash, settle_key
from airflow_provider_lingyang.ledger.base import (
    GIVEN_TOO_EARLY,
    OPEN_FOR,
    WRITTEN_WITHIN,
    Attempt,
    Header,
    Intent,
    Ledger,
    Opening,
    Outcome,
    RecordedRequest,
    skipped,
    with_fact,
)
from airflow_provider_lingyang.ledger.opening import Opened, opening_of
from airflow_provider_lingyang.ledger.tombstone import Tombstone

_SEGMENT_BYTES = 60_000
_REPEATED_BYTES = 10_000
"""What a segment may repeat of the one before it."""
_KEY_BYTES = 16
_KEY_BASE64 = 22
"""A key's share of the text, rounded up."""
_LISTS_BYTES = 60
"""Names, quotes and padding of the lists of keys."""
_MOST = 10**9
"""More than the number of an intent can be."""
_NUMBERS = "numbers"
"""The fact that holds the numbers which intents to come do not get."""
_ROOT = "lingyang"


class _Part(NamedTuple):
    text: str
    size: int


class TaskStateStore(Protocol):
    """What is used of ``context["task_state_store"]``."""

    def get(self, key: str) -> Any:
        """Return the value of a key, or None."""

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        """Write the value of a key."""


class TaskStateLedger(Ledger):
    """Keeps one task instance's campaign. For the task's main thread only.

    :param store: ``context["task_state_store"]``.
    :param attempt: which try this is.
    :param retention: Airflow's ``NEVER_EXPIRE``, which it compares by identity.
    :param tombstone: tells, where the store was emptied, that an earlier try had begun. Default None: nothing does.
    """

    is_durable = True

    def __init__(
        self, store: TaskStateStore, attempt: Attempt, retention: Any, tombstone: Tombstone | None = None
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._retention = retention
        self._tombstone = tombstone
        self._is_marked = tombstone is None
        self.begun_at: datetime | None = None
        self.others_may_run = False
        self._begun_with: str | None = None
        """Stands for the settings with which earlier processes have sent, where this ledger has nothing of them."""
        self._mark: dict[str, Any] = {}
        """What this process has noted of itself; empty until it has claimed the campaign."""
        self._campaign = ""
        self._settings = ""
        self._opened: dict[str, Any] = {}
        self._number = 0
        self._segment: dict[str, _Part] = {}
        self._changed: set[str] = set()
        """Entries of the segment that are not as the store has them."""
        self._unsure = 0
        """The last segment that a write which failed may have written; 0: what the store holds is known."""
        self._open: dict[str, dict[str, Any]] = {}
        """Requests with recipients in doubt: what is known of them must outlive their next state."""
        self._numbers: dict[str, int] = {}
        """How many intents there were of each code that may have another one: its recipients are not all final."""

    @override
    def claim(self) -> bool:
        mark = self._get(_ROOT)
        with _ours(_ROOT):
            knows = (
                not self._attempt.has_history
                if mark is None
                else {True: True, False: False}[mark["knows_past"]]
            )
            self.others_may_run = self._attempt.has_history if mark is None else not mark.get("ended", False)
        self._mark = {"knows_past": knows, "process": uuid.uuid4().hex}
        self._set(_ROOT, self._mark)
        if not knows and self._tombstone is not None:
            self.begun_at, self._begun_with = self._tombstone.found() or (None, None)
        return knows

    def _requests(self, generation: int) -> Iterator[RecordedRequest]:
        return (request for segment in self._stored(generation) for _, request in segment)

    def _reached(self, generation: int) -> bool:
        return any(request.accepted or request.rejected for request in self._requests(generation))

    def _in_doubt(self, generation: int) -> list[str]:
        latest = {request.task_unique_code: request for request in self._requests(generation)}
        return [request.settle_key for request in latest.values() if request.in_doubt]

    @override
    def mark_history_known(self) -> None:
        self._mark = {**self._mark, "knows_past": True}
        self._set(_ROOT, self._mark)

    @override
    def has_begun(self, plan_id: int) -> bool:
        # Of any generation: the next one goes on from a Clear of this one.
        return self._get(f"{_ROOT}/{plan_id}/1/w{1:06}") is not None

    @override
    def open(
        self,
        header: Header,
        *,
        resubmit: bool = False,
        not_executed: Collection[str] = frozenset(),
        wait: Callable[[float], None] = time.sleep,
    ) -> Opening:
        settings = digest(*header.to_json().values())
        if self._begun_with not in (None, settings):
            raise LedgerRefusedError(
                "the task's own state has nothing of earlier tries, and they sent with another host, App key, App "
                "secret or plan, or another version of this package, as the state of an outlet asset says: a look-up "
                "cannot find them now. Put the old settings back, or send the remaining recipients in a new run, from "
                "an audience without those already reached"
            )
        self._campaign = f"{_ROOT}/{header.plan_id}"
        stored = self._get(self._campaign)
        found = None
        if stored is not None:
            with _ours(self._campaign):
                finished = stored["finished"]
                found = Opened(
                    stored["generation"],
                    Header(**stored["header"]),
                    tuple(finished) if finished else None,
                    lambda: self._reached(stored["generation"]),
                    lambda: self._in_doubt(stored["generation"]),
                )
                facts = dict(stored.get("facts", {}))
        opening = opening_of(found, header, self._attempt, resubmit=resubmit, not_executed=not_executed)
        generation = opening.generation
        if found is None or found.generation != generation:
            facts = {}
        else:
            header = replace(header, identity_version=found.header.identity_version)
        self.identity_version = header.identity_version
        self._settings = digest(*header.to_json().values())
        self._opened = {
            "generation": generation,
            "header": header.to_json(),
            "finished": None,
            "facts": facts,
        }
        self._number, self._unsure, self._open, self._numbers = 0, 0, {}, {}
        if opening.settled:
            # Before the header: a look-up with the new settings proves nothing about what the old ones sent.
            latest = {request.task_unique_code: request for request in self.history()}
            doubts = [request for request in latest.values() if request.in_doubt]
            if self.others_may_run:
                wait(WRITTEN_WITHIN + max(each.open_for for each in doubts))
                codes = [each.task_unique_code for each in doubts]
                self.end_others(codes, codes)
                keys = {settle_key(code, self.number(code)): "not_executed" for code in codes}
                raise LedgerRefusedError(f"{GIVEN_TOO_EARLY}, and give settle={json.dumps(keys)}")
            self.write(
                [Outcome(each.task_unique_code, {}, not_executed=each.in_doubt) for each in doubts], []
            )
        self._set(self._campaign, self._opened)
        return opening

    @override
    def history(self) -> Iterator[RecordedRequest]:
        number = 1
        for segment in self._stored(self._opened["generation"]):
            number += 1
            for entry, request in segment:
                self._remember(request.task_unique_code, entry)
                yield replace(request, others_may_send=self.others_may_run)
        self._number, self._segment, self._unsure = number, {}, 0

    def _stored(self, generation: int) -> Iterator[list[tuple[dict[str, Any], RecordedRequest]]]:
        for number in itertools.count(1):
            key = self._key(generation, number)
            if (text := self._get(key)) is None:
                return
            with _ours(key):
                segment = [(entry, _past_request(code, entry)) for code, entry in json.loads(text).items()]
            yield segment

    @override
    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        if not outcomes and not intents:
            return
        self._read_back()
        # Before anything is changed: the outcomes can still be written without the intents.
        for intent in intents:
            _check_size(intent)
        if intents and not self._is_marked and self._tombstone is not None:
            # Before the first intent: where it is missing, nothing may have been sent, or it could not be written.
            self._tombstone.write(self._settings)
            self._is_marked = True
        self._write(outcomes, [(intent, self._next_number(intent.task_unique_code)) for intent in intents])

    def _write(
        self,
        outcomes: Sequence[Outcome],
        intents: Sequence[tuple[Intent, int]],
        renumbered: Collection[str] = (),
    ) -> None:
        before = self._number, self._segment.copy(), self._open.copy(), self._numbers.copy()
        self._changed = set()
        try:
            for outcome in outcomes:
                # Of a request whose intent was never written there is nothing to take back.
                if outcome.task_unique_code in self._open or not _only_not_executed(outcome):
                    self._put(outcome.task_unique_code, self._after(outcome))
            for intent, number in intents:
                self._put(intent.task_unique_code, _entry(intent, number))
            for code in renumbered:
                if code in self._open:
                    self._put(code, {**self._open[code], "i": self.number(code) + 1})
            self._write_segment()
        except BaseException:
            # An outcome that is written again later must find what it was first added to.
            self._unsure = self._number
            self._number, self._segment, self._open, self._numbers = before
            raise

    @override
    def holds(self, intents: Sequence[Intent]) -> set[str]:
        self._read_back()
        return {
            intent.task_unique_code
            for intent in intents
            if self._open.get(intent.task_unique_code, {}).get("d") == list(intent.biz_ids)
        }

    def _read_back(self) -> None:
        """Find out what the store holds where that is not known: before the first write, and after one that failed."""
        if not self._number:
            # Never over what an earlier try has written.
            for _ in self.history():
                pass
        if not self._unsure:
            return
        generation = self._opened["generation"]
        for number in range(self._number, self._unsure + 1):
            key = self._key(generation, number)
            if (text := self._get(key)) is None:
                # That write may still arrive, so its key is used up: what is written from now on must outrank it.
                self._set(key, "{}")
                continue
            with _ours(key):
                for code, entry in json.loads(text).items():
                    self._remember(code, entry)
        self._number, self._segment, self._unsure = self._unsure + 1, {}, 0

    @override
    def renew(self, intents: Sequence[Intent]) -> None:
        self._read_back()
        self._write([], [(intent, self.number(intent.task_unique_code)) for intent in intents])

    @override
    def number(self, task_unique_code: str) -> int:
        return self._numbers.get(task_unique_code, 1)

    def _next_number(self, code: str) -> int:
        skips: dict[str, int] = self.fact(_NUMBERS) or {}
        return max(self._numbers.get(code, 0), skips.get(code, 0)) + 1

    @override
    def skip_numbers(self, numbers: Mapping[str, int]) -> None:
        before = self.fact(_NUMBERS) or {}
        if after := skipped(before, numbers):
            self.set_fact(_NUMBERS, after)

    @override
    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        """Do nothing: the writes of a try that was replaced fail anyhow."""

    @override
    def end_others(self, task_unique_codes: Collection[str], too_early: Collection[str] = ()) -> None:
        if too_early:
            self._read_back()
            self._write([], [], renumbered=too_early)
        self.others_may_run = False

    @override
    def fact(self, name: str) -> Any:
        return self._opened["facts"].get(name)

    @override
    def set_fact(self, name: str, value: Any) -> None:
        opened = {**self._opened, "facts": with_fact(self._opened["facts"], name, value)}
        self._set(self._campaign, opened)
        self._opened = opened

    @override
    def finish(self) -> None:
        finished = [self._attempt.task_instance_key, self._attempt.max_tries]
        self._set(self._campaign, {**self._opened, "finished": finished})
        if self._tombstone is not None:
            self._tombstone.finish()

    @override
    def release(self) -> None:
        # What was before this process has ended, too. Another one may have been started for the same try.
        if self._mark and not self.others_may_run and self._get(_ROOT) == self._mark:
            self._set(_ROOT, {**self._mark, "ended": True})

    @override
    def close(self) -> None:
        """Do nothing: no connection is held."""

    def _key(self, generation: int, number: int) -> str:
        return f"{self._campaign}/{generation}/w{number:06}"

    def _write_segment(self) -> None:
        text = ",".join(part.text for part in self._segment.values())
        self._set(self._key(self._opened["generation"], self._number), "{" + text + "}")

    def _after(self, outcome: Outcome) -> dict[str, Any]:
        before = self._open.get(outcome.task_unique_code, {})
        after: dict[str, Any] = {name: before[name] for name in ("b", "i", "o", "s", "t") if name in before}
        for name, biz_ids in (
            ("a", outcome.accepted),
            ("r", outcome.rejected),
            ("n", outcome.not_executed),
        ):
            # Who was not executed earlier may be in another request by now, and must not come after it.
            earlier = "" if name == "n" else before.get(name, "")
            if keys := _unpack(earlier) + [recipient_hash(biz_id) for biz_id in biz_ids]:
                after[name] = b64encode(b"".join(keys)).decode()
        if outcome.in_doubt:
            after["d"] = list(outcome.in_doubt)
        else:
            for name in ("o", "s", "t") if "n" in after else ("i", "o", "s", "t"):
                after.pop(name, None)
        return after

    def _put(self, code: str, entry: dict[str, Any]) -> None:
        text = json.dumps({code: entry})[1:-1]
        new = _Part(text, _size(text))
        # What an entry says of those who are free while others are in doubt is nowhere else.
        partial = code in self._segment and "n" in self._open.get(code, {})
        others = _sum(part for each, part in self._segment.items() if each != code)
        if partial or others + new.size > _SEGMENT_BYTES:
            changed = {each: part for each, part in self._segment.items() if each in self._changed}
            repeated = _sum(changed.values())
            if partial or repeated > _REPEATED_BYTES or repeated + new.size > _SEGMENT_BYTES:
                # The full segment stays as it is, with what was put into it since it was written last.
                self._write_segment()
                changed = {}
            # Else what little that was goes into the next one: one write instead of two, while requests wait for it.
            self._number += 1
            self._segment, self._changed = changed, set(changed)
        self._segment[code] = new
        self._changed.add(code)
        self._remember(code, entry)

    def _remember(self, code: str, entry: dict[str, Any]) -> None:
        if "d" in entry:
            self._open[code] = entry
        else:
            self._open.pop(code, None)
        if "d" in entry or "n" in entry:
            self._numbers[code] = entry.get("i", 1)
        else:
            self._numbers.pop(code, None)

    def _get(self, key: str) -> Any:
        try:
            return self._store.get(key)
        except Exception as error:
            raise LedgerError(
                f"the task state store cannot be read ({type(error).__name__}): is the API server up?"
            ) from error

    def _set(self, key: str, value: Any) -> None:
        try:
            self._store.set(key, value, retention=self._retention)
        except Exception as error:
            if _is_replaced(error):
                raise LedgerFencedError("Airflow has replaced this try by another one") from error
            raise LedgerError(
                f"the task state store cannot be written ({type(error).__name__}): either the API server is not to "
                "be reached, or Airflow has replaced this try by another one"
            ) from error


def _is_replaced(error: Exception) -> bool:
    """Whether the API server itself says that it does not know this try any more; a proxy's 404 proves nothing."""
    detail = getattr(getattr(error, "error", None), "detail", None)
    reason = detail.get("detail") if isinstance(detail, dict) and detail.get("status_code") == 404 else None
    reason = reason.get("detail") if isinstance(reason, dict) else None
    return isinstance(reason, dict) and reason.get("reason") == "not_found"


@contextmanager
def _ours(key: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise LedgerRefusedError(
            f"the task state store holds something under {key!r} that is no ledger's, so which recipients "
            "earlier tries reached is not known. Find out who wrote it. To start over, send to the other recipients "
            "in a new run"
        ) from error


def _entry(intent: Intent, number: int) -> dict[str, Any]:
    batch = {} if intent.batch_num is None else {"b": intent.batch_num}
    again = {} if number == 1 else {"i": number}
    return {
        **batch,
        **again,
        "o": intent.open_for,
        "s": intent.struct_digest,
        "t": intent.written_at,
        "d": list(intent.biz_ids),
    }


def _check_size(intent: Intent) -> None:
    """Refuse a request that does not fit: as an intent, or as an outcome of whatever kind."""
    rest = _size(json.dumps({intent.task_unique_code: {**_entry(intent, _MOST), "d": []}}))
    size = rest + _LISTS_BYTES + sum(max(_size(json.dumps(each)), _KEY_BASE64) for each in intent.biz_ids)
    if size > _SEGMENT_BYTES:
        raise LedgerUnusableError(
            f"a request of {len(intent.biz_ids)} recipients does not fit into the task state store (60 KB a value): "
            "set a smaller batch_size, or keep the ledger in a database with ledger_conn_id"
        )


def _only_not_executed(outcome: Outcome) -> bool:
    return not (outcome.accepted or outcome.rejected or outcome.in_doubt)


def _size(text: str) -> int:
    """Return how long a part of a value is in the store, which keeps JSON."""
    return len(json.dumps(text))


def _sum(parts: Iterable[_Part]) -> int:
    return sum(part.size for part in parts)


def _past_request(code: str, entry: dict[str, Any]) -> RecordedRequest:
    return RecordedRequest(
        task_unique_code=code,
        batch_num=entry.get("b"),
        struct_digest=entry.get("s", ""),
        written_at=entry.get("t", 0.0),
        accepted=_unpack(entry.get("a", "")),
        rejected=_unpack(entry.get("r", "")),
        not_executed=_unpack(entry.get("n", "")),
        in_doubt=entry.get("d", ()),
        number=entry.get("i", 1),
        open_for=entry.get("o", OPEN_FOR),
    )


def _unpack(text: str) -> list[bytes]:
    raw = b64decode(text)
    return [raw[start : start + _KEY_BYTES] for start in range(0, len(raw), _KEY_BYTES)]
