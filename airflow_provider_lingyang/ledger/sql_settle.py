"""A person's word about a request in doubt, written into the ledger's tables by a command instead of by a task."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.identity import settle_key
from airflow_provider_lingyang.ledger.base import GIVEN_TOO_EARLY
from airflow_provider_lingyang.ledger.sql_report import (
    Generation,
    generations,
    seconds_open,
    still_open,
    task_instances,
)
from airflow_provider_lingyang.ledger.sql_requests import RequestRow, RequestRows
from airflow_provider_lingyang.ledger.sql_tables import (
    ACCEPTED,
    IN_DOUBT,
    NOT_EXECUTED,
    STATES,
    request_number,
)
from airflow_provider_lingyang.storage.database import (
    Database,
    SerializationFailureError,
    Transaction,
    chunks,
    marks,
    repeated_after,
)

_STATE = {STATES[state - 1]: state for state in (ACCEPTED, NOT_EXECUTED)}
"""The words, and what recipients become."""
_REASON = "a person says that it was {}, in a command"


class Verdict(NamedTuple):
    """What became of a word.

    :param recipients: in doubt when it was given.
    :param settled: whether it counts: they are not in doubt any more, or would not be.
    :param note: why it does not, or what follows.
    """

    request: str
    word: str
    recipients: int
    settled: bool
    note: str = ""


@contextmanager
def locked(database: Database, campaign: str, workers: list[str]) -> Iterator[Transaction]:
    """Begin a transaction in which no task instance claims, opens or writes a campaign.

    One that has no row yet may claim, and cannot open it before the end.

    :param campaign: as the table of campaigns has it.
    :param workers: the task instances that have claimed it, read in a transaction before: some databases show the whole
        transaction what was there at its first SELECT.
    """
    with database.transaction() as run:
        # In the order of ledger/sql.py: task instances, campaign, requests, recipients.
        for some in chunks(sorted(workers)):
            run.execute(
                f"UPDATE lingyang_ledger_worker SET writes=writes+1 WHERE worker IN ({marks(some)})", some
            )
        run.execute("UPDATE lingyang_ledger_campaign SET opened_at=opened_at WHERE campaign=?", [campaign])
        yield run


@dataclass(slots=True)
class Settlement:
    """Writes words about requests in doubt of one campaign.

    :param execute: False: find out what would become of them, and write nothing.
    :param take_over: take a request that may still be sent away from its owner.
    :param wait: waits some seconds, in which an owner before ends what it had begun.
    """

    database: Database
    campaign_key: str
    plan_id: int
    execute: bool
    take_over: bool
    wait: Callable[[float], None]

    @repeated_after(SerializationFailureError)
    def settle(self, key: str, word: str) -> Verdict:
        """Write one word, where it is proven that no process can send what it is about.

        :param key: :func:`settle_key` of the request.
        :param word: ``accepted`` or ``not_executed``.
        :raises LedgerError: there is no such campaign, or the database cannot be read or written.
        """
        code, _, text = key.partition("#")
        number = int(text or 1)
        found, workers = self._find(code)
        token = uuid.uuid4().hex
        if found is None:
            return Verdict(key, word, 0, False, "the campaign has no such request")
        with self._transaction(found, workers) as run:
            requests = RequestRows(run, (found.campaign, found.generation), "", token)
            row, verdict, why = self._judge(run, found, key, word)
            if row is None:
                return verdict
            if why and not self.take_over:
                return verdict._replace(
                    note=f"{why}. Wait for the end of its task, and find out after that. If its process was killed, "
                    "Clear the task, whose next try waits until none can send it; or give --take-over: that waits "
                    f"{seconds_open(row):.0f} s"
                )
            if not self.execute:
                return verdict._replace(settled=not why or word == STATES[ACCEPTED - 1])
            requests.take_over(code, number)
            if not why or word == STATES[ACCEPTED - 1]:
                self._write(run, request_number(found.number, code), word)
                return verdict._replace(settled=True)
        # The word is older than the last moment at which the request may have left: it is never taken.
        self.wait(seconds_open(row))
        with self._transaction(found, workers) as run:
            requests = RequestRows(run, (found.campaign, found.generation), "", token)
            if not requests.end(code, number + 1):
                return verdict._replace(note="a try has taken it over meanwhile: wait for its end")
        return verdict._replace(
            request=settle_key(code, number + 1), note=f"{GIVEN_TOO_EARLY}, and say it of this number"
        )

    def _find(self, code: str) -> tuple[Generation | None, list[str]]:
        """Return the generation that has a request, and the task instances of the campaign."""
        with self.database.transaction() as run:
            rows = generations(run, self.campaign_key, self.plan_id)
            if not rows:
                raise LedgerError(
                    f"the ledger knows no campaign with campaign_key {self.campaign_key!r} and plan_id {self.plan_id}"
                )
            found = next((row for row in rows if _row(run, row, code)), None)
            return found, list(task_instances(run, self.campaign_key))

    @contextmanager
    def _transaction(self, found: Generation, workers: list[str]) -> Iterator[Transaction]:
        if self.execute:
            with locked(self.database, found.campaign, workers) as run:
                yield run
        else:
            with self.database.transaction() as run:
                yield run

    def _judge(
        self, run: Transaction, found: Generation, key: str, word: str
    ) -> tuple[RequestRow | None, Verdict, str]:
        """Return the request that a word is about, and why it may still be sent; None: the word is about nothing."""
        code, _, text = key.partition("#")
        row = _row(run, found, code)
        ((doubtful,),) = run.rows(
            "SELECT count(*) FROM lingyang_ledger_recipient WHERE request=? AND state=?",
            [request_number(found.number, code), IN_DOUBT],
        )
        verdict = Verdict(key, word, int(doubtful), False)
        if row is None or not doubtful:
            return None, verdict._replace(note="it is not in doubt, or not any more: nothing is changed"), ""
        if row.intents != int(text or 1):
            now = settle_key(code, row.intents)
            return None, verdict._replace(note=f"in doubt now is {now}: find out about that one"), ""
        return row, verdict, still_open(row, task_instances(run, self.campaign_key))

    @staticmethod
    def _write(run: Transaction, request: int, word: str) -> None:
        """Write the outcome of a request that is this command's by now."""
        # What else leaves recipients in doubt under this number, before "not_executed" frees them to be sent again:
        # - A process that sends the intent later: still_open() has excluded it, under locks that last until the commit.
        # - A process that has sent it, and writes the outcome later: the request is not its own any more, and then all
        #   that it writes is which recipients were accepted, whatever they have become here.
        # - A later intent with the same code: it has another number, which was compared under the same locks.
        # - A try that has read the request as in doubt, and has it in memory: the number that it takes over is there no
        #   more, so it ends.
        # - The request was executed, and its answer lost. Nothing here can tell: that is what the person says.
        run.execute(
            "UPDATE lingyang_ledger_recipient SET state=?, reason=? WHERE request=? AND state=?",
            [_STATE[word], _REASON.format(word.replace("_", " ")), request, IN_DOUBT],
        )
        run.execute(
            # Another number: a try that has read of this one, and takes it over by that, begins anew.
            "UPDATE lingyang_ledger_request SET in_doubt=0, open_for=0, intents=intents+1, reached="
            "(SELECT count(*) FROM lingyang_ledger_recipient WHERE request=? AND state<>?) WHERE request=?",
            [request, NOT_EXECUTED, request],
        )


def _row(run: Transaction, found: Generation, code: str) -> RequestRow | None:
    requests = RequestRows(run, (found.campaign, found.generation), "")
    return next(iter(requests.read_codes([code])), None)
