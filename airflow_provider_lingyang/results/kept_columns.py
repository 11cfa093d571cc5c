"""The columns that a campaign kept of its audience, read from its ledger for the rows of the warehouse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.ledger.sql_tables import halves, kept_columns
from airflow_provider_lingyang.results.completion import PollError
from airflow_provider_lingyang.storage.database import Database, chunks
from airflow_provider_lingyang.storage.query import sql_hook


class KeptColumns:
    """Reads them, page by page.

    :param ledger: what the campaign's manifest says of its ledger; None: there is none in a database.
    """

    def __init__(self, ledger: Mapping[str, Any] | None) -> None:
        self._ledger = ledger or {}
        self.names: Sequence[str] = self._ledger.get("keep_columns") or ()
        self._database: Database | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._database is not None:
            self._database.close()

    def read(self, biz_ids: Sequence[str]) -> dict[str, list[str | None]]:
        """Return the values of recipients, as text, in the order of the names; none of recipients without any.

        :raises PollError: the ledger cannot be read.
        """
        if not self.names or not biz_ids:
            return {}
        if self._database is None:
            conn_id = self._ledger["ledger_conn_id"]
            self._database = Database(sql_hook(conn_id), conn_id)
        keys = {halves(biz_id): biz_id for biz_id in biz_ids}
        found = {}
        try:
            with self._database.transaction() as run:
                for some in chunks(biz_ids):
                    for high, low, kept in run.rows(*kept_columns(self._ledger, some)):
                        if (biz_id := keys.get((high, low))) is not None:
                            values = json.loads(kept)
                            found[biz_id] = [_text(values.get(name)) for name in self.names]
        except LedgerError as error:
            raise PollError(
                f"the columns that the campaign kept cannot be read: {error}", retryable=True
            ) from None
        return found


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
