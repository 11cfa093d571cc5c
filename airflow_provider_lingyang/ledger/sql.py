"""The ledger in tables of a database, behind any ``DbApiHook``.

For every Airflow, for mapped tasks, for campaigns that outlive a DAG run. The tables are created on first use; they
hold ids and codes, so they can be queried. One row of ``lingyang_ledger_recipient`` per recipient and generation, by
its primary key: of two workers that want to send to one recipient, the database refuses one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice

from typing_extensions import override

from airflow_provider_lingyang.errors import LedgerError, LedgerFencedError
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.ledger import pace
from airflow_provider_lingyang.ledger.base import (
    Intent,
    Outcome,
    RecordedRequest,
    Shard,
)
from airflow_provider_lingyang.ledger.sql_claim import SqlClaim
from airflow_provider_lingyang.ledger.sql_requests import RequestRow
from airflow_provider_lingyang.ledger.sql_rows import PAGE, UnsentRows
from airflow_provider_lingyang.ledger.unsent_row import UnsentRow
from airflow_provider_lingyang.storage.database import (
    SerializationFailureError,
    Transaction,
    UniqueViolationError,
    chunks,
    repeated_after,
)


class SqlLedger(SqlClaim):
    """Keeps campaigns in a database; see :class:`SqlClaim` for its parameters."""

    shows_rows = True

    @override
    def history(self, audience: Callable[[], Iterable[bytes]] | None = None) -> Iterator[RecordedRequest]:
        with self._database.transaction() as run:
            requests = self._requests(run)
            rows = requests.read() if audience is None else requests.own_or_in_doubt()
            has_others = audience is not None and requests.has_others()
        if audience is not None and has_others:
            known = {row.task_unique_code for row in rows}
            with self._database.transaction() as run:
                found = self._requests(run).holding(audience())
            rows += [row for row in found if row.task_unique_code not in known]
            rows.sort(key=lambda row: (row.written_at, row.task_unique_code))
        yield from self._load(rows)

    def lend_to(self, limiter: RateLimiter) -> None:
        """Let a rate limit that tasks share through this database use this ledger's connection."""
        self._limiter = limiter
        if isinstance(limiter.pace, pace.SharedPace):
            limiter.pace.lend(self._database)

    @override
    def close(self) -> None:
        if self._limiter is not None and isinstance(self._limiter.pace, pace.SharedPace):
            self._limiter.pace.give_back(self._database)
        super().close()

    @override
    def requests(self, task_unique_codes: Collection[str]) -> Iterator[RecordedRequest]:
        with self._database.transaction() as run:
            rows = self._requests(run).read_codes(task_unique_codes)
        yield from self._load(rows)

    @repeated_after(UniqueViolationError, SerializationFailureError)
    @override
    def report_progress(self, batch: str, *, anew: bool = False) -> Sequence[Shard]:
        with self._transaction() as run:
            return self._campaigns(run).report_progress(batch, self._task_try, anew=anew)

    @override
    def sent_since(self, moment: float) -> Sequence[tuple[str | None, float, int]]:
        with self._database.transaction() as run:
            return self._requests(run).sent_since(moment)

    @override
    def sent_by_others(self) -> Mapping[str | None, float]:
        with self._database.transaction() as run:
            return self._requests(run).sent_by_others()

    def _load(self, rows: Sequence[RequestRow]) -> Iterator[RecordedRequest]:
        for some in chunks(rows):
            with self._database.transaction() as run:
                requests = self._requests(run).load(some, others_may_run=self.others_may_run)
            for request in requests:
                if request.number > 1 or request.in_doubt:
                    self._numbers[request.task_unique_code] = request.number
                yield request

    @repeated_after(SerializationFailureError)
    @override
    def _write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        with self._database.transaction() as run:
            has_token = self._has_token(run)
            if has_token and intents:
                self._campaigns(run).check(self._header, is_first=not self._has_written)
            requests = self._requests(run)
            left = [requests.write_outcome(outcome, has_token=has_token) for outcome in outcomes]
            unwritten = [outcome for outcome in left if outcome is not None]
            if has_token and not unwritten:
                # Before the commit, whose answer may be lost.
                self._numbers |= requests.write_intents(intents, self._skipped)
        if not has_token:
            raise self._replaced(unwritten)
        if unwritten:
            raise self._taken_over(unwritten[0].task_unique_code, unwritten)
        self._has_written = self._has_written or bool(intents)
        self._note_reasons(outcomes)

    def _note_reasons(self, outcomes: Sequence[Outcome]) -> None:
        # Apart: a database that cannot take the gateway's text must not lose the outcome with it.
        explained = [
            each for each in outcomes if each.reason and (each.rejected or each.not_executed or each.in_doubt)
        ]
        if explained:
            with suppress(LedgerError), self._transaction() as run:
                for outcome in explained:
                    self._unsent(run).note_reason(outcome)

    @repeated_after(SerializationFailureError)
    @override
    def _own_doubts(self, intents: Sequence[Intent]) -> Mapping[str, Sequence[str]]:
        # Waits for a commit of this process that is still under way on a connection which broke.
        with self._transaction() as run:
            return {
                request.task_unique_code: request.in_doubt
                for intent in intents
                for request in self._requests(run).recorded(
                    [
                        row
                        for row in self._requests(run).read_codes([intent.task_unique_code])
                        if row.owner == self._fencing_token
                    ]
                )
            }

    @repeated_after(SerializationFailureError)
    @override
    def renew(self, intents: Sequence[Intent]) -> None:
        with self._transaction() as run:
            for intent in intents:
                if not self._requests(run).owns(intent.task_unique_code):
                    raise self._taken_over(intent.task_unique_code)

    @repeated_after(SerializationFailureError)
    @override
    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        with self._transaction() as run:
            for code in task_unique_codes:
                # Only the intent that this try has read of: a word or a look-up about it says nothing of a later one.
                known = self._numbers.get(code)
                if not self._requests(run).take_over(code, known) and known is not None:
                    raise LedgerFencedError(
                        f"the request {code} was sent again by another task of the same campaign, or settled by a "
                        "command, meanwhile"
                    )

    @repeated_after(SerializationFailureError)
    @override
    def end_others(self, task_unique_codes: Collection[str], too_early: Collection[str] = ()) -> None:
        numbers = self._numbers.copy()
        with self._transaction() as run:
            for code in task_unique_codes:
                number = self.number(code) + (code in too_early)
                # Not one that another task has taken over meanwhile: that one may send it again.
                if self._requests(run).end(code, number):
                    numbers[code] = number
        self._numbers = numbers
        self.others_may_run = False

    @override
    def explain(self, rows: Iterator[UnsentRow], doubts: Mapping[str, str]) -> None:
        written_at = time.time()
        with self._transaction() as run:
            unsent = self._unsent(run)
            unsent.explain(doubts)
            unsent.clear()
        while some := list(islice(rows, PAGE)):
            with self._transaction() as run:
                self._unsent(run).write(some, written_at)

    def _unsent(self, run: Transaction) -> UnsentRows:
        return UnsentRows(run, self._this, self._task_instance, self._fencing_token)

    def _taken_over(self, code: str, unwritten: Sequence[Outcome] | None = None) -> LedgerFencedError:
        return LedgerFencedError(
            f"the request {code} was taken over by another task of the same campaign", unwritten
        )
