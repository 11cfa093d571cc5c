"""The tables of the ledger in a database: what makes them, and what is shared by all that read them.

Numbered migrations make them on first use. A migration names what must be there after it; what is missing is made, so
it may be run twice, and by two processes at once. Version 3 made two tables anew: a process of an earlier version that
still runs can then write no intent any more, and its try ends. No later try of an earlier version begins.
"""

from __future__ import annotations

import struct
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from airflow_provider_lingyang.errors import LedgerError, LedgerRefusedError
from airflow_provider_lingyang.identity import digest, recipient_hash
from airflow_provider_lingyang.ledger.format_version import refuse_newer
from airflow_provider_lingyang.storage.database import (
    Database,
    Transaction,
    UniqueViolationError,
    chunks,
    marks,
)

THIS = "campaign=? AND generation=?"

STATES = ("accepted", "rejected", "not_executed", "in_doubt")
ACCEPTED, REJECTED, NOT_EXECUTED, IN_DOUBT = range(1, 5)
"""Numbers of the states of a recipient: positions in ``STATES``, from 1."""
_ENFORCES_KEYS: set[str] = set()
"""Databases of which this process knows that."""
_REPLACED = ("lingyang_ledger_request", "lingyang_ledger_recipient")
"""Tables that version 3 made anew. Those before keep their rows, under names that no version writes to."""
_UNTIL_3 = "_2"
"""What follows those names."""
# To add a column or a table, append a migration: one column a line, its first word is the name. A column that is added
# may be null, or has a default.
# A `worker` is a task instance, an `owner` the fencing token of a process, and `knows_past` tells whether the task
# instance's history is known: columns keep the names under which earlier versions read and write them.
# A recipient takes little room: it is known by numbers, not texts; what its request has in common stands there.
MIGRATIONS: Mapping[int, Mapping[str, str]] = {
    # It made anew what versions 1 and 2 had made.
    3: {
        "lingyang_ledger_worker": """
            worker VARCHAR(32) NOT NULL,
            campaign_key VARCHAR(2000) NOT NULL,
            owner VARCHAR(32) NOT NULL,
            knows_past INTEGER NOT NULL,
            ended INTEGER DEFAULT 0 NOT NULL,
            writes BIGINT NOT NULL,
            claimed_at DOUBLE PRECISION NOT NULL,
            dag_id VARCHAR(250),
            run_id VARCHAR(250),
            task_id VARCHAR(250),
            map_index INTEGER,
            PRIMARY KEY (worker)""",
        "lingyang_ledger_campaign": """
            campaign VARCHAR(32) NOT NULL,
            generation INTEGER NOT NULL,
            id BIGINT,
            campaign_key VARCHAR(2000) NOT NULL,
            plan_id BIGINT NOT NULL,
            host VARCHAR(2000) NOT NULL,
            app_key VARCHAR(200) NOT NULL,
            key_fingerprint VARCHAR(32) NOT NULL,
            identity_version INTEGER,
            finished_by VARCHAR(32),
            finished_max_tries INTEGER,
            opened_at DOUBLE PRECISION NOT NULL,
            finished_at DOUBLE PRECISION,
            dag_id VARCHAR(250),
            run_id VARCHAR(250),
            facts TEXT,
            PRIMARY KEY (campaign, generation)""",
        # in_doubt: how many recipients are, at most. reached: how many are in doubt, accepted or rejected, at most.
        # only_sender: the only task instance whose processes may still send it. Null: its worker, of a first intent;
        # of a later one, any.
        "lingyang_ledger_request": """
            request BIGINT NOT NULL,
            campaign BIGINT NOT NULL,
            task_unique_code VARCHAR(36) NOT NULL,
            batch_num VARCHAR(100),
            struct_digest VARCHAR(64) NOT NULL,
            written_at DOUBLE PRECISION NOT NULL,
            worker VARCHAR(32) NOT NULL,
            owner VARCHAR(32) NOT NULL,
            writes BIGINT NOT NULL,
            intents INTEGER NOT NULL,
            open_for DOUBLE PRECISION,
            only_sender VARCHAR(32),
            in_doubt INTEGER NOT NULL,
            reached INTEGER NOT NULL,
            answered_at DOUBLE PRECISION,
            request_id VARCHAR(64),
            PRIMARY KEY (request),
            UNIQUE (campaign, worker, request),
            UNIQUE (campaign, in_doubt, request)""",
        # hash_high, hash_low: its recipient_hash().
        "lingyang_ledger_recipient": """
            campaign BIGINT NOT NULL,
            hash_high BIGINT NOT NULL,
            hash_low BIGINT NOT NULL,
            request BIGINT NOT NULL,
            task_id BIGINT,
            place INTEGER NOT NULL,
            state SMALLINT NOT NULL,
            biz_id TEXT NOT NULL,
            reason VARCHAR(250),
            kept TEXT,
            PRIMARY KEY (campaign, hash_high, hash_low),
            UNIQUE (request, place)""",
        # Rows of the audience that are in no request; hash_high and hash_low where the recipient is known. Nothing is
        # decided by them.
        "lingyang_ledger_row": """
            campaign BIGINT NOT NULL,
            worker VARCHAR(32) NOT NULL,
            row_no BIGINT NOT NULL,
            state SMALLINT NOT NULL,
            batch_num VARCHAR(100),
            biz_id TEXT,
            hash_high BIGINT,
            hash_low BIGINT,
            reason VARCHAR(250),
            kept TEXT,
            written_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (campaign, worker, row_no),
            UNIQUE (campaign, hash_high, worker, row_no)""",
        # How far each task instance is that sends a part of a campaign, where they keep one order.
        "lingyang_ledger_shard": """
            campaign BIGINT NOT NULL,
            worker VARCHAR(32) NOT NULL,
            run VARCHAR(32) NOT NULL,
            map_index INTEGER NOT NULL,
            batch VARCHAR(110) NOT NULL,
            since DOUBLE PRECISION NOT NULL,
            writes BIGINT NOT NULL,
            PRIMARY KEY (campaign, worker)""",
        "lingyang_ledger_schema": """
            version INTEGER NOT NULL,
            applied_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (version)""",
    },
    4: {
        # Of one host and App key, for all campaigns, in microseconds since the epoch: see pace.py.
        "lingyang_ledger_pace": """
            pace VARCHAR(32) NOT NULL,
            next_at BIGINT NOT NULL,
            banned_until BIGINT NOT NULL,
            submits_banned_until BIGINT NOT NULL,
            PRIMARY KEY (pace)""",
    },
}
"""What must be there after each; what is missing is made."""
VERSION = max(MIGRATIONS)
_SCHEMA = "lingyang_ledger_schema"
_OPTIONS = {
    # Its defaults are the server's: an engine without transactions, or a character set without Chinese.
    "mysql": " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4",
    # An outcome is written into the page of its intent, and no index changes (HOT).
    "postgres": " WITH (fillfactor=50)",
}


