"""Makes the ledger's tables, and moves what earlier versions of this package wrote.

Numbered migrations make them on first use. A migration names what must be there after it; what is missing is made, so
it may be run twice, and by two processes at once. Version 3 made two tables anew: a process of an earlier version that
still runs can then write no intent any more, and its try ends. No later try of an earlier version begins.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from airflow_provider_lingyang.errors import LedgerError, LedgerRefusedError
from airflow_provider_lingyang.ledger import sql_tables as tables
from airflow_provider_lingyang.ledger.format_version import refuse_newer
from airflow_provider_lingyang.ledger.sql_before_3 import REPLACED, UNTIL_3, move
from airflow_provider_lingyang.ledger.sql_tables import (
    NOT_EXECUTED,
    campaign_id,
)
from airflow_provider_lingyang.storage.database import (
    Database,
    UniqueViolationError,
)

_ENFORCES_KEYS: set[str] = set()
"""Databases of which this process knows that."""
_SCHEMA = "lingyang_ledger_schema"
_OPTIONS = {
    # Its defaults are the server's: an engine without transactions, or a character set without Chinese.
    "mysql": " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4",
    # An outcome is written into the page of its intent, and no index changes (HOT).
    "postgres": " WITH (fillfactor=50)",
}


def migrate(database: Database) -> bool:
    """Make what the ledger's tables lack, and move what earlier versions wrote.

    :return: whether they were of an earlier version, or not there.
    :raises LedgerError: they cannot be read, made or changed; see :func:`version_of`, too.
    """
    version = version_of(database)
    if version == tables.VERSION:
        return False
    _run(database, version)
    # Not as before: it may have been there without being readable for a moment.
    _version(database)
    return True


def version_of(database: Database) -> int:
    """Return the version of the ledger's tables; 0: they have none.

    :raises LedgerRefusedError: a newer version of this package has changed them.
    """
    return _version(database) if database.columns(_SCHEMA) else 0


def _version(database: Database) -> int:
    with database.transaction() as run:
        ((version,),) = run.rows(f"SELECT max(version) FROM {_SCHEMA}", [])
    refuse_newer(version or 0, tables.VERSION, database.name)
    return version or 0


def _run(database: Database, version: int) -> None:
    for statement in _missing(database, version):
        try:
            with database.transaction() as run:
                run.execute(statement, [])
        except LedgerError as error:
            # Another process may have made it at the same time.
            if statement in (left := list(_missing(database, version))):
                raise type(error)(
                    f"the ledger's tables cannot be read, made or changed: {error}. Where this account may not do so, "
                    f"have it done by one that may: {'; '.join(left)}. Do not drop the tables of an open campaign: "
                    "they know who was contacted"
                ) from error
    earlier = database.columns(REPLACED[0] + UNTIL_3) if version < 3 else []
    try:
        with database.transaction() as run:
            numbers = [number for number in tables.MIGRATIONS if number > version]
            run.insert(_SCHEMA, "version, applied_at", [(number, time.time()) for number in numbers])
            if earlier:
                move(run, {name.lower() for name in earlier})
    except UniqueViolationError as error:
        # Of two processes at once, the second waits for the first, and finds all rows moved. Else nothing was moved.
        if _version(database) < tables.VERSION:
            raise LedgerRefusedError(
                f"{database.name}: the rows of an earlier version cannot be moved, since two of them have one key, so "
                f"nothing is sent. They are unchanged in {' and '.join(table + UNTIL_3 for table in REPLACED)}"
            ) from error


def _missing(database: Database, version: int) -> Iterator[str]:
    """Yield the statements that make what tables of a version lack."""
    options = _OPTIONS.get(database.conn_type or "", "")
    added: dict[str, str] = {}
    for table, definition in chain.from_iterable(
        made.items() for number, made in tables.MIGRATIONS.items() if number > version
    ):
        # A table's keys stay last.
        added[table] = f"{definition},\n{added[table].lstrip()}" if table in added else definition
    for table, definition in added.items():
        found = {name.lower() for name in database.columns(table)}
        if table in REPLACED and "generation" in found:
            # A process of an earlier version cannot write any more: it would write where no process reads.
            yield f"ALTER TABLE {table} RENAME TO {table}{UNTIL_3}"
            found = set()
        columns = {line.split()[0].lower(): line.strip(" ,") for line in definition.strip().splitlines()}
        if not found:
            yield f"CREATE TABLE {table} ({' '.join(definition.split())}){options}"
        else:
            lacking = columns.keys() - found - {"primary", "unique"}
            yield from (f"ALTER TABLE {table} ADD {columns[name]}" for name in columns if name in lacking)


class _KeyRefusedError(LedgerError):
    """A key is not taken twice, as it should be."""


def check_keys(database: Database) -> None:
    """Find out, once in a process, whether the database refuses a key that is there already.

    :raises LedgerRefusedError: it takes keys and does not enforce them: two tasks could have one recipient.
    """
    if database.name in _ENFORCES_KEYS:
        return
    probe = campaign_id(uuid.uuid4().hex, 0)  # of no campaign, and rolled back
    with suppress(UniqueViolationError, _KeyRefusedError), database.transaction() as run:
        run.insert(
            "lingyang_ledger_recipient",
            "campaign, hash_high, hash_low, request, place, state, biz_id",
            [(probe, 0, 0, probe, place, NOT_EXECUTED, "probe") for place in range(2)],
            or_ignore=database.conn_type,
        )
        ((found,),) = run.rows("SELECT count(*) FROM lingyang_ledger_recipient WHERE campaign=?", [probe])
        if found == 1:
            raise _KeyRefusedError
        raise LedgerRefusedError(
            f"{database.name} took one primary key twice: it does not enforce keys (Snowflake, Redshift and BigQuery "
            "do not), or its tables lost theirs, so it cannot decide between two tasks. Keep the ledger in "
            "PostgreSQL, MySQL, MariaDB or another database that does"
        )
    _ENFORCES_KEYS.add(database.name)
