"""What the tables of :mod:`~airflow_provider_lingyang.ledger.sql` hold, to be shown. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from airflow_provider_lingyang.identity import settle_key
from airflow_provider_lingyang.ledger.migrations import check_version
from airflow_provider_lingyang.ledger.sql_tables import ACCEPTED, IN_DOUBT, SAME_REQUEST, STATES, THIS
from airflow_provider_lingyang.storage.database import Database


@dataclass(frozen=True, slots=True)
class ListedCampaign:
    """One generation of a campaign.

    :param opened_at: epoch seconds.
    :param counts: recipients in each state.
    """

    campaign: str
    campaign_key: str
    plan_id: int
    generation: int
    opened_at: float
    finished: bool
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class ListedDoubt:
    """A request with recipients in doubt.

    :param written_at: epoch seconds of its intent.
    :param biz_ids: those recipients, in the request's order.
    :param settle_key: what stands for it in ``settle``.
    """

    task_unique_code: str
    batch_num: str | None
    written_at: float
    biz_ids: Sequence[str]
    settle_key: str


class Listing:
    """Reads a ledger's database.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors.
    """

    def __init__(self, hook: Any, conn_id: str) -> None:
        self._database = Database(hook, conn_id)

    def close(self) -> None:
        """Give its connection back."""
        self._database.close()

    def has_tables(self) -> bool:
        """Whether any campaign has used this database.

        :raises LedgerRefusedError: a newer version of this package has.
        :raises LedgerError: there is no connection to it.
        """
        check_version(self._database)
        return bool(self._database.columns("lingyang_ledger_campaign"))

    def campaigns(self, campaign_key: str | None = None, plan_id: int | None = None) -> list[ListedCampaign]:
        """Return campaigns in the order in which they were opened.

        :param campaign_key: only those with this key.
        :param plan_id: only those of this plan.
        :raises LedgerError: the database cannot be read.
        """
        found = self._rows(
            "SELECT campaign, campaign_key, plan_id, generation, opened_at, finished_by FROM lingyang_ledger_campaign "
            "ORDER BY opened_at, campaign, generation"
        )
        return [
            ListedCampaign(
                campaign,
                key,
                plan,
                generation,
                opened_at,
                bool(finished_by),
                self._counts(campaign, generation),
            )
            # Compared here, because some databases take upper and lower case for the same.
            for campaign, key, plan, generation, opened_at, finished_by in found
            if campaign_key in (None, key) and plan_id in (None, plan)
        ]

    def in_doubt(self, campaign: ListedCampaign) -> list[ListedDoubt]:
        """Return a campaign's requests in doubt, oldest first.

        :raises LedgerError: the database cannot be read.
        """
        found = groupby(self._recipients(campaign, IN_DOUBT), lambda row: row[:4])
        return [
            ListedDoubt(code, batch_num, written_at, [row[4] for row in rows], settle_key(code, number))
            for (code, batch_num, written_at, number), rows in found
        ]

    def accepted(self, campaign: ListedCampaign) -> list[str]:
        """Return the ``biz_id`` of all accepted recipients.

        :raises LedgerError: the database cannot be read.
        """
        return [row[4] for row in self._recipients(campaign, ACCEPTED)]

    def _counts(self, campaign: str, generation: int) -> dict[str, int]:
        found = self._rows(
            f"SELECT state, count(*) FROM lingyang_ledger_recipient WHERE {THIS} GROUP BY state",
            campaign,
            generation,
        )
        return dict.fromkeys(STATES, 0) | {state: int(count) for state, count in found}

    def _recipients(self, campaign: ListedCampaign, state: str) -> list[Sequence[Any]]:
        """Return the requests of a campaign, each once for each recipient in a state, oldest first."""
        return self._rows(
            "SELECT request.task_unique_code, request.batch_num, request.written_at, request.intents, recipient.biz_id "
            f"FROM lingyang_ledger_request request JOIN lingyang_ledger_recipient recipient ON {SAME_REQUEST} "
            "WHERE request.campaign=? AND request.generation=? AND recipient.state=? "
            "ORDER BY request.written_at, request.task_unique_code, recipient.place",
            campaign.campaign,
            campaign.generation,
            state,
        )

    def _rows(self, sql: str, *parameters: Any) -> list[Sequence[Any]]:
        with self._database.transaction() as run:
            return run.rows(sql, parameters)
