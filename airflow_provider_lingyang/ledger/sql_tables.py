"""The tables of the ledger in a database: what makes them, and what is shared by all that read them.

Numbered migrations make them on first use. A migration names what must be there after it; what is missing is made, so
it may be run twice, and by two processes at once. It only adds: tables, and columns that may be null or have a default.
A process of an earlier version, which knows none of them, may run beside; no later try of that version begins.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from airflow_provider_lingyang.errors import LedgerError, LedgerRefusedError
from airflow_provider_lingyang.identity import digest
from airflow_provider_lingyang.ledger.base import refuse_newer
from airflow_provider_lingyang.storage.database import Database, UniqueViolationError

STATES = ACCEPTED, REJECTED, NOT_EXECUTED, IN_DOUBT = "accepted", "rejected", "not_executed", "in_doubt"
"""Of a recipient."""
_ENFORCES_KEYS: set[str] = set()
"""Databases of which this process knows that."""
THIS = "campaign=? AND generation=?"
SAME_REQUEST = (
    "recipient.campaign=request.campaign AND recipient.generation=request.generation AND "
    "recipient.task_unique_code=request.task_unique_code"
)
# To add a column, append a migration: one column a line, its first word is the name.
# A `worker` is a task instance, an `owner` the fencing token of a process, and `knows_past` tells whether the task
# instance's history is known: the columns keep the names under which earlier versions read and write them.
MIGRATIONS: Sequence[Mapping[str, str]] = (
    {
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
    },
    {
        # The only task instance whose processes may still send a request. Null: the worker, of a first intent; of a
        # later one, any. Version 1 did not know, so a task waited for others that had sent nothing.
        "lingyang_ledger_request": "only_sender VARCHAR(32)",
        "lingyang_ledger_schema": """
            version INTEGER NOT NULL,
            applied_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (version)""",
    },
)
_SCHEMA = "lingyang_ledger_schema"
# Its defaults are the server's: an engine without transactions, or a character set without Chinese.
_MYSQL_OPTIONS = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"


def migrate(database: Database) -> None:
    """Make what the ledger's tables lack.

    :raises LedgerError: they cannot be read, made or changed; see :func:`version_of`, too.
    """
    version = version_of(database)
    if version < len(MIGRATIONS):
        _run(database, version, _MYSQL_OPTIONS if database.conn_type == "mysql" else "")
        # Not as before: it may have been there without being readable for a moment.
        _version(database)


def version_of(database: Database) -> int:
    """Return the version of the ledger's tables; 0: they have none.

    :raises LedgerRefusedError: a newer version of this package has changed them.
    """
    return _version(database) if database.columns(_SCHEMA) else 0


def _version(database: Database) -> int:
    with database.transaction() as run:
        ((version,),) = run.rows(f"SELECT max(version) FROM {_SCHEMA}", [])
    refuse_newer(version or 0, len(MIGRATIONS), database.name)
    return version or 0


def _run(database: Database, version: int, options: str) -> None:
    for statement in _missing(database, version, options):
        try:
            with database.transaction() as run:
                run.execute(statement, [])
        except LedgerError as error:
            # Another process may have made it at the same time.
            if statement in (left := list(_missing(database, version, options))):
                raise type(error)(
                    f"the ledger's tables cannot be read, made or changed: {error}. Where this account may not do so, "
                    f"have it done by one that may: {'; '.join(left)}. Do not drop the tables of an open campaign: "
                    "they know who was contacted"
                ) from error
    with suppress(UniqueViolationError), database.transaction() as run:
        numbers = range(version + 1, len(MIGRATIONS) + 1)
        run.insert(_SCHEMA, "version, applied_at", [(number, time.time()) for number in numbers])


def _missing(database: Database, version: int, options: str) -> Iterator[str]:
    """Yield the statements that make what tables of a version lack."""
    columns_of: dict[str, set[str]] = {}
    for migration in MIGRATIONS[version:]:
        for table, definition in migration.items():
            columns = {line.split()[0].lower(): line.strip(" ,") for line in definition.strip().splitlines()}
            found = columns_of.setdefault(table, {name.lower() for name in database.columns(table)})
            if not found:
                yield f"CREATE TABLE {table} ({' '.join(definition.split())}){options}"
            else:
                lacking = columns.keys() - found - {"primary", "unique"}
                yield from (f"ALTER TABLE {table} ADD {columns[name]}" for name in columns if name in lacking)
            found.update(columns)


def check_keys(database: Database) -> None:
    """Find out, once in a process, whether the database refuses a key that is there already.

    :raises LedgerRefusedError: it takes keys and does not enforce them: two tasks could have one recipient.
    """
    if database.name in _ENFORCES_KEYS:
        return
    probe = uuid.uuid4().hex  # of no campaign, and rolled back
    with suppress(UniqueViolationError), database.transaction() as run:
        run.insert(
            "lingyang_ledger_recipient",
            "campaign, generation, recipient, biz_id, task_unique_code, place, state",
            [(probe, 0, probe, "probe", probe, place, NOT_EXECUTED) for place in range(2)],
        )
        raise LedgerRefusedError(
            f"{database.name} took one primary key twice: it does not enforce keys (Snowflake, Redshift and BigQuery "
            "do not), or its tables lost theirs, so it cannot decide between two tasks. Keep the ledger in "
            "PostgreSQL, MySQL, MariaDB or another database that does"
        )
    _ENFORCES_KEYS.add(database.name)


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
