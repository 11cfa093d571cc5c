"""The ledger in Airflow's task state store (Airflow 3.3 and later).

Keys, of at most 60 KB each::

    lingyang                              that this task instance was here
    lingyang/PLAN                         the campaign's latest generation, its header, whether it is finished
    lingyang/PLAN/GENERATION/w000001 …    requests by task_unique_code; what stands later outranks what stands earlier

A try appends segments of its own and rewrites only the last of them: outcomes join their intents there, so that a
million recipients need some 360 keys. A segment is the text of a JSON object: Airflow, which hands a value on four
times, would look at every part of an object each time. A try that was replaced is fenced by Airflow: its writes fail.
"""

from __future__ import annotations

import itertools
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from airflow_provider_lingyang.ledger.base import (
    Attempt,
    Header,
    Intent,
    LedgerError,
    LedgerRefusedError,
    Opened,
    Outcome,
    PastRequest,
    generation_of,
    key_of,
)

_SEGMENT_BYTES = 60_000
_REPEATED_BYTES = 10_000
"""What a segment may repeat of the one before it."""
_KEY_BYTES = 16
_KEY_BASE64 = 22
"""A key's share of the text, rounded up."""
_LISTS_BYTES = 60
"""Names, quotes and padding of the lists of keys."""
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


class TaskStateLedger:
    """Keeps one task instance's campaign. For the task's main thread only.

    :param store: ``context["task_state_store"]``.
    :param attempt: which try this is.
    :param retention: Airflow's ``NEVER_EXPIRE``, which it compares by identity.
    """

    remembers = True
    handle = None

    def __init__(self, store: TaskStateStore, attempt: Attempt, retention: Any) -> None:
        self._store = store
        self._attempt = attempt
        self._retention = retention
        self._campaign = ""
        self._opened: dict[str, Any] = {}
        self._number = 0
        self._segment: dict[str, _Part] = {}
        self._changed: set[str] = set()
        """Entries of the segment that are not as the store has them."""
        self._open: dict[str, dict[str, Any]] = {}
        """Requests with somebody in doubt: what is known of them must outlive their next state."""

    def claim(self) -> bool:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        mark = self._get(_ROOT)
        with _ours(_ROOT):
            knows = (
                not self._attempt.has_past if mark is None else {True: True, False: False}[mark["knows_past"]]
            )
        self._set(_ROOT, {"knows_past": knows})
        return knows

    def _begun(self, generation: int) -> bool:
        requests = (request for segment in self._stored(generation) for _, request in segment)
        return any(request.accepted or request.rejected or request.in_doubt for request in requests)

    def know_past(self) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        self._set(_ROOT, {"knows_past": True})

    def open(self, header: Header, *, resubmit: bool = False) -> int:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
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
                    lambda: self._begun(stored["generation"]),
                )
        generation = generation_of(found, header, self._attempt, resubmit=resubmit)
        self._opened = {"generation": generation, "header": header.to_json(), "finished": None}
        self._number, self._open = 0, {}
        self._set(self._campaign, self._opened)
        return generation

    def past(self) -> Iterator[PastRequest]:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        number = 1
        for segment in self._stored(self._opened["generation"]):
            number += 1
            for entry, request in segment:
                self._remember(request.task_unique_code, entry)
                yield request
        self._number, self._segment = number, {}

    def _stored(self, generation: int) -> Iterator[list[tuple[dict[str, Any], PastRequest]]]:
        for number in itertools.count(1):
            key = self._key(generation, number)
            if (text := self._get(key)) is None:
                return
            with _ours(key):
                segment = [(entry, _past_request(code, entry)) for code, entry in json.loads(text).items()]
            yield segment

    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        if not outcomes and not intents:
            return
        if not self._number:
            # Never over what an earlier try has written.
            for _ in self.past():
                pass
        # Before anything is changed: the outcomes can still be written without the intents.
        for intent in intents:
            _check_size(intent)
        before = self._number, self._segment.copy(), self._open.copy()
        self._changed = set()
        try:
            for outcome in outcomes:
                # Of a request whose intent was never written there is nothing to take back.
                if outcome.task_unique_code in self._open or not _only_not_executed(outcome):
                    self._put(outcome.task_unique_code, self._after(outcome))
            for intent in intents:
                self._put(intent.task_unique_code, _entry(intent))
            self._write_segment()
        except BaseException:
            # An outcome that is written again later must find what it was first added to.
            self._number, self._segment, self._open = before
            raise

    def renew(self, intents: Sequence[Intent]) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        self.write([], intents)

    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        """Do nothing: the writes of a try that was replaced fail anyhow."""

    def finish(self) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        finished = [self._attempt.worker, self._attempt.max_tries]
        self._set(self._campaign, {**self._opened, "finished": finished})

    def close(self) -> None:
        """Do nothing: no connection is held."""

    def _key(self, generation: int, number: int) -> str:
        return f"{self._campaign}/{generation}/w{number:06}"

    def _write_segment(self) -> None:
        text = ",".join(part.text for part in self._segment.values())
        self._set(self._key(self._opened["generation"], self._number), "{" + text + "}")

    def _after(self, outcome: Outcome) -> dict[str, Any]:
        before = self._open.get(outcome.task_unique_code, {})
        after: dict[str, Any] = {name: before[name] for name in ("b", "s", "t") if name in before}
        for name, biz_ids in (
            ("a", outcome.accepted),
            ("r", outcome.rejected),
            ("n", outcome.not_executed),
        ):
            # Who was not executed earlier may be in another request by now, and must not come after it.
            earlier = "" if name == "n" else before.get(name, "")
            if keys := _unpack(earlier) + [key_of(biz_id) for biz_id in biz_ids]:
                after[name] = b64encode(b"".join(keys)).decode()
        if outcome.in_doubt:
            after["d"] = list(outcome.in_doubt)
        else:
            after.pop("s", None)
            after.pop("t", None)
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
            raise LedgerError(
                f"the task state store cannot be written ({type(error).__name__}): either the API server is not to "
                "be reached, or Airflow has replaced this try by another one"
            ) from error


@contextmanager
def _ours(key: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise LedgerRefusedError(
            f"the task state store holds something under {key!r} that is no ledger's: nobody can tell whom earlier "
            "tries reached. Find out who wrote it there; to start over, send the remaining people in a new run"
        ) from error


def _entry(intent: Intent) -> dict[str, Any]:
    batch = {} if intent.batch_num is None else {"b": intent.batch_num}
    return {**batch, "s": intent.struct_digest, "t": intent.written_at, "d": list(intent.biz_ids)}


def _check_size(intent: Intent) -> None:
    """Refuse a request that does not fit: as an intent, or as an outcome of whatever kind."""
    rest = _size(json.dumps({intent.task_unique_code: {**_entry(intent), "d": []}}))
    size = rest + _LISTS_BYTES + sum(max(_size(json.dumps(each)), _KEY_BASE64) for each in intent.biz_ids)
    if size > _SEGMENT_BYTES:
        raise LedgerError(
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


def _past_request(code: str, entry: dict[str, Any]) -> PastRequest:
    return PastRequest(
        task_unique_code=code,
        batch_num=entry.get("b"),
        struct_digest=entry.get("s", ""),
        written_at=entry.get("t", 0.0),
        accepted=_unpack(entry.get("a", "")),
        rejected=_unpack(entry.get("r", "")),
        not_executed=_unpack(entry.get("n", "")),
        in_doubt=entry.get("d", ()),
    )


def _unpack(text: str) -> list[bytes]:
    raw = b64decode(text)
    return [raw[start : start + _KEY_BYTES] for start in range(0, len(raw), _KEY_BYTES)]
