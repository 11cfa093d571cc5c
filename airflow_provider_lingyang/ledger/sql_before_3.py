"""The tables that version 3 of the ledger's made anew: they keep their rows, under names that no version writes to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.sql_tables import STATES, THIS, campaign_id, request_number, split
from airflow_provider_lingyang.storage.database import Database, Transaction, chunks, marks

REPLACED = ("lingyang_ledger_request", "lingyang_ledger_recipient")
UNTIL_3 = "_2"
"""What follows those names."""
_REQUESTS, RECIPIENTS = (table + UNTIL_3 for table in REPLACED)


def are_there(database: Database) -> bool:
    """Return whether the database still has them."""
    return bool(database.columns(RECIPIENTS))


def count(run: Transaction, this: tuple[str, int]) -> int:
    """Return how many recipients of one generation of a campaign they name."""
    sql = f"SELECT count(*) FROM {RECIPIENTS} WHERE {THIS} AND biz_id<>''"
    return int(run.rows(sql, this)[0][0])


def erase(run: Transaction, this: tuple[str, int], biz_ids: Collection[str], *, execute: bool) -> int:
    """Erase the ids of some recipients of one generation; return how many these are.

    :param execute: False: only count.
    """
    keys = [recipient_hash(biz_id).hex() for biz_id in biz_ids]
    if not keys:
        return 0
    where = f"WHERE {THIS} AND biz_id<>'' AND recipient IN ({marks(keys)})"
    parameters = [*this, *keys]
    if not execute:
        return int(run.rows(f"SELECT count(*) FROM {RECIPIENTS} {where}", parameters)[0][0])
    return run.execute(f"UPDATE {RECIPIENTS} SET biz_id='', task_id=NULL {where}", parameters)


def deletions(run: Transaction, this: tuple[str, int]) -> Iterator[list[tuple[str, list[object]]]]:
    """Yield, for one transaction each, the statements that delete one generation. Nothing reads these rows any more."""
    for some in chunks(run.rows(f"SELECT task_unique_code FROM {_REQUESTS} WHERE {THIS}", this)):
        where = f"WHERE {THIS} AND task_unique_code IN ({marks(some)})"
        parameters = [*this, *(code for (code,) in some)]
        yield [(f"DELETE FROM {table} {where}", parameters) for table in (RECIPIENTS, _REQUESTS)]


def move(run: Transaction, columns: set[str]) -> None:
    """Move the rows of versions before 3.

    :param columns: of the table of requests; version 1 did not have all.
    """
    kept = ["task_unique_code", "batch_num", "struct_digest", "written_at", "worker", "owner", "writes"]
    kept += [name for name in ("intents", "open_for", "only_sender") if name in columns]
    for this in run.rows("SELECT campaign, generation FROM lingyang_ledger_campaign", []):
        number = campaign_id(*this)
        run.execute(f"UPDATE lingyang_ledger_campaign SET id=? WHERE {THIS}", [number, *this])
        for some in chunks(run.rows(f"SELECT {', '.join(kept)} FROM {_REQUESTS} WHERE {THIS}", this)):
            rows = run.rows(
                f"SELECT task_unique_code, recipient, biz_id, place, state, task_id FROM {RECIPIENTS} WHERE {THIS} "
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
