"""How much the ledger's tables hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.ledger.sql_before_3 import RECIPIENTS, REPLACED, UNTIL_3, are_there
from airflow_provider_lingyang.ledger.sql_report import generations, moment
from airflow_provider_lingyang.ledger.sql_retention import Retention
from airflow_provider_lingyang.ledger.sql_tables import MIGRATIONS, STATES
from airflow_provider_lingyang.storage.database import Database

_BYTES = {
    "postgres": "SELECT pg_total_relation_size(CAST(? AS regclass))",
    "mysql": "SELECT data_length + index_length FROM information_schema.tables "
    "WHERE table_schema=database() AND table_name=?",
}
"""By ``conn_type``: what a table takes, with its keys. Other databases do not tell."""


def statistics(database: Database, retention: Retention) -> Iterator[tuple[str, int | str | None]]:
    """Yield facts about the tables: name and value.

    :param retention: tells what it would free.
    """
    with database.transaction() as run:
        rows = generations(run)
        yield "campaigns", len({row.campaign for row in rows})
        yield "campaigns finished", len({row.campaign for row in rows if row.finished_by})
        yield "campaigns pruned", len({row.campaign for row in rows if row.pruned})
        yield "oldest campaign", moment(rows[0].opened_at) if rows else None
        yield "newest campaign", moment(rows[-1].opened_at) if rows else None
        for name, table in (("requests", "request"), ("audience rows", "row"), ("task instances", "worker")):
            ((count,),) = run.rows(f"SELECT count(*) FROM lingyang_ledger_{table}", [])
            yield name, int(count)
        ((doubtful,),) = run.rows("SELECT count(*) FROM lingyang_ledger_request WHERE in_doubt>0", [])
        yield "requests in doubt", int(doubtful)
        states = run.rows("SELECT state, count(*) FROM lingyang_ledger_recipient GROUP BY state", [])
        counts = {int(state): int(count) for state, count in states}
        yield "recipients", sum(counts.values())
        for number, state in enumerate(STATES, 1):
            yield f"recipients {state.replace('_', ' ')}", counts.get(number, 0)
    before_3 = are_there(database)
    if before_3:
        with database.transaction() as run:
            ((count,),) = run.rows(f"SELECT count(*) FROM {RECIPIENTS}", [])
        yield (
            f"recipients in {' and '.join(table + UNTIL_3 for table in REPLACED)}, which may be dropped",
            int(count),
        )
    if sql := _BYTES.get(database.conn_type or ""):
        total = 0
        with suppress(LedgerError):  # An account that may not ask.
            tables = {*chain.from_iterable(MIGRATIONS.values())}
            for table in tables | ({table + UNTIL_3 for table in REPLACED} if before_3 else set()):
                with database.transaction() as run:
                    ((size,),) = run.rows(sql, [table])
                total += int(size)
            yield "bytes", total
    freed = [found for found in retention.plan() if not found.stays]
    yield "prune: campaigns deleted", sum(found.closes for found in freed)
    yield "prune: campaigns erased but for keys and states", sum(not found.closes for found in freed)
    yield "prune: recipients", sum(found.recipients for found in freed)