def campaign_id(campaign: str, generation: int) -> int:
    """Return the number of one generation of a campaign."""
    return _number(campaign, generation)


def request_number(campaign: int, task_unique_code: str) -> int:
    """Return the number of a request."""
    return _number(campaign, task_unique_code)


def _number(*parts: object) -> int:
    return struct.unpack(">q", bytes.fromhex(digest(*parts)[:16]))[0]  # type: ignore[no-any-return]


def halves(biz_id: str) -> tuple[int, int]:
    """Return the two numbers that stand for a recipient."""
    return split(recipient_hash(biz_id))


def split(key: bytes) -> tuple[int, int]:
    """Return the two numbers of a :func:`recipient_hash`."""
    high, low = struct.unpack(">qq", key)
    return high, low


def whole(hash_high: int, hash_low: int) -> bytes:
    """Return the :func:`recipient_hash` that :func:`split` has split."""
    return struct.pack(">qq", hash_high, hash_low)


def migrate(database: Database) -> bool:
    """Make what the ledger's tables lack, and move what earlier versions wrote.

    :return: whether they were of an earlier version, or not there.
    :raises LedgerError: they cannot be read, made or changed; see :func:`version_of`, too.
    """
    version = version_of(database)
    if version == VERSION:
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
    refuse_newer(version or 0, VERSION, database.name)
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
    earlier = database.columns(_REPLACED[0] + _UNTIL_3) if version < 3 else []
    try:
        with database.transaction() as run:
            numbers = [number for number in MIGRATIONS if number > version]
            run.insert(_SCHEMA, "version, applied_at", [(number, time.time()) for number in numbers])
            if earlier:
                _move(run, {name.lower() for name in earlier})
    except UniqueViolationError as error:
        # Of two processes at once, the second waits for the first, and finds all rows moved. Else nothing was moved.
        if _version(database) < VERSION:
            raise LedgerRefusedError(
                f"{database.name}: the rows of an earlier version cannot be moved, since two of them have one key, so "
                f"nothing is sent. They are unchanged in {' and '.join(table + _UNTIL_3 for table in _REPLACED)}"
            ) from error


