"""What leaves the ledger's tables: campaigns that are over, and single recipients. In chunks, each committed.

An interrupt between two chunks leaves what is done done, and the rest as it was: a second run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any

from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.identity import digest, settle_key
from airflow_provider_lingyang.ledger import sql_before_3
from airflow_provider_lingyang.ledger.opening import PRUNED
from airflow_provider_lingyang.ledger.sql_report import (
    Generation,
    TaskInstance,
    generations,
    task_instances,
)
from airflow_provider_lingyang.ledger.sql_settle import locked
from airflow_provider_lingyang.ledger.sql_tables import IN_DOUBT, halves
from airflow_provider_lingyang.storage.database import (
    Database,
    SerializationFailureError,
    Transaction,
    chunks,
    marks,
    repeated_after,
)

_ROWS = 5000
"""Rows that are in no request, deleted in one transaction at most."""
_ERASED = "biz_id='', reason=NULL, kept=NULL, task_id=NULL"
"""What is left of a recipient: its key, its request and its state."""
_HOLDS_MORE = "(biz_id<>'' OR reason IS NOT NULL OR kept IS NOT NULL OR task_id IS NOT NULL)"
NOT_FINISHED = "not finished"
PART_NOT_FINISHED = "a task has not finished its part"
WITHIN_DOUBT = "recipients in doubt"
NOT_ENDED = "a task has not noted its end"
TOO_YOUNG = "active since"


@dataclass(slots=True)
class Pruned:
    """A campaign, and what prune does to it.

    :param rows: its generations.
    :param stays: why nothing is done; empty: something is.
    :param closes: whether all of it is deleted, and later tries are refused; else keys and states of recipients stay.
    :param recipients: that are deleted, or erased but for their keys and states; likewise the others.
    """

    rows: Sequence[Generation]
    stays: str = ""
    closes: bool = False
    recipients: int = 0
    requests: int = 0
    audience_rows: int = 0
    numbers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = [row.number for row in self.rows]


@dataclass(slots=True)
class Retention:
    """Prunes campaigns that are over.

    :param before: epoch seconds: campaigns that were active later stay.
    :param close_campaigns: also delete the keys of campaigns with a ``campaign_key`` of their own, and refuse later
        tries of them.
    """

    database: Database
    before: float
    close_campaigns: bool = False
    _has_old_tables: bool = field(init=False)

    def __post_init__(self) -> None:
        self._has_old_tables = sql_before_3.are_there(self.database)

    def plan(self) -> Iterator[Pruned]:
        """Yield each campaign that anything is left of, and what :meth:`prune` does to it."""
        with self.database.transaction() as run:
            rows = sorted(generations(run), key=attrgetter("campaign", "generation"))
        for _, group in groupby(rows, key=attrgetter("campaign")):
            with self.database.transaction() as run:
                found = self._judge(run, list(group))
                self._count(run, found)
            if found.recipients or found.requests or found.audience_rows:
                yield found

    def prune(self, planned: Pruned) -> Pruned:
        """Prune a campaign; return what was done, or why it stays after all."""
        key = planned.rows[0].campaign_key
        with self.database.transaction() as run:
            workers = list(task_instances(run, key))
        # The note comes first: from its commit on no try can open the campaign, and the rest needs no lock.
        found = self._begin(planned.rows[0], workers)
        if found.stays:
            return found
        for number in found.numbers:
            self._prune_requests(found, number)
            self._prune_rows(found, number)
        self._prune_old_tables(found)
        if found.closes:
            self._forget_task_instances(key)
        return found

    @repeated_after(SerializationFailureError)
    def _begin(self, row: Generation, workers: list[str]) -> Pruned:
        with locked(self.database, row.campaign, workers) as run:
            rows = generations(run, row.campaign_key, row.plan_id)
            found = self._judge(run, rows)
            if found.closes and not found.stays:
                self._close(run, rows)
        return found

    def _judge(self, run: Transaction, rows: Sequence[Generation]) -> Pruned:
        instances = list(task_instances(run, rows[0].campaign_key).values())
        # Of a run alone: no other run comes with this campaign_key. An own key, or one that is not known to be none,
        # may come again.
        is_default = bool(instances) and all(one.default_key == rows[0].campaign_key for one in instances)
        found = Pruned(rows, closes=is_default or self.close_campaigns)
        if rows[-1].pruned:
            # Interrupted before: what is left of it is of no use.
            found.closes = True
            return found
        found.stays = self._why_it_stays(run, found, instances)
        return found

    def _why_it_stays(self, run: Transaction, found: Pruned, instances: Sequence[TaskInstance]) -> str:
        if not all(row.finished_by for row in found.rows):
            return NOT_FINISHED
        if not all(one.ended for one in instances):
            return NOT_ENDED
        # Before version 5 only the last one was noted that has finished a campaign.
        last = {digest(row.campaign_key, row.finished_by) for row in found.rows}
        if not all(one.worker in last if one.finished is None else one.finished for one in instances):
            return PART_NOT_FINISHED
        some = f"({marks(found.numbers)})"
        if run.exists(
            f"SELECT 1 FROM lingyang_ledger_recipient WHERE campaign IN {some} AND state=?",
            [*found.numbers, IN_DOUBT],
        ):
            return WITHIN_DOUBT
        ((written, answered),) = run.rows(
            f"SELECT max(written_at), max(answered_at) FROM lingyang_ledger_request WHERE campaign IN {some}",
            found.numbers,
        )
        moments = [written, answered, *(one.claimed_at for one in instances)]
        moments += [moment for row in found.rows for moment in (row.opened_at, row.finished_at)]
        return TOO_YOUNG if max(moment or 0.0 for moment in moments) >= self.before else ""

    def _count(self, run: Transaction, found: Pruned) -> None:
        some, more = f"({marks(found.numbers)})", "" if found.closes else f" AND {_HOLDS_MORE}"
        for name, table, condition in (
            ("recipients", "recipient", more),
            ("requests", "request", "" if found.closes else " AND 1=0"),
            ("audience_rows", "row", ""),
        ):
            sql = f"SELECT count(*) FROM lingyang_ledger_{table} WHERE campaign IN {some}{condition}"
            setattr(found, name, int(run.rows(sql, found.numbers)[0][0]))
        if self._has_old_tables:
            # Of those that were pruned by a version which left them there.
            old = sum(sql_before_3.count(run, (row.campaign, row.generation)) for row in found.rows)
            found.recipients = max(found.recipients, old)

    def _close(self, run: Transaction, rows: Sequence[Generation]) -> None:
        today = datetime.now(CHINA).date().isoformat()
        for row in rows:
            facts = {PRUNED: today} | json.loads(row.facts or "{}")
            run.execute(
                "UPDATE lingyang_ledger_campaign SET facts=? WHERE campaign=? AND generation=?",
                [json.dumps(facts), row.campaign, row.generation],
            )

    def _prune_requests(self, found: Pruned, campaign: int) -> None:
        sql = "SELECT request FROM lingyang_ledger_request WHERE campaign=?"
        parameters: list[float] = [campaign]
        if not found.closes:
            # A later run may have begun since the lock was given up: its requests are not what was judged.
            sql += " AND written_at<? AND (answered_at IS NULL OR answered_at<?)"
            parameters += [self.before, self.before]
        with self.database.transaction() as run:
            requests = [number for (number,) in run.rows(sql, parameters)]
        for some in chunks(requests):
            within = f"request IN ({marks(some)})"
            if found.closes:
                recipients, gone = self._execute(
                    (f"DELETE FROM lingyang_ledger_recipient WHERE {within}", some),
                    (f"DELETE FROM lingyang_ledger_request WHERE {within}", some),
                )
                found.requests += gone
            else:
                # Not one in doubt: a later run may have come meanwhile, and its id is needed until it is settled.
                sql = f"UPDATE lingyang_ledger_recipient SET {_ERASED} WHERE {within} AND state<>? AND {_HOLDS_MORE}"
                (recipients,) = self._execute((sql, [*some, IN_DOUBT]))
            found.recipients += recipients

    def _prune_rows(self, found: Pruned, campaign: int) -> None:
        # As for requests.
        old, before = ("", []) if found.closes else (" AND written_at<?", [self.before])
        with self.database.transaction() as run:
            spans = run.rows(
                "SELECT worker, min(row_no), max(row_no) FROM lingyang_ledger_row "
                f"WHERE campaign=?{old} GROUP BY worker",
                [campaign, *before],
            )
        for worker, first, last in spans:
            for start in range(int(first), int(last) + 1, _ROWS):
                sql = (
                    "DELETE FROM lingyang_ledger_row WHERE campaign=? AND worker=? AND row_no>=? AND row_no<?"
                    f"{old}"
                )
                (gone,) = self._execute((sql, [campaign, worker, start, start + _ROWS, *before]))
                found.audience_rows += gone

    def _prune_old_tables(self, found: Pruned) -> None:
        if not self._has_old_tables:
            return
        old = 0
        for row in found.rows:
            with self.database.transaction() as run:
                statements = list(sql_before_3.deletions(run, (row.campaign, row.generation)))
            for some in statements:
                old += self._execute(*some)[0]
        found.recipients = max(found.recipients, old)

    @repeated_after(SerializationFailureError)
    def _execute(self, *statements: tuple[str, Sequence[Any]]) -> list[int]:
        """Run statements in a transaction of their own; return how many rows each has touched."""
        with self.database.transaction() as run:
            return [run.execute(*statement) for statement in statements]

    def _forget_task_instances(self, campaign_key: str) -> None:
        """Delete the task instances of a key of which no campaign is left that a try can open."""
        with self.database.transaction() as run:
            if all(row.pruned for row in generations(run, campaign_key)):
                for some in chunks(list(task_instances(run, campaign_key))):
                    run.execute(
                        f"DELETE FROM lingyang_ledger_worker WHERE worker IN ({marks(some)}) AND ended=1",
                        some,
                    )


@dataclass(slots=True)
class Forgotten:
    """What is known of some recipients in one generation of a campaign.

    :param recipients: that are erased, but for their keys and states.
    :param audience_rows: rows in no request that are erased.
    :param in_doubt: :func:`settle_key` of requests in which such a recipient is in doubt: its id is needed until they
        are settled.
    """

    row: Generation
    recipients: int
    audience_rows: int
    in_doubt: list[str]


def forget(database: Database, row: Generation, biz_ids: Sequence[str], *, execute: bool) -> Forgotten:
    """Erase what one generation of a campaign holds of recipients: id, reason, columns, the platform's task.

    Their keys, which are digests of the ids, and their states stay: without them a later try would contact them.

    :param execute: False: only count.
    """
    found = Forgotten(row, 0, 0, [])
    has_old_tables = sql_before_3.are_there(database)
    for some in chunks(list(dict.fromkeys(biz_ids))):
        recipients, audience_rows, in_doubt = _forget(
            database, row, some, execute=execute, has_old_tables=has_old_tables
        )
        found.recipients += recipients
        found.audience_rows += audience_rows
        found.in_doubt += in_doubt
    return found


@repeated_after(SerializationFailureError)
def _forget(
    database: Database, row: Generation, biz_ids: Sequence[str], *, execute: bool, has_old_tables: bool
) -> tuple[int, int, list[str]]:
    campaign = row.number
    keys = [halves(biz_id) for biz_id in biz_ids]
    recipients, in_doubt = 0, []
    erasable = dict(zip(keys, biz_ids, strict=True))
    with database.transaction() as run:
        for high, low, state, code, number in run.rows(
            "SELECT recipient.hash_high, recipient.hash_low, recipient.state, request.task_unique_code, "
            "request.intents FROM lingyang_ledger_recipient recipient JOIN lingyang_ledger_request request "
            "ON request.request=recipient.request WHERE recipient.campaign=? "
            f"AND recipient.hash_high IN ({marks(keys)}) AND (recipient.state=? OR {_HOLDS_MORE})",
            [campaign, *(high for high, _ in keys), IN_DOUBT],
        ):
            if (high, low) not in keys:
                continue
            if state == IN_DOUBT:
                in_doubt.append(settle_key(code, number))
                del erasable[high, low]
                continue
            # Not one that a try puts into a request at this moment: a second run names it.
            sql = (
                f"UPDATE lingyang_ledger_recipient SET {_ERASED} WHERE campaign=? AND hash_high=? AND hash_low=? "
                "AND state<>?"
            )
            recipients += run.execute(sql, [campaign, high, low, IN_DOUBT]) if execute else 1
        if has_old_tables:
            this = row.campaign, row.generation
            old = sql_before_3.erase(run, this, erasable.values(), execute=execute)
            recipients = max(recipients, old)
        found = [
            (worker, row_no)
            for worker, row_no, biz_id in run.rows(
                "SELECT worker, row_no, biz_id FROM lingyang_ledger_row "
                f"WHERE campaign=? AND biz_id IN ({marks(biz_ids)})",
                [campaign, *biz_ids],
            )
            if biz_id in biz_ids  # Some databases take upper and lower case for the same.
        ]
        for worker, row_no in found if execute else ():
            run.execute(
                "UPDATE lingyang_ledger_row SET biz_id=NULL, reason=NULL, kept=NULL WHERE campaign=? AND worker=? "
                "AND row_no=?",
                [campaign, worker, row_no],
            )
    return recipients, len(found), sorted(set(in_doubt))
