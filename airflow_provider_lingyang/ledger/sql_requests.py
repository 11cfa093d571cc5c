"""Requests and their recipients in the ledger's tables, within one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.base import OPEN_FOR, Intent, Outcome, RecordedRequest
from airflow_provider_lingyang.ledger.sql_tables import (
    ACCEPTED,
    IN_DOUBT,
    NOT_EXECUTED,
    REJECTED,
    SAME_REQUEST,
    THIS,
)
from airflow_provider_lingyang.storage.database import Transaction, chunks, marks


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

    def others_may_send(self, task_instance: str, *, others_may_run: bool = False) -> bool:
        """Return whether a process of another task instance may still send the request.

        :param others_may_run: whether another process of this task instance may, too.
        """
        # A task instance that sends another one's request again does not become its worker.
        only_sender = self.only_sender or (self.worker if self.intents == 1 else None)
        return self.open_for != 0 and (others_may_run or only_sender != task_instance)


class RequestRows:
    """Reads and writes the rows of one generation's requests.

    :param this: the campaign and its generation.
    :param fencing_token: of this process. Default "": it owns no request.
    """

    def __init__(
        self, run: Transaction, this: tuple[str, int], task_instance: str, fencing_token: str = ""
    ) -> None:
        self._run = run
        self._this = this
        self._task_instance = task_instance
        self._fencing_token = fencing_token

    def read(self, condition: str = "", *parameters: Any) -> list[RequestRow]:
        """Return requests in the order in which they were written.

        :param condition: what follows ``WHERE campaign=? AND generation=?``.
        """
        rows = self._run.rows(
            f"SELECT {', '.join(RequestRow._fields)} FROM lingyang_ledger_request request WHERE {THIS} {condition} "
            "ORDER BY written_at, task_unique_code",
            [*self._this, *parameters],
        )
        return [RequestRow(*row) for row in rows]

    def in_doubt(self) -> list[RequestRow]:
        """Return requests with recipients in doubt."""
        return self.read(
            f"AND EXISTS (SELECT 1 FROM lingyang_ledger_recipient recipient WHERE {SAME_REQUEST} AND "
            "recipient.state=?)",
            IN_DOUBT,
        )

    def recorded(self, condition: str = "", *parameters: Any) -> Iterator[RecordedRequest]:
        """Yield what :meth:`read` returns, with the recipients; within the transaction only."""
        for some in chunks(self.read(condition, *parameters)):
            yield from self.load(some, others_may_run=False)

    def load(self, rows: Sequence[RequestRow], *, others_may_run: bool) -> Iterator[RecordedRequest]:
        """Read the recipients of requests; return an iterator that may be used after the transaction.

        :param rows: as many as one statement takes, and not none.
        """
        # A state is the name of the field that holds its recipients.
        states: dict[str, dict[str, Any]] = {}
        for code, state, recipient, biz_id in self._run.rows(
            f"SELECT task_unique_code, state, recipient, biz_id FROM lingyang_ledger_recipient WHERE {THIS} "
            f"AND task_unique_code IN ({marks(rows)}) ORDER BY task_unique_code, place",
            [*self._this, *(row.task_unique_code for row in rows)],
        ):
            found = _unchanged(recipient, biz_id) if state == IN_DOUBT else bytes.fromhex(recipient)
            states.setdefault(code, {}).setdefault(state, []).append(found)
        return (
            RecordedRequest(
                task_unique_code=row.task_unique_code,
                batch_num=row.batch_num,
                struct_digest=row.struct_digest,
                written_at=row.written_at,
                is_own=row.worker == self._task_instance,
                others_may_send=row.others_may_send(self._task_instance, others_may_run=others_may_run),
                number=row.intents,
                open_for=OPEN_FOR if row.open_for is None else row.open_for,
                **states.get(row.task_unique_code, {}),
            )
            for row in rows
        )

    def owns(self, code: str) -> bool:
        """Return whether a request is this process's, and keep it so until the transaction ends."""
        return self._update(code, "writes=writes+1", [], "owner=?", self._fencing_token)

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
                f"UPDATE lingyang_ledger_request SET {changes} WHERE {THIS} AND task_unique_code=? AND {condition}",
                [*values, *self._this, code, *only],
            )
        )

    def write_outcome(self, outcome: Outcome, *, has_token: bool) -> Outcome | None:
        """Write the outcome of a request; of one that was taken over, its accepted recipients and nothing else.

        :param has_token: whether no other process has taken this one's whole part over.
        :return: what is not written, of one that was taken over.
        """
        code = outcome.task_unique_code
        if not (has_token and self.owns(code)):
            missing = self._accept_in_any_request(outcome.accepted)
            # Else its intent was never written, so there is nothing to take back; or its doubts are another's.
            known = outcome.accepted or outcome.rejected or outcome.in_doubt
            return replace(outcome, accepted=missing) if known else None
        of_code = f"WHERE {THIS} AND task_unique_code=? AND recipient IN "
        self._accept(outcome.accepted, of_code, [code])
        for state, biz_ids in ((REJECTED, outcome.rejected), (NOT_EXECUTED, outcome.not_executed)):
            for some in chunks(_hashes(biz_ids)):
                self._run.execute(
                    f"UPDATE lingyang_ledger_recipient SET state=? {of_code} ({marks(some)}) AND state=?",
                    [state, *self._this, code, *some, IN_DOUBT],
                )
        return None

    def _accept(self, accepted: Mapping[str, int | None], where: str, found: Sequence[str]) -> None:
        for pairs in chunks([(recipient_hash(biz_id).hex(), number) for biz_id, number in accepted.items()]):
            keys = [key for key, _ in pairs]
            # Whatever the gateway says must not keep the outcome from being written.
            known = [(key, str(number)) for key, number in pairs if number and -(2**63) <= number < 2**63]
            task_id = (
                f"CASE recipient {'WHEN ? THEN ? ' * len(known)}ELSE task_id END" if known else "task_id"
            )
            self._run.execute(
                # Whatever another task has made of them: an accepted recipient is never free again.
                f"UPDATE lingyang_ledger_recipient SET state=?, task_id={task_id} {where} ({marks(keys)})",
                [ACCEPTED, *chain.from_iterable(known), *self._this, *found, *keys],
            )

    def _accept_in_any_request(self, accepted: Mapping[str, int | None]) -> Mapping[str, int | None]:
        """Write accepted recipients, in whatever request they are by now; return those that are in none."""
        missing = dict(accepted)
        # Another task may have put a recipient into another request under the first attempt.
        for _ in range(2):
            if not missing:
                break
            self._accept(missing, f"WHERE {THIS} AND recipient IN ", [])
            keys = {recipient_hash(biz_id).hex(): biz_id for biz_id in missing}
            for some in chunks(list(keys)):
                for (key,) in self._run.rows(
                    f"SELECT recipient FROM lingyang_ledger_recipient WHERE {THIS} AND state=? "
                    f"AND recipient IN ({marks(some)})",
                    [*self._this, ACCEPTED, *some],
                ):
                    missing.pop(keys[key], None)
        return missing

    def write_intents(self, intents: Sequence[Intent], skipped: Mapping[str, int]) -> dict[str, int]:
        """Write intents; return the number of each that is not its code's first one.

        :param skipped: code → the highest number that no intent to come may get.
        """
        requests, recipients, numbers = [], [], {}
        first = self._task_instance, self._task_instance, 0
        for intent in intents:
            code = intent.task_unique_code
            keys = _hashes(intent.biz_ids)
            worker, only_sender, before = self._free(code, keys) if intent.again else first
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
            requests.append((*self._this, *row, 1))
            recipients += [
                (*self._this, key, biz_id, code, place, IN_DOUBT)
                for place, (key, biz_id) in enumerate(zip(keys, intent.biz_ids, strict=True))
            ]
        self._run.insert(
            "lingyang_ledger_request",
            f"campaign, generation, {', '.join(RequestRow._fields)}, writes",
            requests,
        )
        self._run.insert(
            "lingyang_ledger_recipient",
            "campaign, generation, recipient, biz_id, task_unique_code, place, state",
            recipients,
        )
        return numbers

    def _free(self, code: str, keys: Sequence[str]) -> tuple[str, str | None, int]:
        """Make room for recipients that are sent again: none was executed, or the gateway knows the code.

        :return: the worker and the only sender of its next intent, and how many intents the code has had.
        """
        # A write first: what is read next is then no older than it, in every database.
        self._update(code, "writes=writes+1", [])
        for some in chunks(keys):
            self._run.execute(
                f"DELETE FROM lingyang_ledger_recipient WHERE {THIS} AND state=? AND recipient IN ({marks(some)})",
                [*self._this, NOT_EXECUTED, *some],
            )
        before = self.read("AND task_unique_code=?", code)
        is_owned = bool(before) and before[0].owner == self._fencing_token
        if is_owned:
            self._run.execute(
                f"DELETE FROM lingyang_ledger_recipient WHERE {THIS} AND state=? AND task_unique_code=?",
                [*self._this, IN_DOUBT, code],
            )
        of_code = f"{THIS} AND task_unique_code=?"
        self._run.execute(
            # Else the next intent is refused: recipients of this one are accepted, or in doubt with another process.
            f"DELETE FROM lingyang_ledger_request WHERE {of_code} AND NOT EXISTS "
            f"(SELECT 1 FROM lingyang_ledger_recipient WHERE {of_code})",
            [*self._this, code, *self._this, code],
        )
        if not before:
            return self._task_instance, self._task_instance, 0
        (row,) = before
        return (
            row.worker if is_owned else self._task_instance,
            None if row.others_may_send(self._task_instance) else self._task_instance,
            row.intents,
        )


def _hashes(biz_ids: Iterable[str]) -> list[str]:
    return [recipient_hash(biz_id).hex() for biz_id in biz_ids]


def _unchanged(recipient: str, biz_id: str) -> str:
    if recipient_hash(biz_id).hex() != recipient:
        raise LedgerRefusedError(
            "the ledger's database does not give a biz_id back as it was written (a character set without Chinese, or "
            "blanks cut off), so the recipients in doubt are not known"
        )
    return biz_id
