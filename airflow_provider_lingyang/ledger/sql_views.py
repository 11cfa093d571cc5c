"""The two views of the ledger for people: what they show stays, whatever the tables become.

A later version may add columns at their end. Moments are UTC.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.ledger.sql_tables import ACCEPTED, IN_DOUBT, NOT_EXECUTED, REJECTED
from airflow_provider_lingyang.storage.database import Database

log = logging.getLogger(__name__)

INVALID, EXCLUDED, NOT_SENT = range(5, 8)
"""Numbers of the states of a row that is in no request."""
SHOWN: Mapping[int, str] = {
    ACCEPTED: "accepted",
    REJECTED: "rejected",
    NOT_EXECUTED: "not_sent",
    IN_DOUBT: "in_doubt",
    INVALID: "invalid",
    EXCLUDED: "excluded",
    NOT_SENT: "not_sent",
}
"""What the views call a state."""
_UTC = {
    "postgres": "to_timestamp({}) AT TIME ZONE 'UTC'",
    "mysql": "TIMESTAMP'1970-01-01 00:00:00' + INTERVAL CAST({} * 1000000 AS SIGNED) MICROSECOND",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', {}, 'unixepoch')",
}
"""By ``conn_type``: what makes a timestamp of epoch seconds. Other databases show these."""
_SAME = "other.campaign=line.campaign AND other.hash_high=line.hash_high AND other.hash_low=line.hash_low"
_LATEST = (
    f"NOT EXISTS (SELECT 1 FROM lingyang_ledger_recipient other WHERE {_SAME}) AND "
    f"NOT EXISTS (SELECT 1 FROM lingyang_ledger_row other WHERE {_SAME} AND other.written_at>line.written_at)"
)
"""Whether nothing later is known of a row's recipient: a request, or the row of a later try."""


def views(conn_type: str | None) -> dict[str, str]:
    """Return what each view selects in a kind of database."""
    utc = _UTC.get(conn_type or "", "{}").format

    names = " ".join(f"WHEN {number} THEN '{name}'" for number, name in SHOWN.items())

    def count(number: int) -> str:
        return f"count(CASE WHEN recipient.state={number} THEN 1 END)"

    def rows(number: int) -> str:
        of_campaign = f"FROM lingyang_ledger_row line WHERE line.campaign=campaign.id AND {_LATEST}"
        return f"(SELECT count(*) {of_campaign} AND line.state={number})"

    named = "campaign.campaign_key, campaign.plan_id, campaign.generation"
    source = "worker.dag_id, worker.run_id, worker.task_id, worker.map_index"
    return {
        "lingyang_recipients": f"""
            SELECT {named}, NULLIF(recipient.biz_id, '') AS biz_id, NULL AS row_no,
            CASE recipient.state {names} END AS state, recipient.reason, request.batch_num,
            request.task_unique_code, recipient.task_id AS platform_task_id,
            request.request_id, {utc("request.written_at")} AS written_at,
            {utc("request.answered_at")} AS answered_at, {source}, recipient.kept
            FROM lingyang_ledger_recipient recipient
            JOIN lingyang_ledger_campaign campaign ON campaign.id=recipient.campaign
            JOIN lingyang_ledger_request request ON request.request=recipient.request
            LEFT JOIN lingyang_ledger_worker worker ON worker.worker=request.worker
            UNION ALL
            SELECT {named}, line.biz_id, line.row_no, CASE line.state {names} END, line.reason, line.batch_num,
            NULL, NULL, NULL, {utc("line.written_at")}, NULL, {source}, line.kept
            FROM lingyang_ledger_row line
            JOIN lingyang_ledger_campaign campaign ON campaign.id=line.campaign
            LEFT JOIN lingyang_ledger_worker worker ON worker.worker=line.worker
            WHERE {_LATEST}""",
        "lingyang_campaigns": f"""
            SELECT {named}, campaign.dag_id, campaign.run_id, {utc("campaign.opened_at")} AS started_at,
            {utc("campaign.finished_at")} AS ended_at, {count(ACCEPTED)} AS accepted, {count(REJECTED)} AS rejected,
            {rows(INVALID)} AS invalid, {rows(EXCLUDED)} AS excluded,
            {count(NOT_EXECUTED)} + {rows(NOT_SENT)} AS not_sent, {count(IN_DOUBT)} + {rows(IN_DOUBT)} AS in_doubt
            FROM lingyang_ledger_campaign campaign
            LEFT JOIN lingyang_ledger_recipient recipient ON recipient.campaign=campaign.id
            GROUP BY {named}, campaign.dag_id, campaign.run_id, campaign.opened_at, campaign.finished_at,
            campaign.id""",
    }


def make_views(database: Database) -> None:
    """Make the views anew, as far as this account may: no campaign needs them."""
    for name, select in views(database.conn_type).items():
        statement = f"CREATE VIEW {name} AS {' '.join(select.split())}"
        try:
            with database.transaction() as run:
                run.execute(f"DROP VIEW IF EXISTS {name}", [])
                run.execute(statement, [])
        except LedgerError as error:
            # Another process may have made it at the same time.
            if not database.columns(name):
                log.warning("the view %s cannot be made (%s). Have it made: %s", name, error, statement)
