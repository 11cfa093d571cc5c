"""Where the recipients of a campaign are listed, and how to load them: for a task and for a trigger alike.

A source is plain JSON, one of::

    {"biz_ids": […]}
    {"xcom": {"dag_id", "run_id", "task_id", "map_index"}}    XCom biz_ids of that task
    {"query": {"sql", "conn_id", "parameters"}}
    {"campaign": manifest}                                     see slim_manifest()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Annotated, Any

from airflow.providers.common.compat.sdk import XCom
from pydantic import Strict, StringConstraints, TypeAdapter, ValidationError

from airflow_provider_lingyang.config.arguments import ArgumentError, is_listing
from airflow_provider_lingyang.gateway.field_types import Text
from airflow_provider_lingyang.ledger.sql_tables import accepted_recipients
from airflow_provider_lingyang.results.recipient_store import PAGE, RecipientStore
from airflow_provider_lingyang.storage.query import QueryError, sql_hook, stream_rows

_Recipients = Iterator[tuple[str, str | None]]
"""``biz_id`` and, where known, the id of the accepted task on the platform."""
_IdPages = Iterator[list[str]]
"""``biz_id``, a page at a time."""
_TEXTS = TypeAdapter(list[Text])
_PLAIN_TEXTS = TypeAdapter(list[Annotated[str, Strict(), StringConstraints(min_length=1)]])
"""Fits nearly all ids, and validates without a call of Python code for each."""
_POINTER = ("dag_id", "run_id", "task_id", "map_index")
_NEEDED_FIELDS = ("campaign_key", "plan_id", "counts", "biz_ids", "ledger", "output_slots")


class NothingToWaitForError(Exception):
    """The campaign was validated only, so there are no recipients."""


def slim_manifest(manifest: Any) -> dict[str, Any]:
    """Return the part of a campaign's manifest that a wait needs: small enough for a trigger.

    :raises ArgumentError: it is no manifest, or the campaign has no accepted recipient.
    :raises NothingToWaitForError: the campaign was validated only.
    """
    if manifest is None:
        raise ArgumentError(
            "campaign is None: the submit task pushed no manifest as its return value. It was marked success by hand, "
            "skipped, or has do_xcom_push=False. Clear the submit task, or give this one the ids: biz_ids or ids_sql"
        )
    if not _is_manifest(manifest):
        # A mapped task's, or in Airflow 3.4 those of all iterations of a loop, seen from outside it.
        several = (
            ". This is a list: the instances of a mapped task need a wait each, .expand(campaign=submit.output), and a "
            "task in a loop needs its wait in the same loop"
        )
        raise ArgumentError(
            "campaign must be the manifest of a LingyangSubmitBatchOperator: campaign=submit.output"
            + (several if is_listing(manifest) else "")
        )
    counts, key = manifest["counts"], manifest["campaign_key"]
    if "validate_only" in manifest.get("reasons", {}).get("not_sent", {}):
        raise NothingToWaitForError(f"campaign {key!r} was validated only: it has no recipients")
    if counts["audience"] and not _accepted(manifest):
        raise ArgumentError(f"nothing to look up: campaign {key!r} has no accepted recipient")
    return {name: manifest.get(name) for name in _NEEDED_FIELDS}


def load_recipients(store: RecipientStore, source: Mapping[str, Any]) -> None:
    """Add the recipients of a source to the store.

    :raises ArgumentError: the source gives no ids, or wrong ones.
    :raises QueryError: the database did not return them.
    :raises SpoolError: the disk is full.
    """
    if "campaign" in source:
        _load_campaign(store, source["campaign"])
        return
    if "query" in source:
        repeated = store.add_ids(_of_query(source["query"]))
    else:
        ids = source["biz_ids"] if "biz_ids" in source else pull_xcom(source["xcom"], "biz_ids")
        if not is_listing(ids):
            raise ArgumentError(f"biz_ids must be a list; it is a {type(ids).__name__}")
        repeated = store.add_ids(_texts(ids))
    if repeated:
        raise ArgumentError(f"{repeated} of the {len(store) + repeated} biz_ids are there twice")
    if not len(store):
        raise ArgumentError("nothing to look up: the list of biz_ids is empty")


def pull_xcom(pointer: Mapping[str, Any], key: str) -> Any:
    """Return an XCom of the task that a pointer names; None where there is none.

    :param pointer: dag_id, run_id, task_id, map_index.
    :raises ArgumentError: this process cannot read XComs.
    """
    try:
        return XCom.get_one(key=key, **{name: pointer[name] for name in _POINTER})
    except ImportError as error:
        if "SUPERVISOR_COMMS" not in str(error):
            raise
        raise ArgumentError(
            "the ids are in an XCom, and `airflow dags test` of Airflow 3.0 lets no trigger read one. A triggerer can: "
            "run the DAG in Airflow, or try it with deferrable=False"
        ) from None


def _load_campaign(store: RecipientStore, manifest: Mapping[str, Any]) -> None:
    accepted = _accepted(manifest)
    if not accepted:
        return  # An empty audience with on_empty="succeed".
    where = manifest["biz_ids"]
    tried = []
    for name, recipients in _sources(manifest):
        store.clear()
        store.add(recipients)
        # The digest tells other recipients from the accepted ones where the number is the same.
        if len(store) == accepted and f"{store.digest():032x}" == where.get("digest"):
            return
        tried.append(f"{name} gives {len(store)} ids")
    store.clear()
    if tried:
        raise ArgumentError(
            f"the campaign accepted {accepted} recipients, but {' and '.join(tried)}, which are not those: use ids_sql "
            "with a query for the accepted recipients, or raise [lingyang] xcom_ids_limit"
        )
    raise ArgumentError(
        f"{accepted} ids are more than XCom carries ([lingyang] xcom_ids_limit), and the submit task has neither a "
        "ledger_conn_id nor a query that gives exactly them (one from which rows were left out does not): give this "
        "task an ids_sql; for later runs a ledger_conn_id, or a higher limit, does too"
    )


def _sources(manifest: Mapping[str, Any]) -> Iterator[tuple[str, _Recipients]]:
    """Yield what may list a campaign's recipients; other campaigns may share its ledger or query, so check each."""
    where = manifest["biz_ids"]
    ids = pull_xcom(where, "biz_ids")
    if ids is not None:
        task_ids = pull_xcom(where, "task_ids")
        if task_ids is None or len(task_ids) != len(ids):
            task_ids = [None] * len(ids)
        known = zip(ids, task_ids, strict=True)
        yield "its XCom biz_ids", ((biz_id, None if of is None else str(of)) for biz_id, of in known)
        return
    ledger, query = manifest.get("ledger"), pull_xcom(where, "biz_ids_query")
    if ledger is not None:
        yield "this task's part of the ledger", _of_ledger(ledger, of_task_instance=True)
        yield "the ledger", _of_ledger(ledger)
    if query is None:
        return
    pages = _of_query(query, query["column"])
    if ledger is None:
        excluded = set(query["without"])
        found: _Recipients = ((biz_id, None) for page in pages for biz_id in page if biz_id not in excluded)
    else:
        found = chain.from_iterable(_of_ledger(ledger, among=page) for page in pages)
    yield "the submit task's query", found


