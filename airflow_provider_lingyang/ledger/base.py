"""What every ledger keeps, promises and refuses; and the one that remembers nothing.

A ledger is written ahead: the *intent* of a request before it leaves, its *outcome* once it is known. An intent
without an outcome is a request in doubt. Nothing in a ledger is personal: it holds ids, codes, counts and digests.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

INTENT_LIFE = 30.0
"""Seconds. An older intent is written again before its request leaves: that fails for a try that was replaced."""


class LedgerError(Exception):
    """The ledger cannot be read or written, so nothing leaves. A later try may find it well again."""


class LedgerFencedError(LedgerError):
    """Another try or another worker has taken over: this one may write, and therefore send, nothing more."""


class LedgerRefusedError(LedgerError):
    """What the ledger holds forbids to send; no retry helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Which try of which task instance this is.

    :param max_tries: Airflow's own; grows with every Clear and with nothing else.
    :param resumed: whether it goes on after a deferral.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int | None = None
    resumed: bool = False

    @property
    def worker(self) -> str:
        """The task instance, whatever its try: at most one process of it may send."""
        return digest(self.dag_id, self.run_id, self.task_id, self.map_index)

    @property
    def has_past(self) -> bool:
        """Whether this task instance must have been here before."""
        return self.resumed or self.try_number > 1


@dataclass(frozen=True, slots=True)
class Header:
    """Whose campaign it is. The same people under another app or secret would be other requests and other ids.

    :param key_fingerprint: of the App secret; tells whether it changed, and nothing else.
    """

    host: str
    app_key: str
    plan_id: int
    key_fingerprint: str

    @classmethod
    def of(cls, *, host: str, app_key: str, app_secret: str, plan_id: int) -> Self:
        """Return the header of a campaign that is sent with these settings."""
        fingerprint = hmac.new(app_secret.encode(), b"lingyang ledger", hashlib.sha256).hexdigest()[:32]
        return cls(host, app_key, plan_id, fingerprint)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Intent:
    """A request that is about to leave.

    :param task_unique_code: the request's identity.
    :param batch_num: as the rows have it, or None.
    :param biz_ids: its recipients, in order.
    :param struct_digest: SHA-256 of what the code stands for, in hex.
    :param written_at: epoch seconds: not later than any request with this code that may have been executed left.
    :param again: whether its recipients were in a request before, which was not executed.
    """

    task_unique_code: str
    batch_num: str | None
    biz_ids: Sequence[str]
    struct_digest: str
    written_at: float
    again: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request's recipients. Together the four are all of them, or all that were in doubt.

    :param accepted: ``biz_id`` → the platform's task id, where it was told.
    :param rejected: refused, finally.
    :param not_executed: provably not contacted: free to be sent.
    :param in_doubt: still unknown.
    """

    task_unique_code: str
    accepted: Mapping[str, int | None]
    rejected: Sequence[str] = ()
    not_executed: Sequence[str] = ()
    in_doubt: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PastRequest:
    """A request of an earlier try, as the ledger remembers it. Recipients are known by their :func:`key_of`.

    :param in_doubt: the ``biz_id`` of those of whom nothing is known, in the request's order.
    :param mine: whether this task instance sent it; otherwise another one of the same campaign did.
    """

    task_unique_code: str
    batch_num: str | None
    struct_digest: str
    written_at: float
    accepted: Sequence[bytes] = ()
    rejected: Sequence[bytes] = ()
    not_executed: Sequence[bytes] = ()
    in_doubt: Sequence[str] = ()
    mine: bool = True


class Ledger(Protocol):
    """What a campaign needs of a ledger. All calls come from the task's main thread."""

    @property
    def remembers(self) -> bool:
        """Whether a later try can go on from here."""

    @property
    def handle(self) -> dict[str, Any] | None:
        """How others can read it, as plain JSON; None where they cannot."""

    def claim(self) -> bool:
        """Take over from every earlier process of this task instance. The first thing a try does.

        :return: False where there were earlier processes that the ledger does not know, until :meth:`know_past`.
        :raises LedgerError: it cannot be reached.
        """

    def know_past(self) -> None:
        """Note that what earlier processes did, which the ledger did not know, is known now."""

    def open(self, header: Header, *, resubmit: bool = False) -> int:
        """Open a campaign and return its generation.

        :param resubmit: after a Clear of a finished submission, start the next generation.
        :raises LedgerRefusedError: it is open with another host, app key or secret, or others share what is to be
            sent again.
        :raises LedgerError: it cannot be written.
        """

    def past(self) -> Iterator[PastRequest]:
        """Yield what earlier tries did. What comes later outranks what came before, of a request and of a recipient."""

    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        """Write outcomes and intents, all or nothing. No request may leave before this has returned.

        :raises LedgerFencedError: somebody else has taken over, or has one of the recipients.
        :raises LedgerError: it cannot be written.
        """

    def renew(self, intents: Sequence[Intent]) -> None:
        """Write intents again as they are, to find out whether they are still ours; raises as :meth:`write` does."""

    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        """Take requests in doubt over from whoever wrote them; raises as :meth:`write` does."""

    def finish(self) -> None:
        """Note that everybody of the audience is in a final state."""

    def close(self) -> None:
        """Give its connection back."""


