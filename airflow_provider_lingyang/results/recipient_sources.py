"""Whose answers: the ids of a campaign, from wherever they are, for a task and for a trigger alike.

A source is plain JSON, one of::

    {"biz_ids": […]}
    {"xcom": {"dag_id", "run_id", "task_id", "map_index"}}    XCom biz_ids of that task
    {"query": {"sql", "conn_id", "parameters"}}
    {"campaign": manifest}                                     see essence()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

from pydantic import Strict, StringConstraints, TypeAdapter, ValidationError

from airflow_provider_lingyang.config.arguments import ArgumentError, is_listing
from airflow_provider_lingyang.gateway.field_types import Text
from airflow_provider_lingyang.ledger.base import key_of
from airflow_provider_lingyang.ledger.sql import accepted_people
from airflow_provider_lingyang.results.recipient_store import PAGE, WaitingList
from airflow_provider_lingyang.storage.query import QueryError, sql_hook, stream_rows

Pull = Callable[[Mapping[str, Any], str], Any]
"""Returns an XCom: of the task that a pointer names, by its key."""
People = Iterator[tuple[str, str | None]]
"""``biz_id`` and, where it is known, the accepted task's id."""
Pages = Iterator[list[str]]
"""``biz_id``, a page at a time."""
_TEXTS = TypeAdapter(list[Text])
_PLAIN_TEXTS = TypeAdapter(list[Annotated[str, Strict(), StringConstraints(min_length=1)]])
"""What nearly all ids are: looked at without a function of Python for each, and not copied."""
_ESSENTIAL = ("campaign_key", "plan_id", "counts", "biz_ids", "ledger", "output_slots")


class NothingToWaitForError(Exception):
    """The campaign was validated only: nobody was asked."""


def essence(manifest: Any) -> dict[str, Any]:
    """Return what of a campaign's manifest tells whose answers are waited for: small enough for a trigger.

    :raises ArgumentError: it is no manifest, or of a campaign that accepted nobody.
    :raises NothingToWaitForError: the campaign was validated only.
    """
    if not _is_manifest(manifest):
        raise ArgumentError(
            "campaign must be the manifest of a LingyangSubmitBatchOperator: campaign=submit.output"
        )
    counts, key = manifest["counts"], manifest["campaign_key"]
    if "validate_only" in manifest.get("reasons", {}).get("not_sent", {}):
        raise NothingToWaitForError(f"campaign {key!r} was validated only: nobody was asked")
    if counts["audience"] and not _accepted(manifest):
        raise ArgumentError(f"nothing to look up: campaign {key!r} accepted nobody")
    return {name: manifest.get(name) for name in _ESSENTIAL}


def fill(waiting: WaitingList, source: Mapping[str, Any], pull: Pull) -> None:
    """Put the recipients of a source on the list.

    :param pull: reads an XCom.
    :raises ArgumentError: the source gives no ids, or ids that cannot be right; says why.
    :raises QueryError: a database did not give them.
    :raises SpoolError: the disk is full.
    """
    if "campaign" in source:
        _fill_from_campaign(waiting, source["campaign"], pull)
        return
    if "query" in source:
        query = source["query"]
        repeated = waiting.add_ids(_of_query(query["conn_id"], query["sql"], query["parameters"]))
    else:
        ids = source["biz_ids"] if "biz_ids" in source else pull(source["xcom"], "biz_ids")
        if not is_listing(ids):
            raise ArgumentError(f"biz_ids must be a list; it is a {type(ids).__name__}")
        repeated = waiting.add_ids(_texts(ids))
    if repeated:
        raise ArgumentError(f"{repeated} of the {len(waiting) + repeated} biz_ids are there twice")
    if not len(waiting):
        raise ArgumentError("nothing to look up: the list of biz_ids is empty")


