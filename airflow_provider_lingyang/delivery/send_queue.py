"""The recipients still to be sent to, in the order of sending, after what earlier tries did.

It lies beside the audience in the same private file, so that deciding needs no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from airflow_provider_lingyang.audience.store import AudienceStore, order_key
from airflow_provider_lingyang.delivery.request_state import RequestState
from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.base import RecordedRequest

LEFT_OUT = -1
"""State of a recipient whose contact an earlier try has reached under another ``biz_id``."""
OTHER_BIZ_ID = "their contact was reached under another biz_id"
"""Why such recipients are not sent."""


@dataclass(slots=True)
class History:
    """What earlier tries left.

    :param in_doubt: requests with recipients in doubt, and the number of their group.
    :param vanished: recipients of this task's earlier tries that are not in the audience any more.
    :param left_out: recipients whose contact an earlier try has reached under another ``biz_id``.
    :param furthest: orders like ``batch_num``: the last that any request carried.
    """

    in_doubt: list[tuple[int, RecordedRequest]] = field(default_factory=list)
    vanished: int = 0
    left_out: int = 0
    furthest: str = ""


class SendQueue:
    """Gives the recipients that are to be sent to, batch by batch.

    :param audience: the audience, read and checked.
    :raises SpoolError: the disk is full.
    """

    def __init__(self, audience: AudienceStore) -> None:
        audience.index()
        audience.write(_SCHEMA)
        self.audience = audience
        self.last_group = 0

    def load_history(self, requests: Iterable[RecordedRequest]) -> History:
        """Take what earlier tries did: recipients accepted, rejected or in doubt are not sent to.

        :param requests: of one that comes twice the later state counts, but for accepted recipients.
        :raises SpoolError: the disk is full.
        """
        history = History()
        open_requests: dict[str, tuple[int, RecordedRequest]] = {}
        self.audience.execute("BEGIN")
        for request in requests:
            self.last_group += 1
            doubtful = [recipient_hash(biz_id) for biz_id in request.in_doubt]
            for state, keys in (
                (RequestState.ACCEPTED, request.accepted),
                (RequestState.REJECTED, request.rejected),
                (RequestState.IN_DOUBT, doubtful),
                (RequestState.PENDING, request.not_executed),
            ):
                self.audience.write_many(
                    # What was accepted stays so, whatever else is said of it.
                    "INSERT INTO history VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET state = excluded.state, "
                    "group_no = excluded.group_no, position = excluded.position, is_own = excluded.is_own "
                    f"WHERE state <> {RequestState.ACCEPTED:d}",
                    [
                        (key, state, self.last_group, position, request.is_own)
                        for position, key in enumerate(keys)
                    ],
                )
            if request.accepted or request.rejected or doubtful:
                history.furthest = max(history.furthest, order_key(request.batch_num))
            open_requests.pop(request.task_unique_code, None)
            if doubtful:
                open_requests[request.task_unique_code] = (self.last_group, request)
        self.audience.execute("COMMIT")
        if not self.last_group:
            return history
        self.audience.write(
            "UPDATE recipient SET state = history.state, group_no = history.group_no, position = history.position, "
            "is_own = history.is_own FROM history WHERE history.key = recipient.key"
        )
        history.left_out = self.audience.write(
            f"UPDATE recipient SET state = {LEFT_OUT} WHERE state = {RequestState.PENDING:d} AND contact IN "
            "(SELECT dropped.contact FROM dropped JOIN history ON history.key = dropped.key "
            f"WHERE history.state <> {RequestState.PENDING:d})"
        )
        (known,) = self.audience.one(
            f"SELECT count(*) FROM history WHERE is_own AND state <> {RequestState.PENDING:d}"
        )
        (seen,) = self.audience.one(
            f"SELECT count(*) FROM recipient WHERE is_own AND state NOT IN ({RequestState.PENDING:d}, {LEFT_OUT})"
        )
        history.vanished = known - seen
        history.in_doubt = list(open_requests.values())
        return history

    def keys(self) -> Iterator[bytes]:
        """Yield the :func:`recipient_hash` of the recipients, and of those who were left out for their contact."""
        for (key,) in self.audience.execute("SELECT key FROM recipient UNION ALL SELECT key FROM dropped"):
            yield key

    def group(self, number: int) -> list[tuple[str | None, str, str]]:
        """Return (batch_num, biz_id, JSON of the task) of a group's recipients, in the order of their request."""
        return list(
            self.audience.execute(
                "SELECT batch_num, biz_id, task FROM recipient WHERE group_no = ? ORDER BY position",
                (number,),
            )
        )

    def set_state(self, biz_ids: Iterable[str], state: RequestState) -> None:
        """Change the state of recipients, as far as they are in the audience."""
        self.audience.write_many(
            "UPDATE recipient SET state = ? WHERE biz_id = ?", [(state, biz_id) for biz_id in biz_ids]
        )

    def requeue(self, biz_ids: Sequence[str]) -> None:
        """Free recipients whose request was not executed, to be sent together again."""
        self.last_group += 1
        self.audience.write_many(
            f"UPDATE recipient SET state = {RequestState.PENDING:d}, group_no = ?, position = ? WHERE biz_id = ?",
            [(self.last_group, position, biz_id) for position, biz_id in enumerate(biz_ids)],
        )

    def ids_in_state(self, state: RequestState) -> Iterator[str]:
        """Yield the recipients of the audience that earlier tries left in a state."""
        rows = self.audience.execute(
            f"SELECT biz_id FROM recipient WHERE state = {state:d} ORDER BY order_key, row"
        )
        # Not "yield from": see new_recipients().
        for (biz_id,) in rows:
            yield biz_id

    def batches(self) -> list[tuple[str | None, int]]:
        """Return (batch_num, recipients still to be sent to) in the order of sending."""
        return list(
            self.audience.execute(
                f"SELECT max(batch_num), count(*) FROM recipient WHERE state = {RequestState.PENDING:d} "
                "GROUP BY order_key ORDER BY order_key"
            )
        )

    def late(self, furthest: str) -> int:
        """Return how many are still to be sent to although a later batch has left."""
        return sum(count for batch_num, count in self.batches() if order_key(batch_num) < furthest)

    def new_recipients(self, batch_num: str | None) -> Iterator[tuple[str, str]]:
        """Yield (biz_id, JSON of the task) of one batch's recipients that were in no request, in order."""
        found = self.audience.execute(
            f"SELECT biz_id, task FROM recipient WHERE order_key = ? AND state = {RequestState.PENDING:d} "
            "AND group_no IS NULL ORDER BY row",
            (order_key(batch_num),),
        )
        # Not "yield from": abandoned half-way, it would close the cursor of a database that is closed already.
        for row in found:  # noqa: UP028
            yield row

    def requeued(self, batch_num: str | None, *, after: int = 0) -> list[tuple[int, str, str]]:
        """Return (group, biz_id, JSON of the task) of one batch's recipients whose request was not executed.

        :param after: only groups with a higher number.
        """
        return list(
            self.audience.execute(
                "SELECT group_no, biz_id, task FROM recipient WHERE group_no > ? AND order_key = ? "
                f"AND state = {RequestState.PENDING:d} ORDER BY group_no, position",
                (after, order_key(batch_num)),
            )
        )


def count_overtaken(sent: Iterable[tuple[str | None, float, int]], others: Mapping[str | None, float]) -> int:
    """Return how many recipients were sent to after another task instance had sent a later batch.

    :param sent: ``batch_num``, epoch seconds and recipients of each request.
    :param others: ``batch_num`` → since when other task instances have sent it, in epoch seconds.
    """
    first = [(order_key(batch_num), begun_at) for batch_num, begun_at in others.items()]
    return sum(
        recipients
        for batch_num, sent_at, recipients in sent
        if any(order_key(batch_num) < later and begun_at < sent_at for later, begun_at in first)
    )


# WITHOUT ROWID: the table is its own index.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS history (
    key BLOB PRIMARY KEY,
    state INTEGER NOT NULL,
    group_no INTEGER NOT NULL,
    position INTEGER NOT NULL,
    is_own INTEGER NOT NULL
) WITHOUT ROWID
"""
