"""The record as JSON, for tests and demos: ``GET /sandbox/record``.

Keys of the report:

``requests``
    One per request to the router, in order of arrival (left out with ``?requests=0``):
    ``seq`` (counts up, also over a reset) · ``method`` · ``received_at``, ``answered_at`` (epoch seconds: arrival of
    the complete request, answer handed to the network; ``answered_at`` is null without a complete answer) ·
    ``ended_at`` (the same, or when the connection was lost; null while it is open) · ``outcome``: ``executed``,
    ``deduplicated``, ``answered`` (a look-up or the time), ``refused``, ``throttled``, ``fault:KIND``, ``open``,
    ``lost`` (the sandbox was killed meanwhile) or ``crashed`` (a bug of the sandbox) · ``executed`` (whether this
    request contacted recipients, whatever its answer) · ``task_unique_code``, ``batch_num``, ``plan_id`` (null where
    the request has none) · ``biz_ids`` (of the tasks or of the look-up) · ``accepted`` (tasks executed now, or earlier
    under the same code) · ``code``, ``sub_code`` (of the error or the result, also of a lost or damaged answer) ·
    ``request_id``.
``executions``
    ``by_biz_id``, ``by_contact`` (phone number and email each; where there is neither, ``outer_user_id``) and
    ``by_code``: number of executions of each. Above 1, a recipient was contacted twice. Left out with
    ``?executions=0``.
``people``
    One per executed task, in that order (only with ``?people=1``): ``biz_id``, ``phone_number``, ``email``,
    ``plan_id``, ``batch_num``, ``task_unique_code``.
``totals``
    ``requests`` · ``submits``, ``lookups``, ``others`` (by method) · ``executed_requests``, ``executed_tasks`` ·
    ``distinct_biz_ids`` (of executed tasks) · ``duplicate_biz_ids``, ``duplicate_contacts`` (executed more than
    once) · ``deduplicated``, ``refused``, ``throttled``, ``faults`` (requests by outcome) · ``open`` (not answered
    yet) · ``crashed`` · ``order_violations``.
``overlap``
    Whether a request arrived while an earlier ``batch_num`` of its plan was unanswered.
``order_violations``
    ``kind`` ``overlap`` (as above; a request that its client gave up is not unanswered) or ``late`` (a later
    ``batch_num`` of the plan arrived before, answered or not. A second campaign with the same plan and rows settled
    late cause it, too: filter by kind where those are intended) · ``plan_id`` · ``seq``, ``batch_num`` of the request
    out of order · ``other_seq``, ``other_batch_num``.
"""

from __future__ import annotations

import json
from sqlite3 import Connection
from typing import Any

from airflow_provider_lingyang.sandbox import LOOKUP, SUBMIT

_COLUMNS = (
    "seq, method, received_at, answered_at, ended_at, outcome, executed, task_unique_code, batch_num, plan_id,"
    " biz_ids, accepted, code, sub_code, request_id"
)
_CONTACTS = """
    SELECT phone AS contact FROM tasks WHERE phone <> ''
    UNION ALL SELECT email FROM tasks WHERE email <> ''
    UNION ALL SELECT outer_user FROM tasks WHERE phone = '' AND email = ''"""
_PEOPLE = """
    SELECT tasks.biz_id, tasks.phone AS phone_number, tasks.email, requests.plan_id, requests.batch_num,
        requests.task_unique_code
    FROM tasks JOIN requests USING (seq) ORDER BY tasks.number"""
_TOTALS = f"""
    SELECT COUNT(*) AS requests,
        COALESCE(SUM(method = '{SUBMIT}'), 0) AS submits,
        COALESCE(SUM(method = '{LOOKUP}'), 0) AS lookups,
        COALESCE(SUM(method NOT IN ('{SUBMIT}', '{LOOKUP}')), 0) AS others,
        COALESCE(SUM(executed), 0) AS executed_requests,
        (SELECT COUNT(*) FROM tasks) AS executed_tasks,
        (SELECT COUNT(DISTINCT biz_id) FROM tasks) AS distinct_biz_ids,
        (SELECT COUNT(*) FROM (SELECT 1 FROM tasks WHERE biz_id IS NOT NULL GROUP BY biz_id HAVING COUNT(*) > 1))
            AS duplicate_biz_ids,
        (SELECT COUNT(*) FROM (SELECT 1 FROM ({_CONTACTS}) GROUP BY contact HAVING COUNT(*) > 1))
            AS duplicate_contacts,
        COALESCE(SUM(outcome = 'deduplicated'), 0) AS deduplicated,
        COALESCE(SUM(outcome = 'refused'), 0) AS refused,
        COALESCE(SUM(outcome = 'throttled'), 0) AS throttled,
        COALESCE(SUM(outcome LIKE 'fault:%'), 0) AS faults,
        COALESCE(SUM(ended_at IS NULL), 0) AS open,
        COALESCE(SUM(outcome = 'crashed'), 0) AS crashed,
        (SELECT COUNT(*) FROM order_violations) AS order_violations
    FROM requests"""


def report(
    db: Connection, *, requests: bool = True, executions: bool = True, people: bool = False
) -> dict[str, Any]:
    """Return the record as JSON; the module's docstring explains its keys.

    :param db: database of the record.
    :param requests: include the list of requests; with 100,000 tasks it is megabytes.
    :param executions: include the counts per recipient.
    :param people: include all contacted recipients.
    """
    violations = [dict(row) for row in db.execute("SELECT * FROM order_violations ORDER BY seq, other_seq")]
    found: dict[str, Any] = {
        "totals": dict(db.execute(_TOTALS).fetchone()),
        "overlap": any(violation["kind"] == "overlap" for violation in violations),
        "order_violations": violations,
    }
    if executions:
        found["executions"] = {
            "by_biz_id": _counts(db, "SELECT biz_id FROM tasks WHERE biz_id IS NOT NULL", "biz_id"),
            "by_contact": _counts(db, _CONTACTS, "contact"),
            "by_code": _counts(
                db, "SELECT task_unique_code FROM requests WHERE executed", "task_unique_code"
            ),
        }
    if people:
        found["people"] = [dict(row) for row in db.execute(_PEOPLE)]
    if requests:
        rows = db.execute(f"SELECT {_COLUMNS} FROM requests ORDER BY seq")
        found["requests"] = [
            {**dict(row), "executed": bool(row["executed"]), "biz_ids": json.loads(row["biz_ids"])}
            for row in rows
        ]
    return found


def _counts(db: Connection, source: str, column: str) -> dict[str, int]:
    sql = f"SELECT {column}, COUNT(*) FROM ({source}) GROUP BY {column}"
    return {row[0]: row[1] for row in db.execute(sql)}
