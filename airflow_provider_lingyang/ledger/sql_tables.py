"""The tables of the ledger in a database, and what is shared by all that read them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_lingyang.identity import digest, recipient_hash
from airflow_provider_lingyang.storage.database import (
    marks,
)

THIS = "campaign=? AND generation=?"

STATES = ("accepted", "rejected", "not_executed", "in_doubt")
ACCEPTED, REJECTED, NOT_EXECUTED, IN_DOUBT = range(1, 5)
"""Numbers of the states of a recipient: positions in ``STATES``, from 1."""
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
    5: {
        # 1: nothing is left of the task instance's part; 0: something may be; null: its last try was of a version
        # before.
        "lingyang_ledger_worker": "finished INTEGER",
    },
}
"""What must be there after each; what is missing is made."""
VERSION = max(MIGRATIONS)


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
