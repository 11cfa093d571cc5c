"""What only people read in the ledger's tables: rows that are in no request, and why requests are in doubt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.sql_requests import KEYS, first_halves
from airflow_provider_lingyang.ledger.sql_tables import (
    ACCEPTED,
    IN_DOUBT,
    campaign_id,
    halves,
    request_number,
)
from airflow_provider_lingyang.ledger.sql_views import EXCLUDED, INVALID, NOT_SENT
from airflow_provider_lingyang.ledger.unsent_row import UnsentRow
from airflow_provider_lingyang.storage.database import Transaction, chunks, marks

PAGE = 5000
"""Rows of one transaction."""
REASON = 250
"""Characters that are kept of a reason."""
_NUMBERS = {"in_doubt": IN_DOUBT, "invalid": INVALID, "excluded": EXCLUDED, "not_sent": NOT_SENT}


class UnsentRows:
    """Writes rows of one task instance in one generation.

    :param this: the campaign and its generation.
    :param fencing_token: of this process.
    """

    def __init__(
        self, run: Transaction, this: tuple[str, int], task_instance: str, fencing_token: str
    ) -> None:
        self._run = run
        self._campaign = campaign_id(*this)
        self._task_instance = task_instance
        self._fencing_token = fencing_token

    def explain(self, doubts: Mapping[str, str]) -> None:
        """Note why requests of this process are in doubt, where no reason is known.

        :param doubts: ``task_unique_code`` → reason.
        """
        codes = defaultdict(list)
        for code, reason in doubts.items():
            codes[reason].append(request_number(self._campaign, code))
        for reason, numbers in codes.items():
            for some in chunks(numbers):
                own = self._run.rows(
                    f"SELECT request FROM lingyang_ledger_request WHERE owner=? AND request IN ({marks(some)})",
                    [self._fencing_token, *some],
                )
                if own:
                    self._run.execute(
                        "UPDATE lingyang_ledger_recipient SET reason=? WHERE state=? AND reason IS NULL AND request "
                        f"IN ({marks(own)})",
                        [reason[:REASON], IN_DOUBT, *(number for (number,) in own)],
                    )

    def note_reason(self, outcome: Outcome) -> None:
        """Note why the recipients of an outcome are not accepted, where the request is this process's."""
        request = request_number(self._campaign, outcome.task_unique_code)
        others = [*outcome.rejected, *outcome.not_executed, *outcome.in_doubt]
        for some in chunks(first_halves(others)):
            self._run.execute(
                "UPDATE lingyang_ledger_recipient SET reason=? WHERE request=? AND state<>? AND hash_high IN "
                f"({marks(some)}) AND EXISTS "
                "(SELECT 1 FROM lingyang_ledger_request WHERE request=? AND owner=?)",
                [(outcome.reason or "")[:REASON], request, ACCEPTED, *some, request, self._fencing_token],
            )

    def clear(self) -> None:
        """Delete the rows of this task instance."""
        self._run.execute(
            "DELETE FROM lingyang_ledger_row WHERE campaign=? AND worker=?",
            [self._campaign, self._task_instance],
        )

    def write(self, rows: Sequence[UnsentRow], written_at: float) -> None:
        """Write rows, but for recipients that a request holds: they have a line of their own.

        :param rows: :data:`PAGE` of them at most.
        :param written_at: epoch seconds, the same for all rows of a try.
        """
        keys = {row.biz_id: halves(row.biz_id) for row in rows if row.biz_id is not None}
        known: set[tuple[int, int]] = set()
        for some in chunks(list(keys.values()), KEYS):
            known.update(
                (high, low)
                for high, low in self._run.rows(
                    "SELECT hash_high, hash_low FROM lingyang_ledger_recipient WHERE campaign=? AND hash_high IN "
                    f"({marks(some)})",
                    [self._campaign, *(high for high, _ in some)],
                )
            )
        lines = []
        for row in rows:
            biz_id, key = row.biz_id, keys.get(row.biz_id or "")
            if key in known:
                if row.is_recipient:
                    continue
                biz_id = key = None
            lines.append(
                (
                    self._campaign,
                    self._task_instance,
                    row.number,
                    _NUMBERS[row.state],
                    row.batch_num,
                    biz_id,
                    *(key or (None, None)),
                    row.reason[:REASON],
                    row.kept,
                    written_at,
                )
            )
        self._run.insert(
            "lingyang_ledger_row",
            "campaign, worker, row_no, state, batch_num, biz_id, hash_high, hash_low, reason, kept, written_at",
            lines,
        )
