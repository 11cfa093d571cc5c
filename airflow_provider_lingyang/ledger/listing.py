"""What the tables of :mod:`~airflow_provider_lingyang.ledger.sql` hold, to be shown. Reads, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_lingyang.identity import settle_key
from airflow_provider_lingyang.ledger.migrations import check_version
from airflow_provider_lingyang.ledger.sql_tables import STATES, THIS
from airflow_provider_lingyang.storage.database import Database, chunks, marks


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
        return self._database.has("lingyang_ledger_campaign")

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

    def in_doubt(self, campaign: ListedCampaign) -> Iterator[ListedDoubt]:
        """Yield a campaign's requests in doubt, oldest first.

        :raises LedgerError: the database cannot be read.
        """
        requests = self._rows(
            f"SELECT task_unique_code, batch_num, written_at, intents FROM lingyang_ledger_request WHERE {THIS} "
            "ORDER BY written_at, task_unique_code",
            *_this(campaign),
        )
        for some in chunks(requests):
            left = self._biz_ids(campaign, "in_doubt", [code for code, *_ in some])
            for code, batch_num, written_at, number in some:
                if biz_ids := left.get(code):
                    yield ListedDoubt(code, batch_num, written_at, biz_ids, settle_key(code, number))

    def accepted(self, campaign: ListedCampaign) -> Iterator[str]:
        """Yield the ``biz_id`` of all accepted recipients.

        :raises LedgerError: the database cannot be read.
        """
        requests = self._rows(
            f"SELECT task_unique_code FROM lingyang_ledger_request WHERE {THIS} ORDER BY written_at, task_unique_code",
            *_this(campaign),
        )
        for some in chunks(requests):
            codes = [code for (code,) in some]
            found = self._biz_ids(campaign, "accepted", codes)
            for code in codes:
                yield from found.get(code, ())

    def _counts(self, campaign: str, generation: int) -> dict[str, int]:
        found = self._rows(
            f"SELECT state, count(*) FROM lingyang_ledger_recipient WHERE {THIS} GROUP BY state",
            campaign,
            generation,
        )
        return dict.fromkeys(STATES, 0) | {state: int(count) for state, count in found}

    def _biz_ids(self, campaign: ListedCampaign, state: str, codes: Sequence[str]) -> dict[str, list[str]]:
        """Return the recipients of some requests that are in a state, in the requests' order."""
        found: dict[str, list[str]] = {}
        for code, biz_id in self._rows(
            f"SELECT task_unique_code, biz_id FROM lingyang_ledger_recipient WHERE {THIS} AND state=? "
            f"AND task_unique_code IN ({marks(codes)}) ORDER BY task_unique_code, place",
            *_this(campaign),
            state,
            *codes,
        ):
            found.setdefault(code, []).append(biz_id)
        return found

    def _rows(self, sql: str, *parameters: Any) -> list[Sequence[Any]]:
        with self._database.transaction() as run:
            return run.rows(sql, parameters)


def _this(campaign: ListedCampaign) -> tuple[str, int]:
    return campaign.campaign, campaign.generation
