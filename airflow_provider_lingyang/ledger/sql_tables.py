"""What is shared by all that read the tables of the ledger in a database."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.identity import digest
from airflow_provider_lingyang.storage.database import Database, UniqueViolationError

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