class NoLedger:
    """Remembers nothing."""

    remembers = False
    handle = None

    def claim(self) -> bool:
        """Return that nothing is missing."""
        return True

    def know_past(self) -> None:
        """Do nothing."""

    def open(self, header: Header, *, resubmit: bool = False) -> int:
        """Return the only generation."""
        return 1

    def past(self) -> Iterator[PastRequest]:
        """Yield nothing."""
        return iter(())

    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        """Do nothing."""

    def renew(self, intents: Sequence[Intent]) -> None:
        """Do nothing."""

    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A campaign as the ledger knows it.

    :param finished: the worker and ``max_tries`` of the submission that finished it, or None.
    :param begun: tells whether anybody was sent to, or may have been.
    :param shared: tells whether another worker has sent, or may have, or is about to.
    """

    generation: int
    header: Header
    finished: tuple[str, int | None] | None
    begun: Callable[[], bool]
    shared: Callable[[], bool] = lambda: False


def generation_of(found: Opened | None, header: Header, attempt: Attempt, *, resubmit: bool) -> int:
    """Decide which generation a try belongs to.

    :param found: the latest generation in the ledger.
    :param resubmit: the author wants a Clear of a finished submission to send everybody again.
    :raises LedgerRefusedError: the campaign is another app's, was sent with another secret, or is not this worker's
        alone to send again.
    """
    if found is None:
        return 1
    # A retry after a crash between the end of a submission and the task's success finds it finished, too. Only Clear
    # raises max_tries: without that everybody would be sent to twice.
    worker, max_tries = found.finished or (None, None)
    cleared = (
        worker == attempt.worker
        and None not in (max_tries, attempt.max_tries)
        and max_tries != attempt.max_tries
    )
    if resubmit and cleared:
        # The next generation knows nothing of this one: those workers' next tries would repeat their people.
        if found.shared():
            raise LedgerRefusedError(
                "on_clear='resubmit' would start the campaign anew for everybody, and other tasks or runs with this "
                "campaign_key have sent to people of their own, whom their next try would then contact again. Clear "
                "with on_clear='reuse', or send to these people again under another campaign_key"
            )
        return found.generation + 1
    changed = [
        name
        for name, before, now in (
            ("host", found.header.host, header.host),
            ("App key", found.header.app_key, header.app_key),
            ("App secret", found.header.key_fingerprint, header.key_fingerprint),
        )
        if before != now
    ]
    # A secret with a typo reached nobody: correcting it must not end the campaign.
    if changed and found.begun():
        raise LedgerRefusedError(
            f"the campaign was begun with another {' and '.join(changed)} than the connection has now: its requests "
            "and derived ids would be others, and people would be contacted twice. Put the old one back until the "
            "campaign is finished. Where that cannot be, it takes a new campaign (a new run, or another campaign_key), "
            "which knows nobody: leave out of its audience whom this one has accepted or has in doubt (`python -m "
            "airflow_provider_lingyang.ledger list --biz-ids` shows them where the ledger is in a database)"
        )
    return found.generation


LOST = "*"
"""Stands in ``settle`` for all that a ledger may have held which is gone."""


def key_of(biz_id: str) -> bytes:
    """Return the 128 bits that stand for a recipient."""
    return hashlib.sha256(biz_id.encode()).digest()[:16]


def digest(*parts: object) -> str:
    """Return 32 hex digits that stand for some values, in order."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
