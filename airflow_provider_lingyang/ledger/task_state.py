"""The ledger in Airflow's task state store (Airflow 3.3 and later).

Keys, of at most 60 KB each::

    lingyang                              that this task instance was here
    lingyang/PLAN                         the campaign's latest generation, its header and facts, whether it is finished
    lingyang/PLAN/GENERATION/w000001 …    requests by task_unique_code; what stands later outranks what stands earlier

A try appends segments of its own and rewrites only the last of them: outcomes join their intents there, so that a
million recipients need some 360 keys. A try that was replaced is fenced by Airflow: its writes fail.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple, Protocol

from typing_extensions import override

from airflow_provider_lingyang.errors import LedgerError, LedgerFencedError, LedgerRefusedError
from airflow_provider_lingyang.identity import digest, recipient_hash, settle_key
from airflow_provider_lingyang.ledger import task_state_format as formats
from airflow_provider_lingyang.ledger.base import (
    GIVEN_TOO_EARLY,
    WRITTEN_WITHIN,
    FactsChange,
    Header,
    Intent,
    Ledger,
    Opening,
    Outcome,
    RecordedRequest,
)
from airflow_provider_lingyang.ledger.opening import Opened, in_doubt, opening_of
from airflow_provider_lingyang.ledger.task_try import TaskTry
from airflow_provider_lingyang.ledger.tombstone import Tombstone

_REPEATED_BYTES = 10_000
"""What a segment may repeat of the one before it."""
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
    :param task_try: which try this is.
    :param retention: Airflow's ``NEVER_EXPIRE``, which it compares by identity.
    :param tombstone: tells, where the store was emptied, that an earlier try had begun. Default None: nothing does.
    """

    is_durable = True

    def __init__(
        self, store: TaskStateStore, task_try: TaskTry, retention: Any, tombstone: Tombstone | None = None
    ) -> None:
        super().__init__()
        self._store = store
        self._task_try = task_try
        self._retention = retention
        self._tombstone = tombstone or Tombstone((), task_try)
        self._is_marked = False
        self._begun_with: str | None = None
        """Stands for the settings with which earlier processes have sent, where this ledger has nothing of them."""
        self._mark: dict[str, Any] = {}
        """What this process has noted of itself; empty until it has claimed the campaign."""
        self._campaign = ""
        self._header: Header | None = None
        self._generation = 1
        self._number = 0
        self._segment: dict[str, _Part] = {}
        self._changed: set[str] = set()
        """Entries of the segment that are not as the store has them."""
        self._unsure_until = 0
        """The last segment that a write which failed may have written; 0: what the store holds is known."""
        self._open: dict[str, RecordedRequest] = {}
        """Requests with recipients in doubt: what is known of them must outlive their next state."""

    @override
    def claim(self) -> bool:
        mark = self._get(_ROOT)
        with formats.ours(_ROOT):
            if mark is None:
                knows, self.others_may_run = not self._task_try.has_history, self._task_try.has_history
            else:
                formats.check_version(_ROOT, mark.get("version", 1))
                knows = {True: True, False: False}[mark["knows_past"]]
                self.others_may_run = not mark.get("ended", False)
        self._mark = {"version": formats.VERSION, "knows_past": knows, "process": uuid.uuid4().hex}
        self._set(_ROOT, self._mark)
        if not knows:
            self.begun_at, self._begun_with = self._tombstone.found() or (None, None)
        return knows

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
        if self._begun_with not in (None, _settings(header)):
            raise LedgerRefusedError(
                "the task's own state has nothing of earlier tries, and they sent with another host, App key, App "
                "secret or plan, or another version of this package, as the state of an outlet asset says: a look-up "
                "cannot find them now. Put the old settings back, or send the remaining recipients in a new run, from "
                "an audience without those already reached"
            )
        self._campaign = f"{_ROOT}/{header.plan_id}"
        opening = opening_of(
            self._found(), header, self._task_try, resubmit=resubmit, not_executed=not_executed
        )
        self._generation = opening.generation
        self._header = replace(header, identity_version=opening.identity_version)
        self._begin_with(opening)
        self._number, self._unsure_until, self._open = 0, 0, {}
        if opening.settled:
            # Before the header: a look-up with the new settings proves nothing about what the old ones sent.
            doubts = in_doubt(self.history())
            if self.others_may_run:
                wait(WRITTEN_WITHIN + max(each.open_for for each in doubts))
                codes = [each.task_unique_code for each in doubts]
                self.end_others(codes, codes)
                keys = {settle_key(code, self.number(code)): "not_executed" for code in codes}
                raise LedgerRefusedError(f"{GIVEN_TOO_EARLY}, and give settle={json.dumps(keys)}")
            self.write(
                [Outcome(each.task_unique_code, {}, not_executed=each.in_doubt) for each in doubts], []
            )
        self._set_campaign(self._facts)
        return opening

    def _found(self) -> Opened | None:
        if (stored := self._get(self._campaign)) is None:
            return None
        with formats.ours(self._campaign):
            formats.check_version(self._campaign, stored.get("version", 1))
            generation, finished = stored["generation"], stored["finished"]

            def requests() -> Iterator[RecordedRequest]:
                return itertools.chain.from_iterable(self._segments(generation))

            return Opened(
                generation,
                Header(**stored["header"]),
                tuple(finished) if finished else None,
                lambda: any(each.accepted or each.rejected for each in requests()),
                lambda: in_doubt(requests()),
                facts=dict(stored.get("facts", {})),
            )

    def _set_campaign(self, facts: dict[str, Any], finished: Sequence[Any] | None = None) -> None:
        assert self._header is not None
        value = {
            "version": formats.VERSION,
            "generation": self._generation,
            "header": asdict(self._header),
            "finished": finished,
            "facts": facts,
        }
        self._set(self._campaign, value)

    @override
    def history(self, audience: Callable[[], Iterable[bytes]] | None = None) -> Iterator[RecordedRequest]:
        number = 1
        for segment in self._segments(self._generation):
            number += 1
            for request in segment:
                self._remember(request)
                yield replace(request, others_may_send=self.others_may_run)
        self._number, self._segment, self._unsure_until = number, {}, 0

    def _segments(self, generation: int) -> Iterator[list[RecordedRequest]]:
        for number in itertools.count(1):
            key = self._key(generation, number)
            if (text := self._get(key)) is None:
                return
            yield formats.read_segment(key, text)

    @override
    def _write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        self._read_back()
        # Before anything is changed: the outcomes can still be written without the intents.
        for intent in intents:
            formats.check_size(intent)
        if intents and not self._is_marked and self._header is not None:
            # Before the first intent: where it is missing, nothing may have been sent, or it could not be written.
            self._tombstone.write(_settings(self._header))
            self._is_marked = True
        requests = []
        for intent in intents:
            code = intent.task_unique_code
            number = max(self._numbers.get(code, 0), self._skipped.get(code, 0)) + 1
            requests.append(formats.intended(intent, number))
        self._put_all(outcomes, requests)

    def _put_all(self, outcomes: Sequence[Outcome], requests: Sequence[RecordedRequest]) -> None:
        before = self._number, self._segment.copy(), self._open.copy(), self._numbers.copy()
        self._changed = set()
        try:
            for outcome in outcomes:
                known = outcome.accepted or outcome.rejected or outcome.in_doubt
                # Of a request whose intent was never written there is nothing to take back.
                if known or outcome.task_unique_code in self._open:
                    self._put(self._after(outcome))
            for request in requests:
                self._put(request)
            self._write_segment()
        except BaseException:
            # An outcome that is written again later must find what it was first added to.
            self._unsure_until = self._number
            self._number, self._segment, self._open, self._numbers = before
            raise

    @override
    def _own_doubts(self, intents: Sequence[Intent]) -> Mapping[str, Sequence[str]]:
        self._read_back()
        return {code: request.in_doubt for code, request in self._open.items()}

    def _read_back(self) -> None:
        """Find out what the store holds where that is not known: before the first write, and after one that failed."""
        if not self._number:
            # Never over what an earlier try has written.
            for _ in self.history():
                pass
        if not self._unsure_until:
            return
        for number in range(self._number, self._unsure_until + 1):
            key = self._key(self._generation, number)
            if (text := self._get(key)) is None:
                # That write may still arrive, so its key is used up: what is written from now on must outrank it.
                self._set(key, formats.segment([]))
                continue
            for request in formats.read_segment(key, text):
                self._remember(request)
        self._number, self._segment, self._unsure_until = self._unsure_until + 1, {}, 0

    @override
    def renew(self, intents: Sequence[Intent]) -> None:
        self._read_back()
        self._put_all([], [formats.intended(each, self.number(each.task_unique_code)) for each in intents])

    @override
    def end_others(self, task_unique_codes: Collection[str], too_early: Collection[str] = ()) -> None:
        if too_early:
            self._read_back()
            doubts = [self._open[code] for code in too_early if code in self._open]
            self._put_all([], [replace(each, number=each.number + 1) for each in doubts])
        self.others_may_run = False

    @override
    def _change_facts(self, change: FactsChange) -> None:
        facts = change(self._facts)
        self._set_campaign(facts)
        self._facts = facts

    @override
    def finish(self) -> None:
        self._set_campaign(self._facts, [self._task_try.task_instance_key, self._task_try.max_tries])
        self._tombstone.finish()

    @override
    def release(self) -> None:
        # What was before this process has ended, too. Another one may have been started for the same try.
        if self._mark and not self.others_may_run and self._get(_ROOT) == self._mark:
            self._set(_ROOT, {**self._mark, "ended": True})

    def _key(self, generation: int, number: int) -> str:
        return f"{self._campaign}/{generation}/w{number:06}"

    def _write_segment(self) -> None:
        entries = [part.text for part in self._segment.values()]
        self._set(self._key(self._generation, self._number), formats.segment(entries))

    def _after(self, outcome: Outcome) -> RecordedRequest:
        code = outcome.task_unique_code
        before = self._open.get(code, formats.empty_request(code))
        # What else is known of a request is needed while recipients are in doubt, and its number while any may be
        # in another intent.
        known = before if outcome.in_doubt else formats.empty_request(code)
        return replace(
            known,
            number=before.number if outcome.in_doubt or outcome.not_executed else 1,
            batch_num=before.batch_num,
            accepted=[*before.accepted, *map(recipient_hash, outcome.accepted)],
            rejected=[*before.rejected, *map(recipient_hash, outcome.rejected)],
            # A recipient that was not executed earlier may be in another request by now, and must not come after it.
            not_executed=[*map(recipient_hash, outcome.not_executed)],
            in_doubt=list(outcome.in_doubt),
        )

    def _put(self, request: RecordedRequest) -> None:
        code = request.task_unique_code
        text = formats.encode(request)
        new = _Part(text, formats.size(text))
        # What an entry says of free recipients while others are in doubt is nowhere else.
        partial = code in self._segment and code in self._open and bool(self._open[code].not_executed)
        others = sum(part.size for each, part in self._segment.items() if each != code)
        if partial or others + new.size > formats.SEGMENT_BYTES:
            changed = {each: part for each, part in self._segment.items() if each in self._changed}
            repeated = sum(part.size for part in changed.values())
            if partial or repeated > _REPEATED_BYTES or repeated + new.size > formats.SEGMENT_BYTES:
                # The full segment stays as it is, with what was put into it since it was written last.
                self._write_segment()
                changed = {}
            # Else what little that was goes into the next one: one write instead of two, while requests wait for it.
            self._number += 1
            self._segment, self._changed = changed, set(changed)
        self._segment[code] = new
        self._changed.add(code)
        self._remember(request)

    def _remember(self, request: RecordedRequest) -> None:
        code = request.task_unique_code
        self._open.pop(code, None)
        self._numbers.pop(code, None)
        if request.in_doubt:
            self._open[code] = request
        if request.in_doubt or request.not_executed:
            self._numbers[code] = request.number

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


def _settings(header: Header) -> str:
    """Return what stands for the settings that requests and derived ids are made with."""
    return digest(*asdict(header).values())
