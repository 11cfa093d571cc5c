"""Requests and their recipients in the ledger's tables, within one transaction.

Every statement names requests by their own number, or recipients by their key: whatever a database's statistics say, it
reads no other rows.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple

from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.ledger.base import OPEN_FOR, Intent, Outcome, RecordedRequest
from airflow_provider_lingyang.ledger.sql_tables import (
    ACCEPTED,
    IN_DOUBT,
    NOT_EXECUTED,
    REJECTED,
    STATES,
    campaign_id,
    halves,
    request_number,
    split,
    whole,
)
from airflow_provider_lingyang.storage.database import Transaction, chunks, marks

KEYS = 1000
"""Recipients that one statement looks for."""


class RequestRow(NamedTuple):
    """A row of ``lingyang_ledger_request``: the columns that are read, by their names there."""

    task_unique_code: str
    batch_num: str | None
    struct_digest: str
    written_at: float
    worker: str
    owner: str
    intents: int
    open_for: float | None
    only_sender: str | None

    @property
    def sender(self) -> str | None:
        """The only task instance whose processes may still send it; None: any may."""
        # A task instance that sends another one's request again does not become its worker.
        return self.only_sender or (self.worker if self.intents == 1 else None)

    @property
    def seconds_open(self) -> float:
        """Seconds after which it can no longer be under way, see :class:`Intent`."""
        return OPEN_FOR if self.open_for is None else self.open_for

    def others_may_send(self, task_instance: str, *, others_may_run: bool = False) -> bool:
        """Return whether a process of another task instance may still send the request.

        :param others_may_run: whether another process of this task instance may, too.
        """
        return self.open_for != 0 and (others_may_run or self.sender != task_instance)


class RequestRows:
    """Reads and writes the rows of one generation's requests.

    :param this: the campaign and its generation.
    :param fencing_token: of this process. Default "": it owns no request.
    """

    def __init__(
        self, run: Transaction, this: tuple[str, int], task_instance: str, fencing_token: str = ""
    ) -> None:
        self._run = run
        self._campaign = campaign_id(*this)
        self._task_instance = task_instance
        self._fencing_token = fencing_token

    def read(self, condition: str = "", *parameters: Any) -> list[RequestRow]:
        """Return requests in the order in which they were written.

        :param condition: what follows ``WHERE campaign=?``.
        """
        return self._read(f"campaign=? {condition}", self._campaign, *parameters)

    def read_codes(self, codes: Collection[str]) -> list[RequestRow]:
        """Return requests by their codes, as far as they are there."""
        return self.read_numbers([request_number(self._campaign, code) for code in codes])

    def read_numbers(self, numbers: Sequence[int]) -> list[RequestRow]:
        """Return requests by their numbers, as far as they are there."""
        return [row for some in chunks(numbers) for row in self._read(f"request IN ({marks(some)})", *some)]

    def _read(self, condition: str, *parameters: Any) -> list[RequestRow]:
        rows = self._run.rows(
            f"SELECT {', '.join(RequestRow._fields)} FROM lingyang_ledger_request WHERE {condition} "
            "ORDER BY written_at, task_unique_code",
            parameters,
        )
        return [RequestRow(*row) for row in rows]

    def in_doubt(self) -> list[RequestRow]:
        """Return requests with recipients in doubt."""
        return self.read("AND in_doubt>0")

    def own_or_in_doubt(self) -> list[RequestRow]:
        """Return requests of this task instance, and of others those in doubt."""
        return self.read("AND (worker=? OR in_doubt>0)", self._task_instance)

    def has_others(self) -> bool:
        """Return whether another task instance has written a request."""
        return self._run.exists(
            "SELECT 1 FROM lingyang_ledger_request WHERE campaign=? AND worker<>?",
            [self._campaign, self._task_instance],
        )

    def sent_since(self, moment: float) -> list[tuple[str | None, float, int]]:
        """Return ``batch_num``, time of writing and recipients reached of this task instance's requests."""
        rows = self._run.rows(
            "SELECT batch_num, written_at, reached FROM lingyang_ledger_request WHERE campaign=? AND worker=? AND "
            "written_at>=?",
            [self._campaign, self._task_instance, moment],
        )
        return [(batch_num, written_at, reached) for batch_num, written_at, reached in rows]

    def sent_by_others(self) -> dict[str | None, float]:
        """Return each ``batch_num`` of requests of other task instances that reached a recipient, and since when."""
        rows = self._run.rows(
            "SELECT batch_num, min(written_at) FROM lingyang_ledger_request WHERE campaign=? AND worker<>? AND "
            "reached>0 GROUP BY batch_num",
            [self._campaign, self._task_instance],
        )
        return dict(rows)  # type: ignore[arg-type]  # two columns each

    def has_reached(self) -> bool:
        """Return whether any recipient is accepted or rejected."""
        return self._run.exists(
            "SELECT 1 FROM lingyang_ledger_recipient WHERE campaign=? AND state IN (?, ?)",
            [self._campaign, ACCEPTED, REJECTED],
        )

    def holding(self, keys: Iterable[bytes]) -> list[RequestRow]:
        """Return requests that hold one of some recipients.

        :param keys: :func:`~airflow_provider_lingyang.identity.recipient_hash` of each.
        """
        keys, numbers = iter(keys), set()
        while some := [split(key)[0] for key in islice(keys, KEYS)]:
            numbers |= {
                number
                for (number,) in self._run.rows(
                    "SELECT DISTINCT request FROM lingyang_ledger_recipient WHERE campaign=? AND hash_high IN "
                    f"({marks(some)})",
                    [self._campaign, *some],
                )
            }
        return self.read_numbers(sorted(numbers))

    def load(self, rows: Sequence[RequestRow], *, others_may_run: bool) -> Iterator[RecordedRequest]:
        """Read the recipients of requests; return an iterator that may be used after the transaction.

        :param rows: as many as one statement takes, and not none.
        """
        # A state is the name of the field that holds its recipients.
        states: dict[int, dict[str, Any]] = {}
        numbers = [request_number(self._campaign, row.task_unique_code) for row in rows]
        for number, state, high, low, biz_id in self._run.rows(
            "SELECT request, state, hash_high, hash_low, CASE WHEN state=? THEN biz_id END FROM "
            f"lingyang_ledger_recipient WHERE request IN ({marks(numbers)}) ORDER BY request, place",
            [IN_DOUBT, *numbers],
        ):
            found = _unchanged((high, low), biz_id) if state == IN_DOUBT else whole(high, low)
            states.setdefault(number, {}).setdefault(STATES[state - 1], []).append(found)
        return (
            RecordedRequest(
                task_unique_code=row.task_unique_code,
                batch_num=row.batch_num,
                struct_digest=row.struct_digest,
                written_at=row.written_at,
                is_own=row.worker == self._task_instance,
                others_may_send=row.others_may_send(self._task_instance, others_may_run=others_may_run),
                number=row.intents,
                open_for=row.seconds_open,
                **states.get(number, {}),
            )
            for row, number in zip(rows, numbers, strict=True)
        )

    def recorded(self, rows: Sequence[RequestRow]) -> Iterator[RecordedRequest]:
        """Yield requests with their recipients; within the transaction only."""
        for some in chunks(rows):
            yield from self.load(some, others_may_run=False)

    def owns(self, code: str) -> bool:
        """Return whether a request is this process's, and keep it so until the transaction ends."""
        return self.update_own(code, "writes=writes+1")

    def update_own(self, code: str, changes: str, *values: Any) -> bool:
        """Change a request of this process; return whether it is its, which it then stays as for :meth:`owns`."""
        return self._update(code, changes, values, "owner=?", self._fencing_token)

    def take_over(self, code: str, number: int | None) -> bool:
        """Make a request this process's; return whether it was there.

        :param number: only this intent of its code; None: whichever.
        """
        # Not its worker, which sent it: its recipients stay that task instance's.
        only = ("1=1",) if number is None else ("intents=?", number)
        return self._update(code, "owner=?, writes=writes+1", [self._fencing_token], *only)

    def end(self, code: str, number: int, owner: str | None = None) -> bool:
        """Note that no process can send a request any more; return whether it is still its owner's.

        :param number: of its intent from now on.
        :param owner: Default None: this process.
        """
        owner = self._fencing_token if owner is None else owner
        return self._update(code, "open_for=0, intents=?", [number], "owner=?", owner)

    def _update(
        self, code: str, changes: str, values: Sequence[Any], condition: str = "1=1", *only: Any
    ) -> bool:
        return bool(
            self._run.execute(
                f"UPDATE lingyang_ledger_request SET {changes} WHERE request=? AND {condition}",
                [*values, request_number(self._campaign, code), *only],
            )
        )

    def write_outcome(self, outcome: Outcome, *, has_token: bool) -> Outcome | None:
        """Write the outcome of a request; of one that was taken over, its accepted recipients and nothing else.

        :param has_token: whether no other process has taken this one's whole part over.
        :return: what is not written, of one that was taken over.
        """
        code = outcome.task_unique_code
        is_own = has_token and self.update_own(
            code,
            "writes=writes+1, in_doubt=?, answered_at=?, request_id=COALESCE(?, request_id)",
            len(outcome.in_doubt),
            time.time(),
            # Whatever the gateway says must not keep the outcome from being written.
            "".join(filter(str.isascii, outcome.request_id or ""))[:64] or None,
        )
        if not is_own:
            missing = self._accept_in_any_request(outcome.accepted)
            # Else its intent was never written, so there is nothing to take back; or its doubts are another's.
            known = outcome.accepted or outcome.rejected or outcome.in_doubt
            return replace(outcome, accepted=missing) if known else None
        request = request_number(self._campaign, code)
        if self._accept(outcome.accepted, "request=?", request) < len(outcome.accepted):
            # A person's word has freed a recipient meanwhile, who is in another request by now.
            self._accept_in_any_request(outcome.accepted)
        for state, biz_ids in ((REJECTED, outcome.rejected), (NOT_EXECUTED, outcome.not_executed)):
            for some in chunks(first_halves(biz_ids)):
                self._run.execute(
                    "UPDATE lingyang_ledger_recipient SET state=? WHERE request=? AND state=? AND "
                    f"hash_high IN ({marks(some)})",
                    [state, request, IN_DOUBT, *some],
                )
        if outcome.not_executed:
            self._update(
                code,
                "reached=(SELECT count(*) FROM lingyang_ledger_recipient WHERE request=? AND state<>?)",
                [request, NOT_EXECUTED],
            )
        return None

    def _accept(self, accepted: Mapping[str, int | None], where: str, *values: Any) -> int:
        """Return how many recipients were touched."""
        touched = 0
        for pairs in chunks([(halves(biz_id)[0], number) for biz_id, number in accepted.items()]):
            keys = [key for key, _ in pairs]
            # Whatever the gateway says must not keep the outcome from being written.
            known = [(key, number) for key, number in pairs if number and -(2**63) <= number < 2**63]
            task_id = (
                f"CASE hash_high {'WHEN ? THEN ? ' * len(known)}ELSE task_id END" if known else "task_id"
            )
            touched += self._run.execute(
                # Whatever another task has made of them: an accepted recipient is never free again.
                f"UPDATE lingyang_ledger_recipient SET state=?, reason=NULL, task_id={task_id} WHERE {where} AND "
                f"hash_high IN ({marks(keys)})",
                [ACCEPTED, *chain.from_iterable(known), *values, *keys],
            )
        return touched

    def _accept_in_any_request(self, accepted: Mapping[str, int | None]) -> Mapping[str, int | None]:
        """Write accepted recipients, in whatever request they are by now; return those that are in none."""
        missing = dict(accepted)
        # Another task may have put a recipient into another request under the first attempt.
        for _ in range(2):
            if not missing:
                break
            self._accept(missing, "campaign=?", self._campaign)
            keys = {halves(biz_id): biz_id for biz_id in missing}
            for some in chunks([high for high, _ in keys]):
                for key in self._run.rows(
                    "SELECT hash_high, hash_low FROM lingyang_ledger_recipient WHERE campaign=? AND state=? "
                    f"AND hash_high IN ({marks(some)})",
                    [self._campaign, ACCEPTED, *some],
                ):
                    missing.pop(keys.get(tuple(key), ""), None)
        return missing

    def write_intents(self, intents: Sequence[Intent], skipped: Mapping[str, int]) -> dict[str, int]:
        """Write intents; return the number of each that is not its code's first one.

        :param skipped: code → the highest number that no intent to come may get.
        """
        requests, recipients, numbers = [], [], {}
        first = self._task_instance, self._task_instance, 0
        for intent in intents:
            code = intent.task_unique_code
            request = request_number(self._campaign, code)
            worker, only_sender, before = self._free(code, intent.biz_ids) if intent.again else first
            number = max(before, skipped.get(code, 0)) + 1
            if number > 1:
                numbers[code] = number
            row = RequestRow(
                task_unique_code=code,
                batch_num=intent.batch_num,
                struct_digest=intent.struct_digest,
                written_at=intent.written_at,
                worker=worker,
                owner=self._fencing_token,
                intents=number,
                open_for=intent.open_for,
                # Intents that are skipped may have been written by any task instance.
                only_sender=only_sender if number == before + 1 else None,
            )
            size = len(intent.biz_ids)
            requests.append((request, self._campaign, *row, 1, size, size))
            recipients += [
                (self._campaign, *halves(biz_id), request, place, IN_DOUBT, biz_id, kept)
                for place, (biz_id, kept) in enumerate(zip_longest(intent.biz_ids, intent.kept))
            ]
        self._run.insert(
            "lingyang_ledger_request",
            f"request, campaign, {', '.join(RequestRow._fields)}, writes, in_doubt, reached",
            requests,
        )
        self._run.insert(
            "lingyang_ledger_recipient",
            "campaign, hash_high, hash_low, request, place, state, biz_id, kept",
            recipients,
        )
        return numbers

    def _free(self, code: str, biz_ids: Sequence[str]) -> tuple[str, str | None, int]:
        """Make room for recipients that are sent again: none was executed, or the gateway knows the code.

        :return: the worker and the only sender of its next intent, and how many intents the code has had.
        """
        # A write first: what is read next is then no older than it, in every database.
        self._update(code, "writes=writes+1", [])
        for some in chunks(first_halves(biz_ids)):
            self._run.execute(
                "DELETE FROM lingyang_ledger_recipient WHERE campaign=? AND state=? AND hash_high IN "
                f"({marks(some)})",
                [self._campaign, NOT_EXECUTED, *some],
            )
        request = request_number(self._campaign, code)
        before = self.read_codes([code])
        is_owned = bool(before) and before[0].owner == self._fencing_token
        if is_owned:
            self._run.execute(
                "DELETE FROM lingyang_ledger_recipient WHERE request=? AND state=?", [request, IN_DOUBT]
            )
        self._run.execute(
            # Else the next intent is refused: recipients of this one are accepted, or in doubt with another process.
            "DELETE FROM lingyang_ledger_request WHERE request=? AND NOT EXISTS "
            "(SELECT 1 FROM lingyang_ledger_recipient WHERE request=?)",
            [request, request],
        )
        if not before:
            return self._task_instance, self._task_instance, 0
        (row,) = before
        return (
            row.worker if is_owned else self._task_instance,
            None if row.others_may_send(self._task_instance) else self._task_instance,
            row.intents,
        )


def first_halves(biz_ids: Iterable[str]) -> list[int]:
    """Return the first number of each recipient."""
    # They tell recipients of one campaign apart; the key itself is both.
    return [halves(biz_id)[0] for biz_id in biz_ids]


def _unchanged(key: tuple[int, int], biz_id: str) -> str:
    if halves(biz_id) != key:
        raise LedgerRefusedError(
            "the ledger's database does not give a biz_id back as it was written (a character set without Chinese, or "
            "blanks cut off), so the recipients in doubt are not known"
        )
    return biz_id