def _of_ledger(
    ledger: Mapping[str, Any], *, of_task_instance: bool = False, among: Sequence[str] | None = None
) -> _Recipients:
    conn_id = ledger["ledger_conn_id"]
    placeholder = sql_hook(conn_id).placeholder
    sql, parameters = accepted_recipients(
        ledger, placeholder, of_task_instance=of_task_instance, among=among or ()
    )
    with stream_rows(conn_id, sql, parameters) as (_, rows):
        yield from ((str(biz_id), None if task_id is None else str(int(task_id))) for biz_id, task_id in rows)


def _of_query(query: Mapping[str, Any], column: str | None = None) -> _IdPages:
    conn_id = query["conn_id"]
    with stream_rows(conn_id, query["sql"], query["parameters"]) as (names, rows):
        if column is None and len(names) != 1:
            raise ArgumentError(f"ids_sql must select one column, the biz_id; it selects {', '.join(names)}")
        lower = [name.lower() for name in names]
        if column is not None and column.lower() not in lower:
            raise QueryError(f"the sql on connection {conn_id!r} selects no column {column!r} any more")
        position = 0 if column is None else lower.index(column.lower())
        yield from _texts(row[position] for row in rows if row[position] is not None)


def _texts(values: Iterable[Any]) -> _IdPages:
    values = iter(values)
    while page := list(islice(values, PAGE)):
        try:
            texts = _PLAIN_TEXTS.validate_python(page)
        except ValidationError:
            texts = []
        # Python strips no less than pydantic does.
        if not texts or texts != list(map(str.strip, texts)):
            try:
                # As the operator converts them: a NUMERIC 7.00 is the biz_id "7".
                texts = _TEXTS.validate_python(page)
            except ValidationError:
                raise ArgumentError(
                    "a biz_id is missing, blank, or neither text nor a whole number"
                ) from None
        yield texts


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
        and value["biz_ids"].keys() >= set(_POINTER)
        and isinstance(value.get("output_slots"), list)
    )
