"""Read an answer of a look-up as its query describes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_lingyang.gateway.answer_values import as_list, decoded_json, names_in, plain_text
from airflow_provider_lingyang.gateway.errors import AnswerUnreadableError, Replay
from airflow_provider_lingyang.lookup.page import Listing, Page, Scrub, Structs, listing_of, member
from airflow_provider_lingyang.lookup.query import ResultQuery
from airflow_provider_lingyang.lookup.result import TaskResult


def read_page(
    query: ResultQuery,
    payload: Mapping[str, Any],
    scrub: Scrub = lambda text: text,
    request_id: str | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Page:
    """Return every result in an answer, with the signs of the answer.

    :param payload: the answer below its root element.
    :param scrub: takes the request's values out of texts.
    :param request_id: the gateway's id of the call, for errors.
    :param beside: the members beside the answer's root element.
    :raises RequestRefusedError: it holds no result, and says that it failed. It is no list without results:
        recipients that are not found may be sent again.
    :raises ServiceError: it holds no result and no list, and does not clearly say that it succeeded.
    :raises AnswerUnreadableError: ``items_path`` does not fit; the message has the path and the keys there.
    """
    structs, items, listing = _items(query, payload, scrub, request_id)
    results: list[TaskResult] = []
    # Read once: each field of a pydantic model that is read in the loop costs, with a million recipients.
    biz_id_field, slots_field = query.biz_id_field, query.output_params_field
    status_field, task_id_field = query.status_field, query.task_id_field
    created_at_field, paths = query.created_at_field, query.result_paths
    for item in items:
        if paths and isinstance(item, dict):
            item = {path: member(item, path) for path in paths}
        biz_id = item.get(biz_id_field) if isinstance(item, dict) else None
        # Nearly all ids are text, and a function call costs, too.
        if type(biz_id) is not str:
            if type(biz_id) is not int:
                # Without an id it is no result; other results of the page are kept.
                continue
            biz_id = str(biz_id)
        results.append(
            TaskResult(
                biz_id,
                item.get(slots_field),
                status if type(status := item.get(status_field)) is str else plain_text(status),
                task_id if type(task_id := item.get(task_id_field)) is str else plain_text(task_id),
                plain_text(item.get(created_at_field)) if created_at_field else None,
            )
        )
    if items and not results:
        item = items[0]
        if isinstance(item, Mapping) and listing is not Listing.LISTED:
            Page(query, [*structs, (item, None)], (), (), listing).check(scrub, request_id)
        raise _misfit(query, biz_id_field, f"each item of {query.items_path}", item, scrub(request_id))
    page = Page(query, structs, items, results, listing, beside)
    if not items:
        page.check(scrub, request_id)
    return page


def _items(
    query: ResultQuery, payload: Mapping[str, Any], scrub: Scrub, request_id: str | None
) -> tuple[Structs, Sequence[Any], Listing]:
    node: Any = payload
    structs: Structs = []
    parts = query.items_path.split(".")
    for depth, part in enumerate(parts):
        node = decoded_json(node)
        is_last = depth == len(parts) - 1
        if node is None or (node == {} and depth):
            # {} may be the empty list itself, where the path goes into the object around it.
            return structs, (), Listing.LEFT_OUT if is_last and node == {} else Listing.NOT_THERE
        if isinstance(node, Mapping) and part in node:
            structs.append((node, part))
            node = node[part]
            continue
        if isinstance(node, Mapping):
            structs.append((node, None))
        # The platform leaves an empty list out. Where something else stands that could be it, or where not even
        # the first step fits, the path is wrong instead, and "no recipient was found" would be a lie.
        left_out = isinstance(node, Mapping) and not any(map(_could_be_items, node.values()))
        if left_out and (depth or len(parts) == 1):
            return structs, (), Listing.LEFT_OUT if is_last else Listing.NOT_THERE
        Page(query, structs, (), (), Listing.NOT_THERE).check(scrub, request_id)
        raise _misfit(
            query, part, ".".join(parts[:depth]) or "the answer's root element", node, scrub(request_id)
        )
    node = decoded_json(node)
    return structs, as_list(node), listing_of(node)


def _misfit(
    query: ResultQuery, part: str, where: str, node: Any, request_id: str | None
) -> AnswerUnreadableError:
    holds = names_in(node) if isinstance(node, Mapping) else f"a {type(node).__name__}"
    return AnswerUnreadableError(
        f"the result_query does not fit the answer of {query.method}: no {part!r} in {where}, which holds: {holds}",
        replay=Replay.NEVER,
        request_id=request_id,
        hint="Correct items_path or biz_id_field in the result_query.",
    )


def _could_be_items(value: Any) -> bool:
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
        return isinstance(value, (Mapping, list)) and bool(value)
    return isinstance(value, list) and bool(value)
