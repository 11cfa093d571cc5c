"""What every ledger keeps, promises and refuses; and the one that keeps nothing.

A ledger is a write-ahead log: the *intent* of a request before it leaves, its *outcome* once it is known. An intent
without an outcome is a request in doubt. Nothing in a ledger is personal: it holds ids, codes, counts and digests.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from airflow_provider_lingyang.identity import IDENTITY_VERSION, settle_key
from airflow_provider_lingyang.ledger.unsent_row import UnsentRow

INTENT_LIFE = 30.0
"""Seconds. An older intent is written again before its request leaves: that fails for a try that was replaced."""
OPEN_FOR = 120.0
"""Seconds assumed of an intent that does not say for how long its request may be under way."""
WRITTEN_WITHIN = 5.0
"""Seconds in which a process writes what it was answered last, when it is over with what it had begun."""
_NUMBERS = "numbers"
"""The fact that holds the numbers which intents to come do not get."""
FactsChange = Callable[[dict[str, Any]], dict[str, Any]]

WAITS_FOR_OTHERS = "another process may still send what it had begun"
GIVEN_TOO_EARLY = (
    "when settle was given, another process could still send what it names. Now none can, and each of these requests "
    "has a new number, so find out again whether they were executed"
)


@dataclass(frozen=True, slots=True)
class Header:
    """Whose campaign it is. The same recipients under another app or secret would be other requests and other ids.

    :param key_fingerprint: of the App secret; tells whether it changed, and nothing else.
    :param identity_version: of the canonical forms that derived ids are made from; an open campaign keeps its own.
    """

    host: str
    app_key: str
    plan_id: int
    key_fingerprint: str
    # Earlier versions of this package wrote none.
    identity_version: int = 1

    @classmethod
    def of(cls, *, host: str, app_key: str, app_secret: str, plan_id: int) -> Self:
        """Return the header of a campaign that is sent with these settings."""
        fingerprint = hmac.new(app_secret.encode(), b"lingyang ledger", hashlib.sha256).hexdigest()[:32]
        return cls(host, app_key, plan_id, fingerprint, IDENTITY_VERSION)


@dataclass(frozen=True, slots=True)
class Intent:
    """A request that is about to leave.

    :param task_unique_code: the request's identity.
    :param batch_num: as the rows have it, or None.
    :param biz_ids: its recipients, in order.
    :param struct_digest: SHA-256 of what the code stands for, in hex.
    :param written_at: epoch seconds: not later than any request with this code that may have been executed left.
    :param again: whether its recipients were in a request before, which was not executed.
    :param open_for: seconds after which the request can no longer be under way, counted from when the intent cannot be
        written again any more: the life of an intent, and the time-outs of a connection and of an answer.
    :param kept: the JSON of the columns that are kept, of each recipient; empty: none is.
    """

    task_unique_code: str
    batch_num: str | None
    biz_ids: Sequence[str]
    struct_digest: str
    written_at: float
    again: bool = False
    open_for: float = OPEN_FOR
    kept: Sequence[str | None] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request's recipients. Together the four are all of them, or all that were in doubt.

    :param accepted: ``biz_id`` → the platform's task id, where the answer has it.
    :param rejected: refused, finally.
    :param not_executed: provably not contacted: free to be sent.
    :param in_doubt: still unknown.
    :param reason: why those that are not accepted are not, without values of the request. Default None.
    :param request_id: of the answer. Default None: it had none.
    """

    task_unique_code: str
    accepted: Mapping[str, int | None]
    rejected: Sequence[str] = ()
    not_executed: Sequence[str] = ()
    in_doubt: Sequence[str] = ()
    reason: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request of an earlier try, as the ledger has it. Recipients are known by their :func:`recipient_hash`.

    :param in_doubt: the ``biz_id`` of the recipients in doubt, in the request's order.
    :param is_own: whether this task instance sent it; otherwise another one of the same campaign did.
    :param others_may_send: whether another process may still send it.
    :param number: which intent of its code it is in this generation, from 1.
    :param open_for: see :class:`Intent`.
    """

    task_unique_code: str
    batch_num: str | None
    struct_digest: str
    written_at: float
    accepted: Sequence[bytes] = ()
    rejected: Sequence[bytes] = ()
    not_executed: Sequence[bytes] = ()
    in_doubt: Sequence[str] = ()
    is_own: bool = True
    others_may_send: bool = False
    number: int = 1
    open_for: float = OPEN_FOR

    @property
    def settle_key(self) -> str:
        """What stands for it in ``settle``."""
        return settle_key(self.task_unique_code, self.number)


@dataclass(frozen=True, slots=True)
class Shard:
    """How far one of the task instances is that each send a part of a campaign.

    :param batch: what the next batch that it sends orders like.
    :param since: since when it is there, in epoch seconds.
    :param is_own: whether it is this task instance.
    """

    map_index: int
    batch: str
    since: float
    is_own: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """How a try opens its campaign.

    :param changed: names of the settings under which an earlier try sent, and which are others now.
    :param settled: requests in doubt that a person has settled as not executed, so that the change may be.
    :param identity_version: see :class:`Header`.
    :param facts: what is noted about the generation.
    """

    generation: int
    changed: Sequence[str] = ()
    settled: Sequence[str] = ()
    identity_version: int = IDENTITY_VERSION
    facts: Mapping[str, Any] = field(default_factory=dict)


class Ledger:
    """What tries of a task leave for later ones; this base leaves nothing. All calls come from the task's main thread.

    A method that reads or writes raises :class:`~airflow_provider_lingyang.errors.LedgerError` where that fails, and
    one that writes ``LedgerFencedError`` where another process has taken over.
    """

    is_durable = False
    """Whether a later try can go on from here."""
    others_may_run = False
    """Whether an earlier process of this task instance, which Airflow may have replaced, may still send.

    As long as it may, :meth:`release` writes nothing.
    """
    shows_rows = False
    """Whether :meth:`explain` keeps what it is given."""
    found_lost_before = True
    """Whether an earlier process of this task instance found the ledger lost, too; True where nothing can tell."""
    begun_at: datetime | None = None
    """Since when earlier processes may have sent, where :meth:`claim` returned False. None proves nothing."""

    def __init__(self) -> None:
        self._facts: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        """The latest number of each code that may have another intent, where it is known."""
        self._unsure: Sequence[Intent] = ()
        """Intents of a write that failed: they may be there all the same."""

    @property
    def handle(self) -> dict[str, Any] | None:
        """How others can read it, as plain JSON; None where they cannot."""
        return None

    def claim(self) -> bool:
        """Take over from every earlier process of this task instance. The first thing a try does.

        :return: False where there were earlier processes it does not know, until :meth:`mark_history_known`.
        """
        return True

    def mark_history_known(self) -> None:
        """Note that what earlier processes did, which the ledger did not know, is known now."""

    def has_begun(self, plan_id: int) -> bool:
        """Return whether this task instance has written an intent for a plan. May be asked before :meth:`open`."""
        return False

    def open(
        self,
        header: Header,
        *,
        resubmit: bool = False,
        not_executed: Collection[str] = frozenset(),
        wait: Callable[[float], None] = time.sleep,
    ) -> Opening:
        """Open a campaign and return which generation of it, and what was settled so that it may go on.

        :param resubmit: after a Clear of a finished submission, start the next generation.
        :param not_executed: :func:`settle_key` of requests that a person says were not executed. Where the settings
            changed, and these are all that is in doubt, they are settled so and the campaign goes on.
        :param wait: waits some seconds, in which other tasks end what they had begun to send with the settings before;
            what it raises comes out, and nothing is settled.
        :raises LedgerRefusedError: it is open with another host, app key or secret; or others share what is to be
            sent again; or a word was given while others could still send what it names.
        """
        return Opening(1)

    def history(self, audience: Callable[[], Iterable[bytes]] | None = None) -> Iterator[RecordedRequest]:
        """Yield what earlier tries did. What comes later outranks what came before, of a request and of a recipient.

        :param audience: gives the :func:`~airflow_provider_lingyang.identity.recipient_hash` of the recipients that it
            is read for: requests of other task instances that hold none of them, and are not in doubt, may be left out.
            Default None: none is.
        """
        return iter(())

    def requests(self, task_unique_codes: Collection[str]) -> Iterator[RecordedRequest]:
        """Yield some requests of the history, as far as they are there."""
        return (request for request in self.history() if request.task_unique_code in task_unique_codes)

    def report_progress(self, batch: str, *, anew: bool = False) -> Sequence[Shard]:
        """Note which batch this task instance sends next; return how far all of this run are that do so.

        :param batch: text that orders like its ``batch_num``.
        :param anew: count from now on since when it is there. Default False: where it was there before, since then.
        """
        return ()

    def sent_since(self, moment: float) -> Sequence[tuple[str | None, float, int]]:
        """Return this task instance's requests: ``batch_num``, when it was written, and how many it reached at most.

        :param moment: epoch seconds; earlier ones are left out.
        """
        return ()

    def sent_by_others(self) -> Mapping[str | None, float]:
        """Return each ``batch_num`` that other task instances have sent, and since when, in epoch seconds."""
        return {}

    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        """Write outcomes and intents, all or nothing. No request may leave before this has returned.

        It may be called again after a failure, although what it wrote may have been committed.

        :raises LedgerFencedError: also where another process has one of the recipients.
        """
        if not intents:
            if outcomes:
                self._write(outcomes, intents)
            return
        # Else this process's own rows would look like another task instance's.
        written = self.holds(self._unsure) if self._unsure else set()
        known = {biz_id for each in intents if each.task_unique_code in written for biz_id in each.biz_ids}
        self._unsure = intents
        # Those of a recipient who is intended anew were committed before: they must not free the recipient again.
        outcomes = [each for each in outcomes if known.isdisjoint(each.not_executed)]
        intents = [each for each in intents if each.task_unique_code not in written]
        if outcomes or intents:
            self._write(outcomes, intents)
        self._unsure = ()

    def _write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        """Write them once, all or nothing, unless another process has taken over; raises as :meth:`write` does."""

    def holds(self, intents: Sequence[Intent]) -> set[str]:
        """Return the codes of those intents that are there as this process writes them, with all recipients in doubt.

        What a write whose answer was lost has left: it may have been committed.
        """
        written = self._own_doubts(intents)
        return {
            intent.task_unique_code
            for intent in intents
            if written.get(intent.task_unique_code) == list(intent.biz_ids)
        }

    def _own_doubts(self, intents: Sequence[Intent]) -> Mapping[str, Sequence[str]]:
        """Return the recipients in doubt of those of the intents that are this process's, by code."""
        return {}

    def renew(self, intents: Sequence[Intent]) -> None:
        """Write intents again as they are, to find out whether they are still ours."""

    def number(self, task_unique_code: str) -> int:
        """Return the number of a code's latest intent that this try has read or written; 1 where it knows of none."""
        return self._numbers.get(task_unique_code, 1)

    def skip_numbers(self, numbers: Mapping[str, int]) -> None:
        """Give later intents of codes higher numbers than these, in later tries too."""
        if any(number > self._skipped.get(code, 0) for code, number in numbers.items()):
            self._change_facts(lambda facts: {**facts, _NUMBERS: _highest(facts.get(_NUMBERS, {}), numbers)})

    @property
    def _skipped(self) -> Mapping[str, int]:
        """The highest number of each code that no intent to come may get."""
        numbers: Mapping[str, int] = self._facts.get(_NUMBERS, {})
        return numbers

    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        """Take requests in doubt over from the process that wrote them, which can write none of them again then.

        :raises LedgerFencedError: also where another task instance has sent one of them again since it was read.
        """

    def end_others(self, task_unique_codes: Collection[str], too_early: Collection[str] = ()) -> None:
        """Note that no process can send some requests any more, nor an earlier one anything.

        Call it only after whatever another process had begun must be over.

        :param task_unique_codes: requests in doubt that are this process's.
        :param too_early: those of them about which a word was given before. Each gets the next number, so that no
            process ever takes that word.
        """

    def fact(self, name: str) -> Any:
        """Return what is noted about the open generation under a name, or None."""
        return self._facts.get(name)

    def set_fact(self, name: str, value: Any) -> None:
        """Note something small about the open generation, for this try and later ones.

        :param value: plain JSON, of a few hundred bytes at most.
        """
        self._change_facts(lambda facts: {**facts, name: value})

    def _change_facts(self, change: FactsChange) -> None:
        """Replace what is noted about the open generation."""
        self._facts = change(self._facts)

    def _begin_with(self, opening: Opening) -> None:
        """Start from what the campaign's latest generation has noted."""
        self._facts = dict(opening.facts)
        self._numbers = {}

    def explain(self, rows: Iterator[UnsentRow], doubts: Mapping[str, str]) -> None:
        """Note at the end of a try, for people, which rows are in no request, instead of those noted before.

        :param doubts: ``task_unique_code`` of this process's requests in doubt → why.
        """

    def finish(self) -> None:
        """Note that all recipients of the audience are in a final state."""

    def leave(self, plan_id: int) -> None:
        """Note that this task instance has no part in the campaign, unless an earlier try of it has begun to send."""

    def release(self) -> None:
        """Note that this process sends nothing more."""

    def close(self) -> None:
        """Give its connection back."""


def _highest(before: Mapping[str, int], numbers: Mapping[str, int]) -> dict[str, int]:
    return {**before} | {code: max(number, before.get(code, 0)) for code, number in numbers.items()}
