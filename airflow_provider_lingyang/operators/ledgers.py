"""Which ledger a task has, what Clear does to it, and what a lost one means."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, conf
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_lingyang.config import options
from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.delivery.lost_history import LostLedger
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.ledger.base import Ledger
from airflow_provider_lingyang.ledger.pace import shared_limiter
from airflow_provider_lingyang.ledger.patience import impatient
from airflow_provider_lingyang.ledger.sql import SqlLedger
from airflow_provider_lingyang.ledger.task_state import TaskStateLedger
from airflow_provider_lingyang.ledger.task_try import TaskTry
from airflow_provider_lingyang.ledger.tombstone import Tombstone
from airflow_provider_lingyang.storage import query

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.hooks.lingyang import LingyangHook

log = logging.getLogger(__name__)

KEEP_STATE = "*Keep task state and resume*"
BEFORE_CLEAR = (
    f"To clear this task, tick {KEEP_STATE} (keep_task_state in Airflow's API): else Clear discards the ledger, and "
    "nothing knows what was sent"
)
_RECOMMENDED = (
    f", which Clear discards unless {KEEP_STATE} is ticked: better have it in a database (ledger_conn_id)"
)
_NONE_CAME = "none of them came as far as its ledger (validate_only does not, nor where the ledger is away)"


def clear_discards_task_state() -> bool:
    """Whether Clear empties a task's own state by default, as from Airflow 3.4 on."""
    return get_base_airflow_version_tuple() >= (3, 4, 0)


def find_ledger(conn_id: str | None, context: Context, campaign_key: str, task_try: TaskTry) -> Ledger:
    """Return the ledger of a task.

    :param conn_id: the database that keeps it; None: the task's own state, where Airflow has one.
    :raises ArgumentError: the ledger that there is could not hold.
    :raises AirflowFailException: there is none, and one is needed.
    """
    if conn_id is not None:
        log.info("The ledger is on connection %r, campaign_key %r", conn_id, campaign_key)
        return SqlLedger(query.sql_hook(conn_id), conn_id, campaign_key, task_try)
    if task_try.in_loop:
        raise ArgumentError(
            "each iteration of a loop has a state of its own, and knows nothing of those before it, so each would "
            "send to the whole audience: give the task ledger_conn_id, which makes all iterations one campaign, or "
            "move it out of the loop"
        )
    if task_try.map_index >= 0:
        raise ArgumentError(
            "a mapped task needs a ledger that its instances share, so that no two of them send to one recipient: "
            "give it ledger_conn_id, or use one task"
        )
    store = context.get("task_state_store")
    if store is None:
        log.info(
            "No ledger: nothing is remembered between tries. Should this task fail, a retry or Clear sends "
            "nothing; set ledger_conn_id to have it go on instead"
        )
        if task_try.try_number > 1:
            raise AirflowFailException(
                f"this is try {task_try.try_number}: without a ledger it is unknown what an earlier try sent, so "
                "this one sends nothing. What failed and what was sent is in the log of try 1; for the rest, start "
                "a new run, or set ledger_conn_id for the next time"
            )
        return Ledger()
    from airflow.sdk.execution_time.context import NEVER_EXPIRE

    for section, option in (("state_store", "clear_on_success"), ("workers", "state_store_backend")):
        value = conf.get(section, option, fallback="")
        if str(value).strip().lower() not in ("", "false"):
            raise ArgumentError(
                f"[{section}] {option} is set, so the task's state is no safe place for the "
                "ledger: give the task ledger_conn_id"
            )
    log.info("The ledger is in the task's own state%s", _RECOMMENDED if clear_discards_task_state() else "")
    return TaskStateLedger(store, task_try, NEVER_EXPIRE, Tombstone.of(context, task_try))


def find_rate_limiter(ledger: Ledger, conn_id: str | None, hook: LingyangHook) -> RateLimiter:
    """Return the rate limiter of a task: of all that share the ledger's database, else of this process.

    :param ledger: lends its connection to that limiter.
    :param conn_id: the database that keeps it, or None.
    """
    settings, rate = hook.settings, hook.max_requests_per_second
    sql_ledger = impatient(ledger)
    if conn_id is None or not isinstance(sql_ledger, SqlLedger):
        if rate and conn_id is None:
            log.info(
                "max_requests_per_second (%g) and throttle bans hold for this process alone: with ledger_conn_id they "
                "hold for all tasks together that share the database",
                rate,
            )
        return hook.limiter
    limiter = shared_limiter(
        query.sql_hook(conn_id), conn_id, settings.url, settings.app_key, rate, options.ledger_patience()
    )
    sql_ledger.lend_to(limiter)
    return limiter


def lost_ledger(conn_id: str | None, ledger: Ledger, task_try: TaskTry, campaign_key: str) -> LostLedger:
    """Return what a try knows whose ledger has nothing of earlier ones."""
    next_time = "have the ledger in a database (ledger_conn_id)"
    if conn_id is not None:
        cause, next_time = f"either {_NONE_CAME}, or its tables were emptied", ""
    elif clear_discards_task_state():
        cause = (
            f"it was in the task's own state, which Clear discards unless {KEEP_STATE} is ticked "
            f"(keep_task_state in Airflow's API), or {_NONE_CAME}"
        )
        next_time = f"clear with {KEEP_STATE}, or {next_time}, which Clear leaves alone"
    else:
        cause = f"either {_NONE_CAME}, or the task's own state was emptied"
    # A word is about one task instance: others of the campaign may have lost theirs, too.
    instance = f"{campaign_key} [{task_try.map_index}]" if task_try.map_index >= 0 else campaign_key
    return LostLedger(
        try_number=task_try.try_number,
        campaign_key=f"{instance} [{task_try.loop_index}]" if task_try.in_loop else instance,
        cause=cause,
        next_time=next_time,
        # What was sent before a deferral of this very try is not what the word was about.
        settled_by_next_try=ledger.found_lost_before and not task_try.resumed,
        begun_at=ledger.begun_at,
    )
