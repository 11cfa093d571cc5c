"""The tables that version 3 of the ledger's made anew: they keep their rows, under names that no version writes to."""

from __future__ import annotations

from collections import Counter

from airflow_provider_lingyang.ledger.sql_tables import STATES, THIS, campaign_id, request_number, split
from airflow_provider_lingyang.storage.database import Transaction, chunks, marks

REPLACED = ("lingyang_ledger_request", "lingyang_ledger_recipient")
UNTIL_3 = "_2"
"""What follows those names."""


def move(run: Transaction, columns: set[str]) -> None:
    """Move the rows of versions before 3.

    :param columns: of the table of requests; version 1 did not have all.
    """
    kept = ["task_unique_code", "batch_num", "struct_digest", "written_at", "worker", "owner", "writes"]
    kept += [name for name in ("intents", "open_for", "only_sender") if name in columns]
    requests, recipients = (table + UNTIL_3 for table in REPLACED)
    for this in run.rows("SELECT campaign, generation FROM lingyang_ledger_campaign", []):
        number = campaign_id(*this)
        run.execute(f"UPDATE lingyang_ledger_campaign SET id=? WHERE {THIS}", [number, *this])
        for some in chunks(run.rows(f"SELECT {', '.join(kept)} FROM {requests} WHERE {THIS}", this)):
            rows = run.rows(
                f"SELECT task_unique_code, recipient, biz_id, place, state, task_id FROM {recipients} WHERE {THIS} "
                f"AND task_unique_code IN ({marks(some)})",
                [*this, *(row[0] for row in some)],
            )
            run.insert(
                "lingyang_ledger_recipient",
                "campaign, hash_high, hash_low, request, place, state, biz_id, task_id",
                [
                    (
                        number,
                        # As it was written: the id may have been changed by the database.
                        *split(bytes.fromhex(recipient)),
                        request_number(number, code),
                        place,
                        STATES.index(state) + 1,
                        biz_id,
                        None if task_id is None else int(task_id),
                    )
                    for code, recipient, biz_id, place, state, task_id in rows
                ],
            )
            counts = Counter((code, state) for code, _, _, _, state, _ in rows)
            run.insert(
                "lingyang_ledger_request",
                f"request, campaign, in_doubt, reached, {', '.join(kept)}"
                + ("" if "intents" in columns else ", intents"),
                [
                    (
                        request_number(number, row[0]),
                        number,
                        counts[row[0], "in_doubt"],
                        sum(counts[row[0], state] for state in STATES if state != "not_executed"),
                        *row,
                        *(() if "intents" in columns else (1,)),
                    )
                    for row in some
                ],
            )