def _fill_from_campaign(waiting: WaitingList, manifest: Mapping[str, Any], pull: Pull) -> None:
    accepted = _accepted(manifest)
    if not accepted:
        return  # on_empty="succeed": nobody was asked, so everybody has answered
    where = manifest["biz_ids"]
    ids = pull(where, "biz_ids")
    if ids is not None:
        task_ids = pull(where, "task_ids")
        if task_ids is None or len(task_ids) != len(ids):
            task_ids = [None] * len(ids)
        waiting.add(
            (biz_id, None if task_id is None else str(task_id))
            for biz_id, task_id in zip(ids, task_ids, strict=True)
        )
        if len(waiting) != accepted or f"{waiting.digest():032x}" != where.get("digest"):
            raise ArgumentError(
                f"the campaign accepted {accepted} people, but its XCom biz_ids holds {len(waiting)}, which are "
                "not those: use ids_sql"
            )
        return
    ledger, query = manifest.get("ledger"), pull(where, "biz_ids_query")
    tried = []
    for name, people in _sources(ledger, query):
        waiting.clear()
        waiting.add(people)
        # The digest tells apart what a number cannot: the same number of other people.
        if len(waiting) == accepted and f"{waiting.digest():032x}" == where.get("digest"):
            return
        tried.append(f"{name} gives {len(waiting)} ids")
    waiting.clear()
    if tried:
        raise ArgumentError(
            f"the campaign accepted {accepted} people, but {' and '.join(tried)}, which are not those: use ids_sql "
            "with a query for those who were accepted, or raise [lingyang] xcom_ids_limit"
        )
    raise ArgumentError(
        f"{accepted} ids are more than XCom carries ([lingyang] xcom_ids_limit), and the submit task has neither a "
        "ledger_conn_id nor a query that gives them: use ids_sql, or raise the limit"
    )


def _sources(
    ledger: Mapping[str, Any] | None, query: Mapping[str, Any] | None
) -> Iterator[tuple[str, People]]:
    """Yield what may give a campaign's people: exactly those, or, where others share its ledger or query, not."""
    if ledger is not None:
        yield "this task's part of the ledger", _of_ledger(ledger, of_worker=True)
        yield "the ledger", _of_ledger(ledger)
    if query is None:
        return
    found = _of_query(query["conn_id"], query["sql"], query["parameters"], query["column"])
    if ledger is None:
        without = set(query["without"])
        yield (
            "the submit task's query",
            ((biz_id, None) for page in found for biz_id in page if biz_id not in without),
        )
    else:
        yield "the submit task's query", _also_in_ledger(found, ledger)


def _also_in_ledger(pages: Pages, ledger: Mapping[str, Any]) -> People:
    hook = sql_hook(ledger["ledger_conn_id"])
    sql, parameters = accepted_people(ledger, hook.placeholder, of_worker=False)
    for some in pages:
        marks = ",".join([hook.placeholder] * len(some))
        with stream_rows(
            ledger["ledger_conn_id"],
            f"{sql} AND person.recipient IN ({marks})",
            # By the table's key: biz_id has no index, and may compare without case.
            [*parameters, *(key_of(biz_id).hex() for biz_id in some)],
        ) as (_, rows):
            yield from ((str(biz_id), task_id) for biz_id, task_id in rows)


def _of_ledger(ledger: Mapping[str, Any], *, of_worker: bool = False) -> People:
    conn_id = ledger["ledger_conn_id"]
    sql, parameters = accepted_people(ledger, sql_hook(conn_id).placeholder, of_worker=of_worker)
    with stream_rows(conn_id, sql, parameters) as (_, rows):
        yield from ((str(biz_id), task_id) for biz_id, task_id in rows)


def _of_query(conn_id: str, sql: str, parameters: Any, column: str | None = None) -> Pages:
    with stream_rows(conn_id, sql, parameters) as (names, rows):
        if column is None and len(names) != 1:
            raise ArgumentError(f"ids_sql must select one column, the biz_id; it selects {', '.join(names)}")
        lower = [name.lower() for name in names]
        if column is not None and column.lower() not in lower:
            raise QueryError(f"the sql on connection {conn_id!r} selects no column {column!r} any more")
        position = 0 if column is None else lower.index(column.lower())
        yield from _texts(row[position] for row in rows if row[position] is not None)


def _texts(values: Iterable[Any]) -> Pages:
    values = iter(values)
    while some := list(islice(values, PAGE)):
        try:
            texts = _PLAIN_TEXTS.validate_python(some)
        except ValidationError:
            texts = []
        # Python strips no less than pydantic does.
        yield texts if texts and texts == list(map(str.strip, texts)) else _kind_texts(some)


def _kind_texts(values: list[Any]) -> list[str]:
    try:
        # As the operator reads them: a NUMERIC 7.00 is the biz_id "7".
        return _TEXTS.validate_python(values)
    except ValidationError:
        raise ArgumentError("a biz_id is missing, blank, or neither text nor a whole number") from None


def _accepted(manifest: Mapping[str, Any]) -> int:
    counts = manifest["counts"]
    return int(counts["accepted"]) + int(counts.get("already_accepted", 0))


def _is_manifest(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and "campaign_key" in value
        and isinstance(value.get("counts"), Mapping)
        and all(isinstance(value["counts"].get(state), int) for state in ("audience", "accepted"))
        and isinstance(value.get("biz_ids"), Mapping)
        and {"dag_id", "run_id", "task_id", "map_index"} <= value["biz_ids"].keys()
        and isinstance(value.get("output_slots"), list)
    )
