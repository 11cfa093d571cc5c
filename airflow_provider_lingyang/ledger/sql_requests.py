"""Intents and outcomes in the ledger's tables, within one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.base import Intent, Outcome
from airflow_provider_lingyang.ledger.sql_tables import ACCEPTED, IN_DOUBT, NOT_EXECUTED, REJECTED, THIS
from airflow_provider_lingyang.storage.database import Transaction, chunks, marks


class RequestRows:
    """Writes the rows of requests and their recipients.

    :param run: the transaction.
    :param this: the campaign and its generation.
    :param task_instance: the key of this one.
    :param fencing_token: of this process.
    :param skipped: code → the highest number that no intent to come may get.
    """

    def __init__(
        self,
        run: Transaction,
        this: tuple[str, int],
        task_instance: str,
        fencing_token: str,
        skipped: Mapping[str, int],
    ) -> None:
        self._run = run
        self._this = this
        self._task_instance = task_instance
        self._fencing_token = fencing_token
        self._skipped = skipped

    def owns(self, code: str) -> bool:
        """Return whether a request is this process's, and keep it so until the transaction ends."""
        return bool(
            self._run.execute(
                f"UPDATE lingyang_ledger_request SET writes=writes+1 WHERE {THIS} AND task_unique_code=? AND owner=?",
                [*self._this, code, self._fencing_token],
            )
        )

    def write_outcome(self, outcome: Outcome, *, has_token: bool) -> Outcome | None:
        """Write the outcome of a request; of one that was taken over, its accepted recipients and nothing else.

        :param has_token: whether no other process has taken this one's whole part over.
        :return: what is not written, of one that was taken over.
        """
        code = outcome.task_unique_code
        if not (has_token and self.owns(code)):
            missing = self._accept_anywhere(outcome.accepted)
            # Else its intent was never written, so there is nothing to take back; or its doubts are another's.
            known = outcome.accepted or outcome.rejected or outcome.in_doubt
            return replace(outcome, accepted=missing) if known else None
        of_code = f"WHERE {THIS} AND task_unique_code=? AND recipient IN "
        self._accept(outcome.accepted, of_code, [code])
        for state, biz_ids in ((REJECTED, outcome.rejected), (NOT_EXECUTED, outcome.not_executed)):
            for some in chunks([recipient_hash(biz_id).hex() for biz_id in biz_ids]):
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
                # Whatever another task has made of them: who was accepted is never free again.
                f"UPDATE lingyang_ledger_recipient SET state=?, task_id={task_id} {where} ({marks(keys)})",
                [ACCEPTED, *chain.from_iterable(known), *self._this, *found, *keys],
            )

    def _accept_anywhere(self, accepted: Mapping[str, int | None]) -> Mapping[str, int | None]:
        """Write accepted recipients, in whatever request they are by now; return those that are in none."""
        missing = dict(accepted)
        for _ in range(
            2
        ):  # another task may have put a recipient into another request under the first attempt
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

    def write_intents(self, intents: Sequence[Intent]) -> dict[str, int]:
        """Write intents; return the number of each that is not its code's first one."""
        requests, recipients, numbers = [], [], {}
        for intent in intents:
            code = intent.task_unique_code
            keys = [recipient_hash(biz_id).hex() for biz_id in intent.biz_ids]
            task_instance, number = self._free(code, keys) if intent.again else (self._task_instance, 0)
            number = max(number, self._skipped.get(code, 0)) + 1
            if number > 1:
                numbers[code] = number
            requests.append(
                (
                    *self._this,
                    code,
                    intent.batch_num,
                    intent.struct_digest,
                    intent.written_at,
                    task_instance,
                    self._fencing_token,
                    1,
                    number,
                    intent.open_for,
                )
            )
            recipients += [
                (*self._this, key, biz_id, code, place, IN_DOUBT)
                for place, (key, biz_id) in enumerate(zip(keys, intent.biz_ids, strict=True))
            ]
        self._run.insert(
            "lingyang_ledger_request",
            "campaign, generation, task_unique_code, batch_num, struct_digest, written_at, worker, owner, writes, "
            "intents, open_for",
            requests,
        )
        self._run.insert(
            "lingyang_ledger_recipient",
            "campaign, generation, recipient, biz_id, task_unique_code, place, state",
            recipients,
        )
        return numbers

    def _free(self, code: str, keys: Sequence[str]) -> tuple[str, int]:
        """Make room for recipients that are sent again: none was executed, or the gateway knows the code.

        :return: whose request it is, and how many intents the code has had.
        """
        # A write first: what is read next is then no older than it, in every database.
        self._run.execute(
            f"UPDATE lingyang_ledger_request SET writes=writes+1 WHERE {THIS} AND task_unique_code=?",
            [*self._this, code],
        )
        for some in chunks(keys):
            self._run.execute(
                f"DELETE FROM lingyang_ledger_recipient WHERE {THIS} AND state=? AND recipient IN ({marks(some)})",
                [*self._this, NOT_EXECUTED, *some],
            )
        before = self._run.rows(
            f"SELECT worker, owner, intents FROM lingyang_ledger_request WHERE {THIS} AND task_unique_code=?",
            [*self._this, code],
        )
        task_instance, token, number = before[0] if before else (self._task_instance, None, 0)
        if token == self._fencing_token:
            self._run.execute(
                f"DELETE FROM lingyang_ledger_recipient WHERE {THIS} AND state=? AND task_unique_code=?",
                [*self._this, IN_DOUBT, code],
            )
        left = self._run.rows(
            f"SELECT recipient FROM lingyang_ledger_recipient WHERE {THIS} AND task_unique_code=?",
            [*self._this, code],
        )
        if not left:
            self._run.execute(
                f"DELETE FROM lingyang_ledger_request WHERE {THIS} AND task_unique_code=?",
                [*self._this, code],
            )
        return (task_instance if token == self._fencing_token else self._task_instance), number
