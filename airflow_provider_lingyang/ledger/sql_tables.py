"""The tables of the ledger in a database: what they hold, how they are made and checked."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from airflow_provider_lingyang.errors import LedgerError, LedgerRefusedError
from airflow_provider_lingyang.identity import digest
from airflow_provider_lingyang.storage.database import Database, UniqueViolationError

# A `worker` is a task instance, an `owner` the fencing token of a process, and `knows_past` tells whether the task
# instance's history is known: the columns keep the names under which earlier versions read and write them.
TABLES = {
    "lingyang_ledger_worker": """
        worker VARCHAR(32) NOT NULL,
        campaign_key VARCHAR(2000) NOT NULL,
        owner VARCHAR(32) NOT NULL,
        knows_past INTEGER NOT NULL,
        ended INTEGER DEFAULT 0 NOT NULL,
        writes BIGINT NOT NULL,
        claimed_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (worker)""",
    "lingyang_ledger_campaign": """
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        campaign_key VARCHAR(2000) NOT NULL,
        plan_id BIGINT NOT NULL,
        host VARCHAR(2000) NOT NULL,
        app_key VARCHAR(200) NOT NULL,
        key_fingerprint VARCHAR(32) NOT NULL,
        identity_version INTEGER,
        finished_by VARCHAR(32),
        finished_max_tries INTEGER,
        opened_at DOUBLE PRECISION NOT NULL,
        facts TEXT,
        PRIMARY KEY (campaign, generation)""",
    "lingyang_ledger_request": """
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        task_unique_code VARCHAR(36) NOT NULL,
        batch_num VARCHAR(100),
        struct_digest VARCHAR(64) NOT NULL,
        written_at DOUBLE PRECISION NOT NULL,
        worker VARCHAR(32) NOT NULL,
        owner VARCHAR(32) NOT NULL,
        writes BIGINT NOT NULL,
        intents INTEGER DEFAULT 1 NOT NULL,
        open_for DOUBLE PRECISION,
        PRIMARY KEY (campaign, generation, task_unique_code)""",
    "lingyang_ledger_recipient": """
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        recipient VARCHAR(32) NOT NULL,
        biz_id TEXT NOT NULL,
        task_unique_code VARCHAR(36) NOT NULL,
        place INTEGER NOT NULL,
        state VARCHAR(12) NOT NULL,
        task_id VARCHAR(20),
        PRIMARY KEY (campaign, generation, recipient),
        UNIQUE (campaign, generation, task_unique_code, place)""",
}
# Its defaults are the server's: an engine without transactions, or a character set without Chinese.
MYSQL_OPTIONS = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"

STATES = ACCEPTED, REJECTED, NOT_EXECUTED, IN_DOUBT = "accepted", "rejected", "not_executed", "in_doubt"
"""Of a recipient."""
_ENFORCES_KEYS: set[str] = set()
"""Connections of which this process knows that."""
THIS = "campaign=? AND generation=?"
SAME_REQUEST = (
    "recipient.campaign=request.campaign AND recipient.generation=request.generation AND "
    "recipient.task_unique_code=request.task_unique_code"
)


def check_keys(database: Database, conn_id: str) -> None:
    """Find out, once in a process, whether the database refuses a key that is there already.

    :raises LedgerRefusedError: it takes keys and does not enforce them: two tasks could have one recipient.
    """
    if conn_id in _ENFORCES_KEYS:
        return
    probe = uuid.uuid4().hex  # of no campaign, and rolled back
    with suppress(UniqueViolationError), database.transaction() as run:
        for place in range(2):
            run.insert(
                "lingyang_ledger_recipient",
                "campaign, generation, recipient, biz_id, task_unique_code, place, state",
                [(probe, 0, probe, "probe", probe, place, NOT_EXECUTED)],
            )
        raise LedgerRefusedError(
            f"the ledger's database (connection {conn_id!r}) took one primary key twice: it does not "
            "enforce keys (Snowflake, Redshift and BigQuery do not), or its tables lost theirs, so it cannot "
            "decide between two tasks. Keep the ledger in PostgreSQL, MySQL, MariaDB or another database "
            "that does"
        )
    _ENFORCES_KEYS.add(conn_id)


def create_tables(database: Database, conn_id: str, options: str) -> None:
    """Create the tables that are missing.

    :param options: what follows each definition in this kind of database.
    :raises LedgerRefusedError: an earlier version of this package made one of them, without a column.
    :raises LedgerError: they cannot be read or created.
    """
    for table, columns in TABLES.items():
        if found := database.columns(table):
            _check_columns(conn_id, table, columns, found)
            continue
        try:
            with database.transaction() as run:
                run.execute(f"CREATE TABLE {table} ({columns}){options}", [])
        except LedgerError as error:
            # Two processes may create it at the same time.
            if not database.has(table):
                raise LedgerError(f"the ledger's table {table} cannot be read or created: {error}") from error


def _check_columns(conn_id: str, table: str, columns: str, found: Sequence[str]) -> None:
    """Raise where an earlier version of this package has made a table, without a column that is needed now."""
    wanted = {line.split()[0]: line.strip(" ,") for line in columns.splitlines() if line.strip()}
    known = {*map(str.lower, found), "primary", "unique"}
    if missing := [wanted[name] for name in wanted if name.lower() not in known]:
        commands = "; ".join(f"ALTER TABLE {table} ADD COLUMN {each.rstrip(',')}" for each in missing)
        raise LedgerRefusedError(
            f"the ledger's table {table} (connection {conn_id!r}) was made by an earlier version and lacks "
            f"{len(missing)} column(s). Finish the campaigns that are open with that version, or add the columns: "
            f"{commands}. Do not drop the tables of an open campaign: they know who was contacted"
        )


def accepted_recipients(
    handle: Mapping[str, Any], placeholder: str, *, of_task_instance: bool
) -> tuple[str, list[Any]]:
    """Return the query, with its parameters, for ``biz_id`` and ``task_id`` of a campaign's accepted recipients.

    :param handle: see :attr:`~airflow_provider_lingyang.ledger.sql.SqlLedger.handle`.
    :param placeholder: the database driver's mark for a parameter.
    :param of_task_instance: only recipients of the handle's task instance, such as one of a mapped task.
    """
    sql = (
        "SELECT recipient.biz_id, recipient.task_id FROM lingyang_ledger_recipient recipient "
        "WHERE recipient.campaign=? AND recipient.generation=? AND recipient.state=?"
    )
    parameters = [
        digest(handle["campaign_key"], handle["plan_id"]),
        handle["generation"],
        ACCEPTED,
    ]
    if of_task_instance:
        sql += f" AND EXISTS (SELECT 1 FROM lingyang_ledger_request request WHERE {SAME_REQUEST} AND request.worker=?)"
        parameters.append(handle["worker"])
    return sql.replace("?", placeholder), parameters
