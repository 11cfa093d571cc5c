"""Campaigns and their generations in the ledger's tables, within one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from airflow_provider_lingyang.errors import LedgerFencedError
from airflow_provider_lingyang.ledger.base import Header, Shard
from airflow_provider_lingyang.ledger.opening import Opened, changed_settings, in_doubt
from airflow_provider_lingyang.ledger.sql_requests import RequestRows
from airflow_provider_lingyang.ledger.sql_tables import (
    IN_DOUBT,
    NOT_EXECUTED,
    THIS,
    campaign_id,
    request_number,
)
from airflow_provider_lingyang.ledger.task_try import TaskTry
from airflow_provider_lingyang.storage.database import Transaction, chunks, marks


class CampaignRows:
    """Reads and writes the rows of one campaign.

    :param this: the campaign and the generation that this process has opened.
    """

    def __init__(self, run: Transaction, this: tuple[str, int], task_instance: str) -> None:
        self._run = run
        self._this = this
        self._task_instance = task_instance

    def hold(self) -> None:
        """Let no other task instance begin with a generation, or end it, until the transaction ends."""
        self._run.execute(
            "UPDATE lingyang_ledger_campaign SET opened_at=opened_at WHERE campaign=?", self._this[:1]
        )

    def latest(self) -> Opened | None:
        """Return the latest generation; it answers questions within the transaction only."""
        rows = self._run.rows(
            "SELECT generation, host, app_key, plan_id, key_fingerprint, identity_version, facts, finished_by, "
            "finished_max_tries FROM lingyang_ledger_campaign WHERE campaign=? ORDER BY generation",
            self._this[:1],
        )
        if not rows:
            return None
        generation, host, app_key, plan_id, fingerprint, identity_version, facts, *finished = rows[-1]
        requests = RequestRows(self._run, (self._this[0], generation), self._task_instance)
        return Opened(
            generation,
            Header(host, app_key, plan_id, fingerprint, identity_version or 1),
            (finished[0], finished[1]) if finished[0] else None,
            requests.has_reached,
            lambda: in_doubt(requests.recorded(requests.in_doubt())),
            requests.has_others,
            json.loads(facts or "{}"),
        )

    def check(self, header: Header | None, *, is_first: bool) -> None:
        """Find out whether the campaign is still sent as this process has opened it.

        :param is_first: whether this process has written no intent yet.
        :raises LedgerFencedError: it is not.
        """
        if is_first:
            # Against a generation that begins at the same moment. Settings change behind this task instance's own row.
            self.hold()
        found = self.latest()
        if found is None:
            raise LedgerFencedError("the ledger was emptied")
        if found.generation != self._this[1]:
            raise LedgerFencedError(
                "the campaign was started anew meanwhile (on_clear='resubmit' of another task)"
            )
        if header is not None and changed_settings(found.header, header):
            raise LedgerFencedError(
                "the campaign is sent with another host, App key or secret meanwhile, by another task"
            )

    def begin(self, campaign_key: str, header: Header, task_try: TaskTry) -> None:
        """Insert the generation.

        :param task_try: of which DAG and run the campaign is shown to be.
        """
        # The header's fields are columns.
        values = {
            "id": campaign_id(*self._this),
            "campaign_key": campaign_key,
            "opened_at": time.time(),
            "dag_id": task_try.dag_id,
            "run_id": task_try.run_id,
            **asdict(header),
        }
        self._run.insert(
            "lingyang_ledger_campaign",
            ", ".join(("campaign", "generation", *values)),
            [[*self._this, *values.values()]],
        )

    def go_on(self, header: Header, settled: Sequence[str]) -> None:
        """Go on with the generation, under settings that may be others.

        :param settled: :func:`settle_key` of requests in doubt that were not executed.
        """
        campaign = campaign_id(*self._this)
        for some in chunks([request_number(campaign, key.partition("#")[0]) for key in settled]):
            self._run.execute(
                f"UPDATE lingyang_ledger_request SET in_doubt=0, reached=0 WHERE request IN ({marks(some)})",
                some,
            )
            self._run.execute(
                "UPDATE lingyang_ledger_recipient SET state=?, reason=? WHERE state=? AND "
                f"request IN ({marks(some)})",
                [NOT_EXECUTED, "a person says that it was not executed", IN_DOUBT, *some],
            )
        self.update(finished_by=None, finished_max_tries=None, finished_at=None, **asdict(header))

    def report_progress(self, batch: str, task_try: TaskTry, *, anew: bool) -> list[Shard]:
        """Note which batch this task instance sends next; return how far all are; see ``Ledger.report_progress``."""
        this = campaign_id(*self._this), self._task_instance
        # Other runs with this campaign_key keep an order of their own.
        run_key, now = task_try.run_key, time.time()
        changed = self._run.execute(
            # In this order, for MySQL: it takes the new value for what follows.
            "UPDATE lingyang_ledger_shard SET since=CASE WHEN batch=? THEN since ELSE ? END, batch=?, writes=writes+1 "
            "WHERE campaign=? AND worker=?",
            ["!" if anew else batch, now, batch, *this],
        )
        if not changed:
            self._run.insert(
                "lingyang_ledger_shard",
                "campaign, worker, run, map_index, batch, since, writes",
                [(*this, run_key, task_try.map_index, batch, now, 1)],
            )
        rows = self._run.rows(
            "SELECT worker, map_index, batch, since FROM lingyang_ledger_shard WHERE campaign=? AND run=? "
            "ORDER BY map_index",
            [this[0], run_key],
        )
        return [Shard(index, at, since, worker == self._task_instance) for worker, index, at, since in rows]

    def facts(self) -> dict[str, Any]:
        """Return what is noted about the generation."""
        ((text,),) = self._run.rows(f"SELECT facts FROM lingyang_ledger_campaign WHERE {THIS}", self._this)
        facts: dict[str, Any] = json.loads(text or "{}")
        return facts

    def update(self, **values: Any) -> None:
        """Replace values of the generation's row."""
        columns = ", ".join(f"{name}=?" for name in values)
        self._run.execute(
            f"UPDATE lingyang_ledger_campaign SET {columns} WHERE {THIS}",
            [*values.values(), *self._this],
        )
