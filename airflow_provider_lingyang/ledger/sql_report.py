"""What the ledger's tables say of campaigns, read for a person. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.identity import settle_key
from airflow_provider_lingyang.ledger.base import WRITTEN_WITHIN
from airflow_provider_lingyang.ledger.opening import PRUNED
from airflow_provider_lingyang.ledger.sql_migrations import version_of
from airflow_provider_lingyang.ledger.sql_requests import RequestRow, RequestRows
from airflow_provider_lingyang.ledger.sql_tables import (
    ACCEPTED,
    IN_DOUBT,
    VERSION,
    campaign_id,
    request_number,
)
from airflow_provider_lingyang.ledger.sql_views import SHOWN
from airflow_provider_lingyang.storage.database import Database, Transaction


class Generation(NamedTuple):
    """A row of ``lingyang_ledger_campaign``: the columns that are read, by their names there."""

    campaign: str
    generation: int
    campaign_key: str
    plan_id: int
    key_fingerprint: str
    identity_version: int | None
    finished_by: str | None
    opened_at: float
    finished_at: float | None
    dag_id: str | None
    run_id: str | None
    facts: str | None

    @property
    def number(self) -> int:
        """What stands for it in the other tables."""
        return campaign_id(self.campaign, self.generation)

    @property
    def pruned(self) -> str | None:
        """When its recipients were removed, or None."""
        return json.loads(self.facts or "{}").get(PRUNED)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class TaskInstance:
    """A row of ``lingyang_ledger_worker``.

    :param owner: the fencing token of its latest process.
    :param ended: whether that process has noted that no process of the task instance sends anything more.
    :param finished: whether it has noted that nothing is left of the task instance's part; None: it was of a version
        that notes no such thing.
    :param name: what it is called in messages.
    :param default_key: the ``campaign_key`` that it has without one of its own; None: it is not known.
    """

    worker: str
    owner: str
    ended: bool
    finished: bool | None
    claimed_at: float
    name: str
    default_key: str | None


def check_version(database: Database) -> None:
    """Find out whether there are tables of this version.

    :raises LedgerError: there are none that can be read, or they are of an earlier version.
    :raises LedgerRefusedError: they are of a newer version.
    """
    if not database.columns("lingyang_ledger_campaign"):
        raise LedgerError(
            f"no campaign has used this database yet: {database.name} has no table lingyang_ledger_campaign that can "
            "be read"
        )
    found = version_of(database)
    if found != VERSION:
        raise LedgerError(
            f"the tables in {database.name} are of version {found or 1}: the next try of a task with this version of "
            "the package makes them those of "
            f"version {VERSION}. Until then use the commands of the version before"
        )


def generations(
    run: Transaction, campaign_key: str | None = None, plan_id: int | None = None
) -> list[Generation]:
    """Return campaigns, each generation by itself, in the order in which they were opened."""
    rows = run.rows(
        f"SELECT {', '.join(Generation._fields)} FROM lingyang_ledger_campaign "
        "ORDER BY opened_at, campaign, generation",
        [],
    )
    # Compared here, because some databases take upper and lower case for the same.
    return [
        row
        for row in (Generation(*row) for row in rows)
        if campaign_key in (None, row.campaign_key) and plan_id in (None, row.plan_id)
    ]


def task_instances(run: Transaction, campaign_key: str) -> dict[str, TaskInstance]:
    """Return the task instances that have claimed a campaign, by their key in the tables."""
    rows = run.rows(
        "SELECT worker, owner, ended, finished, claimed_at, dag_id, run_id, task_id, map_index, campaign_key "
        "FROM lingyang_ledger_worker WHERE campaign_key=?",
        [campaign_key],
    )
    found = {}
    for worker, owner, ended, finished, claimed_at, dag_id, run_id, task_id, map_index, key in rows:
        if key != campaign_key:
            continue
        # Versions before 3 wrote no names.
        name = f"{dag_id}/{run_id}/{task_id}" if dag_id is not None else None
        index = f" [{map_index}]" if map_index is not None and map_index >= 0 else ""
        shown = f"{name}{index}" if name else "a task instance"
        done = None if finished is None else bool(finished)
        found[worker] = TaskInstance(worker, owner, bool(ended), done, float(claimed_at), shown, name)
    return found


def seconds_open(row: RequestRow) -> float:
    """Return for how many seconds after a take-over a request may still be sent, and its answer be written."""
    return row.seconds_open + WRITTEN_WITHIN


def still_open(row: RequestRow, instances: Mapping[str, TaskInstance]) -> str:
    """Return why a process may still send a request in doubt, or decide about it; empty: none can.

    Both of these must be proven:

    - No process can send this intent. Either a try has noted so after it had waited for the others (``open_for`` is 0),
      or all task instances whose processes may hold it have noted their end: its only sender where one is known, else
      every one of the campaign.
    - No living process owns the request: it would decide about it at this moment. An owner that is no task instance's
      any more was replaced, and can write nothing but accepted recipients.

    Time alone proves nothing: a paused process may renew its intent until another one takes the request over.

    :param instances: see :func:`task_instances`.
    """
    alive = {one.name for one in instances.values() if one.owner == row.owner and not one.ended}
    if row.open_for != 0:
        sender = row.sender
        if not instances or (sender is not None and sender not in instances):
            return "the ledger has lost the task instance that wrote it"
        alive |= {one.name for one in instances.values() if sender in (None, one.worker) and not one.ended}
    if not alive:
        return ""
    more = f" and {len(alive) - 1} more" if len(alive) > 1 else ""
    return f"{min(alive)}{more} has not noted its end, and a process of it may still send"


def counts(run: Transaction, campaign: int) -> dict[str, int]:
    """Return how many recipients and rows of one generation are in each state, as the views call them."""
    found = dict.fromkeys(SHOWN.values(), 0)
    for table in ("recipient", "row"):
        for state, count in run.rows(
            f"SELECT state, count(*) FROM lingyang_ledger_{table} WHERE campaign=? GROUP BY state", [campaign]
        ):
            found[SHOWN[state]] += int(count)
    return found


def summary(run: Transaction, row: Generation) -> dict[str, Any]:
    """Return what a list shows of one generation of a campaign, as plain JSON."""
    return {
        "campaign_key": row.campaign_key,
        "plan_id": row.plan_id,
        "generation": row.generation,
        "dag_id": row.dag_id,
        "run_id": row.run_id,
        "started_at": moment(row.opened_at),
        "ended_at": moment(row.finished_at),
        "finished": bool(row.finished_by),
        "pruned_at": row.pruned,
        **counts(run, row.number),
    }


def requests_in_doubt(run: Transaction, row: Generation) -> Iterator[dict[str, Any]]:
    """Yield the requests in doubt of one generation of a campaign, as plain JSON, oldest first."""
    instances = task_instances(run, row.campaign_key)
    for request in RequestRows(run, (row.campaign, row.generation), "").in_doubt():
        biz_ids = [
            biz_id
            for (biz_id,) in run.rows(
                "SELECT biz_id FROM lingyang_ledger_recipient WHERE request=? AND state=? ORDER BY place",
                [request_number(row.number, request.task_unique_code), IN_DOUBT],
            )
        ]
        if not biz_ids:  # in_doubt is the most that there are.
            continue
        open_because = still_open(request, instances)
        yield {
            "settle": settle_key(request.task_unique_code, request.intents),
            "batch_num": request.batch_num,
            "recipients": len(biz_ids),
            "biz_ids": biz_ids,
            "written_at": moment(request.written_at),
            "may_be_sent": bool(open_because),
            "why": open_because or None,
        }


def accepted_ids(run: Transaction, campaign: int) -> list[str]:
    """Return the ``biz_id`` of accepted recipients that are not forgotten, in the order of their requests."""
    rows: Sequence[Sequence[Any]] = run.rows(
        "SELECT recipient.biz_id FROM lingyang_ledger_request request JOIN lingyang_ledger_recipient recipient "
        "ON recipient.request=request.request WHERE request.campaign=? AND recipient.state=? "
        "ORDER BY request.written_at, request.task_unique_code, recipient.place",
        [campaign, ACCEPTED],
    )
    return [biz_id for (biz_id,) in rows if biz_id]


def moment(epoch: float | None) -> str | None:
    """Return epoch seconds as a person of the platform reads them."""
    return None if epoch is None else datetime.fromtimestamp(epoch, CHINA).isoformat(timespec="seconds")