def _missing(database: Database, version: int) -> Iterator[str]:
    """Yield the statements that make what tables of a version lack."""
    options = _OPTIONS.get(database.conn_type or "", "")
    added = chain.from_iterable(tables.items() for number, tables in MIGRATIONS.items() if number > version)
    for table, definition in added:
        found = {name.lower() for name in database.columns(table)}
        if table in _REPLACED and "generation" in found:
            # A process of an earlier version cannot write any more: it would write where no process reads.
            yield f"ALTER TABLE {table} RENAME TO {table}{_UNTIL_3}"
            found = set()
        columns = {line.split()[0].lower(): line.strip(" ,") for line in definition.strip().splitlines()}
        if not found:
            yield f"CREATE TABLE {table} ({' '.join(definition.split())}){options}"
        else:
            lacking = columns.keys() - found - {"primary", "unique"}
            yield from (f"ALTER TABLE {table} ADD {columns[name]}" for name in columns if name in lacking)


def _move(run: Transaction, columns: set[str]) -> None:
    """Move the rows of versions before 3.

    :param columns: of the table of requests; version 1 did not have all.
    """
    kept = ["task_unique_code", "batch_num", "struct_digest", "written_at", "worker", "owner", "writes"]
    kept += [name for name in ("intents", "open_for", "only_sender") if name in columns]
    requests, recipients = (table + _UNTIL_3 for table in _REPLACED)
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


def kept_columns(handle: Mapping[str, Any], biz_ids: Sequence[str]) -> tuple[str, list[Any]]:
    """Return the query, with question marks, and its parameters for the key and ``kept`` of recipients of a campaign.

    :param handle: see :attr:`~airflow_provider_lingyang.ledger.sql.SqlLedger.handle`.
    """
    sql = (
        "SELECT hash_high, hash_low, kept FROM lingyang_ledger_recipient WHERE kept IS NOT NULL AND campaign=? AND "
        f"hash_high IN ({marks(biz_ids)})"
    )
    campaign = campaign_id(digest(handle["campaign_key"], handle["plan_id"]), handle["generation"])
    return sql, [campaign, *(halves(biz_id)[0] for biz_id in biz_ids)]


def accepted_recipients(
    handle: Mapping[str, Any], placeholder: str, *, of_task_instance: bool, among: Sequence[str] = ()
) -> tuple[str, list[Any]]:
    """Return the query, with its parameters, for ``biz_id`` and ``task_id`` of a campaign's accepted recipients.

    :param handle: see :attr:`~airflow_provider_lingyang.ledger.sql.SqlLedger.handle`.
    :param placeholder: the database driver's mark for a parameter.
    :param of_task_instance: only recipients of the handle's task instance, such as one of a mapped task.
    :param among: only these ``biz_id``. Default: all.
    """
    campaign = campaign_id(digest(handle["campaign_key"], handle["plan_id"]), handle["generation"])
    sql = "SELECT recipient.biz_id, recipient.task_id FROM lingyang_ledger_recipient recipient"
    if of_task_instance:
        # By one number, of which each index knows where its rows are: whatever statistics say, no plan of it is slow.
        sql += (
            " JOIN lingyang_ledger_request request ON request.request=recipient.request "
            "WHERE request.campaign=? AND request.worker=? AND recipient.state=?"
        )
        parameters = [campaign, handle["worker"], ACCEPTED]
    else:
        sql += " WHERE recipient.campaign=? AND recipient.state=?"
        parameters = [campaign, ACCEPTED]
    # One that was forgotten has no id any more.
    sql += " AND recipient.biz_id<>''"
    if among:
        # By the table's key: biz_id has no index, and its comparison may ignore case.
        sql += f" AND recipient.hash_high IN ({marks(among)})"
        parameters += [halves(biz_id)[0] for biz_id in among]
    return sql.replace("?", placeholder), parameters
