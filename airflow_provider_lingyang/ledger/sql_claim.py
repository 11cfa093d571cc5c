"""A campaign in tables of a database: claimed by one process of a task instance, opened, held, released."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from typing_extensions import override

from airflow_provider_lingyang.errors import LedgerFencedError, LedgerRefusedError
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.identity import digest
from airflow_provider_lingyang.ledger.base import (
    GIVEN_TOO_EARLY,
    WRITTEN_WITHIN,
    FactsChange,
    Header,
    Ledger,
    Opening,
    Outcome,
)
from airflow_provider_lingyang.ledger.opening import opening_of
from airflow_provider_lingyang.ledger.sql_campaigns import CampaignRows
from airflow_provider_lingyang.ledger.sql_migrations import check_keys, migrate
from airflow_provider_lingyang.ledger.sql_requests import RequestRow, RequestRows
from airflow_provider_lingyang.ledger.sql_tables import campaign_id
from airflow_provider_lingyang.ledger.sql_views import make_views
from airflow_provider_lingyang.ledger.task_try import TaskTry
from airflow_provider_lingyang.storage.database import (
    Database,
    SerializationFailureError,
    Transaction,
    UniqueViolationError,
    repeated_after,
)


class SqlClaim(Ledger):
    """Claims a task instance's part of a campaign in a database, opens the campaign and closes it.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors and for others to read the ledger.
    :param campaign_key: whose campaign.
    :param task_try: which try this is.
    """

    is_durable = True
    found_lost_before = False

    def __init__(self, hook: Any, conn_id: str, campaign_key: str, task_try: TaskTry) -> None:
        super().__init__()
        self._database = Database(hook, conn_id)
        self._conn_id = conn_id
        self._campaign_key = campaign_key
        self._task_try = task_try
        self._task_instance = digest(campaign_key, task_try.task_instance_key)
        self._fencing_token = uuid.uuid4().hex
        self._this = "", 1
        """The campaign and its generation."""
        self._header: Header | None = None
        self._limiter: RateLimiter | None = None
        self._has_claimed = self._has_written = False
        self._is_first = False
        """Whether no earlier process of this task instance has claimed it."""

    @property
    @override
    def handle(self) -> dict[str, Any] | None:
        """How others can read it: the connection, which campaign of its tables, and which of its task instances."""
        return {
            "ledger_conn_id": self._conn_id,
            "campaign_key": self._campaign_key,
            "plan_id": self._header.plan_id if self._header is not None else 0,
            "generation": self._this[1],
            # Manifests are read by other versions: the name stays.
            "worker": self._task_instance,
        }

    @repeated_after(UniqueViolationError, SerializationFailureError)
    @override
    def claim(self) -> bool:
        if migrate(self._database):
            make_views(self._database)
        check_keys(self._database)
        now = time.time()
        with self._database.transaction() as run:
            known = self._change_own_row(
                run, "owner=?, writes=writes+1, claimed_at=?", self._fencing_token, now
            )
            if not known:
                # Noted before the commit, whose answer may be lost: the next attempt finds this very row.
                self._is_first = True
                known_history = int(not self._task_try.has_history)
                run.insert(
                    "lingyang_ledger_worker",
                    "worker, campaign_key, owner, knows_past, writes, claimed_at",
                    [(self._task_instance, self._campaign_key, self._fencing_token, known_history, 1, now)],
                )
            ((knows, ended),) = run.rows(
                "SELECT knows_past, ended FROM lingyang_ledger_worker WHERE worker=?", [self._task_instance]
            )
            this = self._task_try
            self._change_own_row(
                run,
                "ended=0, finished=0, dag_id=?, run_id=?, task_id=?, map_index=?",
                this.dag_id,
                this.run_id,
                this.task_id,
                this.map_index,
            )
        self.others_may_run = not ended if known else self._task_try.has_history
        self.found_lost_before = not knows and not self._is_first
        self._has_claimed = True
        return bool(knows)

    @override
    def mark_history_known(self) -> None:
        with self._transaction() as run:
            self._change_own_row(run, "knows_past=1")

    @override
    def has_begun(self, plan_id: int) -> bool:
        with self._database.transaction() as run:
            # Of any generation: the next one goes on from a Clear of this one.
            # A shard has begun, too, that waits for its turn.
            return any(
                run.exists(
                    f"SELECT 1 FROM lingyang_ledger_{table} WHERE worker=? AND campaign IN "
                    "(SELECT id FROM lingyang_ledger_campaign WHERE campaign=?)",
                    [self._task_instance, digest(self._campaign_key, plan_id)],
                )
                for table in ("request", "shard")
            )

    @override
    def open(
        self,
        header: Header,
        *,
        resubmit: bool = False,
        not_executed: Collection[str] = frozenset(),
        wait: Callable[[float], None] = time.sleep,
    ) -> Opening:
        self._this = digest(self._campaign_key, header.plan_id), 1
        enter = partial(self._enter, header, resubmit=resubmit, not_executed=not_executed)
        opening = enter(others_ended=False)
        if opening.changed:
            # Read after the fence: what they were about to write is there, so that it is decided about, too.
            with self._database.transaction() as run:
                begun = [
                    row
                    for row in self._requests(run).in_doubt()
                    if row.others_may_send(self._task_instance, others_may_run=self.others_may_run)
                ]
            if begun:
                wait(WRITTEN_WITHIN + max(row.seconds_open for row in begun))
                self._end_fenced(begun)
            try:
                opening = enter(others_ended=True)
            except LedgerRefusedError as error:
                if not begun:
                    raise
                raise LedgerRefusedError(f"{GIVEN_TOO_EARLY}. {error}") from None
        self._header = header
        return opening

    @repeated_after(UniqueViolationError, SerializationFailureError)
    def _enter(
        self, header: Header, *, resubmit: bool, not_executed: Collection[str], others_ended: bool
    ) -> Opening:
        """Decide on a generation, and begin with it; where settings changed, fence others first, and no more."""
        with self._transaction() as run:
            if others_ended:
                # A process that is about to write has done so before this, or sees the new settings after it.
                run.execute(
                    "UPDATE lingyang_ledger_worker SET writes=writes+1 WHERE campaign_key=?",
                    [self._campaign_key],
                )
            campaigns = self._campaigns(run)
            # Before the first SELECT: some databases show the whole transaction what was there at that time.
            campaigns.hold()
            found = campaigns.latest()
            opening = opening_of(found, header, self._task_try, resubmit=resubmit, not_executed=not_executed)
            header = replace(header, identity_version=opening.identity_version)
            self._this = self._this[0], opening.generation
            if opening.changed and not others_ended:
                # Processes that have sent with the settings before: their next requests would go there, too.
                run.execute(
                    "UPDATE lingyang_ledger_worker SET owner=? WHERE worker<>? AND owner IN "
                    "(SELECT owner FROM lingyang_ledger_request WHERE campaign=?)",
                    ["", self._task_instance, campaign_id(*self._this)],
                )
                return opening
            self._begin_with(opening)
            if found is not None and found.generation == opening.generation:
                self._campaigns(run).go_on(header, opening.settled)
            else:
                self._campaigns(run).begin(self._campaign_key, header, self._task_try)
        return opening

    @repeated_after(SerializationFailureError)
    def _end_fenced(self, begun: Sequence[RequestRow]) -> None:
        with self._transaction() as run:
            for row in begun:
                # A word that was given before is about the request no more.
                self._requests(run).end(row.task_unique_code, row.intents + 1, row.owner)

    @override
    def fact(self, name: str) -> Any:
        with self._database.transaction() as run:
            return self._campaigns(run).facts().get(name)

    @repeated_after(SerializationFailureError)
    @override
    def _change_facts(self, change: FactsChange) -> None:
        with self._transaction() as run:
            campaigns = self._campaigns(run)
            # Other task instances note facts of their own in the same row.
            campaigns.hold()
            facts = change(campaigns.facts())
            campaigns.update(facts=json.dumps(facts))
        self._facts = facts

    @repeated_after(SerializationFailureError)
    @override
    def finish(self) -> None:
        with self._transaction() as run:
            self._campaigns(run).update(
                finished_by=self._task_try.task_instance_key,
                finished_max_tries=self._task_try.max_tries,
                finished_at=time.time(),
            )
            self._change_own_row(run, "finished=1")

    @repeated_after(SerializationFailureError)
    @override
    def leave(self, plan_id: int) -> None:
        if self.has_begun(plan_id):
            return
        with self._transaction() as run:
            self._change_own_row(run, "finished=1")

    @override
    def release(self) -> None:
        if self.others_may_run or not self._has_claimed:
            # What was before this process, nothing has ended.
            return
        with self._database.transaction() as run:
            if self._has_token(run):
                self._change_own_row(run, "ended=1")

    @override
    def close(self) -> None:
        self._database.close()

    def _campaigns(self, run: Transaction) -> CampaignRows:
        return CampaignRows(run, self._this, self._task_instance)

    def _requests(self, run: Transaction) -> RequestRows:
        return RequestRows(run, self._this, self._task_instance, self._fencing_token)

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        """Run statements, all or nothing, while no other process takes this one's part over."""
        with self._database.transaction() as run:
            if not self._has_token(run):
                raise self._replaced()
            yield run

    def _has_token(self, run: Transaction) -> bool:
        # First in each transaction, and a write: it holds the row against a taker-over until the transaction ends.
        sql = "UPDATE lingyang_ledger_worker SET writes=writes+1 WHERE worker=? AND owner=?"
        return bool(run.execute(sql, [self._task_instance, self._fencing_token]))

    def _change_own_row(self, run: Transaction, changes: str, *values: Any) -> bool:
        """Return whether this task instance has a row."""
        sql = f"UPDATE lingyang_ledger_worker SET {changes} WHERE worker=?"
        return bool(run.execute(sql, [*values, self._task_instance]))

    def _replaced(self, unwritten: Sequence[Outcome] | None = None) -> LedgerFencedError:
        return LedgerFencedError(
            f"the ledger on connection {self._conn_id!r} was taken over by another try of this task, or emptied",
            unwritten,
        )
