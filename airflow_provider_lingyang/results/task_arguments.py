"""The arguments that say whose answers are wanted and where they are: of the sensor and of what writes to a table.

Imported while DAG files are parsed, so nothing heavy is imported here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lingyang.assets.lingyang import tell_outlets
from airflow_provider_lingyang.config import arguments, literals
from airflow_provider_lingyang.links.lingyang import leave_link

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.results.poller import Wanted

log = logging.getLogger(__name__)

TEMPLATE_FIELDS = (
    "campaign",
    "biz_ids",
    "ids_sql",
    "ids_conn_id",
    "ids_parameters",
    "results_sql",
    "results_conn_id",
    "results_parameters",
    "result_query",
    "lingyang_conn_id",
)
_SOURCES = ("campaign", "biz_ids", "ids_sql")
"""Of the ids; one is given."""
TEMPLATE_FIELDS_RENDERERS = {
    "campaign": "json",
    "biz_ids": "json",
    "ids_sql": "sql",
    "ids_parameters": "json",
    "results_sql": "sql",
    "results_parameters": "json",
    "result_query": "json",
}


def check(task: Any) -> None:
    """Raise where the arguments cannot be right whatever they render to.

    :param task: an operator with all of :data:`TEMPLATE_FIELDS` and ``required_slots``.
    :raises ArgumentError: naming the argument and the way out.
    """
    if sum(getattr(task, source) is not None for source in _SOURCES) != 1:
        raise arguments.ArgumentError(
            "give one source of ids: campaign=submit.output, biz_ids, or ids_sql (with ids_conn_id)"
        )
    for sql, conn_id, parameters in (
        ("ids_sql", "ids_conn_id", "ids_parameters"),
        ("results_sql", "results_conn_id", "results_parameters"),
    ):
        if (getattr(task, sql) is None) != (getattr(task, conn_id) is None):
            raise arguments.ArgumentError(f"{sql} and {conn_id} belong together")
        if getattr(task, parameters) is not None and getattr(task, sql) is None:
            raise arguments.ArgumentError(f"{parameters} belong to {sql}")
        if getattr(task, sql) is not None:
            literals.check_text(sql, getattr(task, sql), "a SELECT, or the path of a .sql file")
            literals.check_conn_id(conn_id, getattr(task, conn_id))
        literals.check_parameters(parameters, getattr(task, parameters))
    literals.check_campaign("campaign", task.campaign)
    literals.check_biz_ids("biz_ids", task.biz_ids)
    of_table = task.results_sql is not None
    literals.check_result_query("result_query", task.result_query, of_table=of_table)
    literals.check_conn_id("lingyang_conn_id", task.lingyang_conn_id)
    if task.required_slots is not None:
        arguments.check_names("required_slots", task.required_slots)


def wanted_by(task: Any, context: Context, *, given: Sequence[str]) -> Wanted:
    """Return what a task's rendered arguments say.

    :param given: see :func:`given_to`; what a source of ids renders to may be nobody, all else must be something.
    :raises ArgumentError: the campaign is none, of another run, or accepted nobody; an argument is nothing.
    :raises NothingToWaitForError: it was validated only.
    """
    from airflow_provider_lingyang.results.poller import Wanted
    from airflow_provider_lingyang.results.recipient_sources import essence

    slots = task.required_slots
    source = next(name for name in _SOURCES if name in given)
    for name in given:
        if name not in _SOURCES:
            arguments.check_rendered(name, getattr(task, name))
    if source == "campaign":
        campaign = essence(task.campaign)
        if campaign["biz_ids"]["run_id"] != context["ti"].run_id:
            raise arguments.ArgumentError(
                "the campaign is of another run, whose ids XCom cannot give: use ids_sql"
            )
        ids: dict[str, Any] = {"campaign": campaign}
        _warn_of_strange_slots(
            [*(slots or ()), *(getattr(task, "slots", None) or ())], campaign["output_slots"]
        )
        slots = campaign["output_slots"] if slots is None else slots
    elif source == "ids_sql":
        ids = {"query": _query(task.ids_sql, task.ids_conn_id, task.ids_parameters)}
    else:
        ids = {"biz_ids": _listed(task.biz_ids)}
    return Wanted(
        lingyang_conn_id=task.lingyang_conn_id,
        source=ids,
        required_slots=list(slots or []),
        result_query=task.result_query,
        results=None
        if task.results_sql is None
        else _query(task.results_sql, task.results_conn_id, task.results_parameters),
    )


def _warn_of_strange_slots(named: Iterable[str], asked: Sequence[str]) -> None:
    """Say early that the campaign did not ask for a slot: its answers may never come."""
    for slot in dict.fromkeys(named):
        if asked and slot not in asked:
            log.warning(
                "%r is not one of the campaign's output_slots%s: its answers may never come",
                slot,
                arguments.did_you_mean(slot, asked),
            )


def given_to(task: Any) -> list[str]:
    """Return which of the templated arguments a task was given, before they are rendered."""
    return [name for name in TEMPLATE_FIELDS if getattr(task, name) is not None]


def leave_plan_link(task: Any, context: Context) -> None:
    """Leave the link to the plan, where the answers are a campaign's and it has one."""
    if isinstance(task.campaign, Mapping):
        leave_link(task, context["ti"], task.campaign.get("plan_url"))


def tell_outlets_of(task: Any, context: Context, counts: Mapping[str, int], **more: Any) -> None:
    """Put what is known of the answers into the events of a task's outlets.

    :param counts: how many people are in which state.
    :param more: further plain JSON.
    """
    campaign = task.campaign if isinstance(task.campaign, Mapping) else None
    tell_outlets(context, campaign=campaign, counts=counts, **more)


def pull_of(context: Context) -> Any:
    """Return what reads XComs of a task's own run."""
    ti = context["ti"]

    def pull(pointer: Mapping[str, Any], key: str) -> Any:
        return ti.xcom_pull(
            task_ids=pointer["task_id"],
            dag_id=pointer["dag_id"],
            key=key,
            map_indexes=pointer["map_index"],
        )

    return pull


def _listed(ids: Any) -> Any:
    """Return ids that come lazily, from the instances of a mapped task, as a list; what is none stays as it is."""
    return list(ids) if arguments.is_listing(ids) else ids


def _query(sql: str, conn_id: Any, parameters: Any) -> dict[str, Any]:
    if parameters is not None and not isinstance(parameters, Mapping):
        parameters = list(parameters)
    return {"sql": sql, "conn_id": str(conn_id), "parameters": parameters}
