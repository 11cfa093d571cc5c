"""One answer of a look-up, read as its query describes it. Does a missing id prove that it was not executed? Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from airflow_provider_lingyang.gateway.answer_values import (
    Sign,
    as_list,
    decoded_json,
    names_in,
    plain_text,
    sign_of,
)
from airflow_provider_lingyang.gateway.error_classification import shown_code
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    Replay,
    RequestRefusedError,
    ServiceError,
)
from airflow_provider_lingyang.gateway.protocol import Answer
from airflow_provider_lingyang.lookup.query import ANY, ResultQuery
from airflow_provider_lingyang.lookup.result import TaskResult
from airflow_provider_lingyang.lookup.signs import Signs, same_word

Structs = list[tuple[Mapping[str, Any], str | None]]
"""Those on the path to the list, each with the name of its member on the path; None: that one is missing."""
_DEPTH = 6


class Listing(enum.Enum):
    """How the list of results stands in an answer."""

    LISTED = enum.auto()
    """As a list, also inside an object with one key (the platform's lists)."""
    LEFT_OUT = enum.auto()
    """Absent, null or ``{}``: an empty list of the platform, or an answer that failed."""
    MISSING = enum.auto()
    """Something else stands there, or a struct above it is missing."""


def listing_of(leaf: Any) -> Listing:
    """Return how a list stands at the end of its path."""
    if leaf is None or leaf == {}:
        return Listing.LEFT_OUT
    if isinstance(leaf, list):
        return Listing.LISTED
    if isinstance(leaf, dict) and len(leaf) == 1:
        ((name, inner),) = leaf.items()
        # {"error": ""} is no empty list, and text is none either.
        if inner == "" or (not inner and sign_of(name) is not None):
            return Listing.MISSING
    return Listing.MISSING if leaf == "" else Listing.LISTED


def member(struct: Any, path: str) -> Any:
    """Return the member of a struct at a dotted path, also through JSON text; None where there is none."""
    if isinstance(struct, dict) and path in struct:
        return struct[path]
    for part in path.split("."):
        struct = decoded_json(struct)
        if not isinstance(struct, dict):
            return None
        struct = struct.get(part)
    return struct


@dataclass(eq=False)
class Page:
    """The answer to one call.

    :param answer: as the gateway gave it.
    :param structs: those on the path to the list, from the payload down.
    :param items: the list as it came.
    :param results: those of its items that name their ``biz_id``.
    :param listing: how the list stands in the answer.
    """

    query: ResultQuery
    answer: Answer
    structs: Structs
    items: Sequence[Any]
    results: Sequence[TaskResult]
    listing: Listing

    @cached_property
    def signs(self) -> Signs:
        """The signs of the answer."""
        return Signs.of(self.structs, self._stated, self.answer.beside)

    @cached_property
    def success(self) -> bool | None:
        """Whether the query's ``success_field`` says success; None: it names none, or it is not there."""
        field = self.query.success_field
        value = member(self.structs[0][0], field) if field and self.structs else None
        if value is None:
            return None
        return self.query.success_values == (ANY,) or same_word(value, self.query.success_values)

    def check(self) -> None:
        """Raise where an answer without results is a failure: it must not count as "no recipient was found".

        :raises RequestRefusedError: a flag is false, also beside the root element.
        :raises ServiceError: there is no list, and a sign of the answer, or beside its root, does not say success.
        """
        signs, scrub = self.signs, self.answer.scrub
        names = [name for struct, _ in reversed(self.structs) for name in struct]
        code = self._text("code", *(name for name in names if sign_of(name) is Sign.CODE))
        message = self._text("message", "msg", *(name for name in names if sign_of(name) is Sign.ERROR))
        facts: dict[str, Any] = {
            "code": shown_code(code, scrub),
            "msg": scrub(message),
            "request_id": self.answer.request_id,
        }
        if signs.negative:
            raise RequestRefusedError(
                f"the platform refused the look-up ({signs.negative}=false)",
                hint="Check the result_query's request_param, biz_ids_field, max_biz_ids and fixed_params.",
                **facts,
            )
        if self.listing is not Listing.LISTED and (signs.unclear or self.success is False):
            name = signs.unclear or self.query.success_field
            raise ServiceError(
                f"the look-up's answer holds no list of results, and its {name} does not say success",
                hint="If it does say success, say so with success_field and success_values in the result_query.",
                **facts,
            )

    def _text(self, *names: str) -> str | None:
        """Return the first of some members of the structs on the path that is a text or a number."""
        for name in names:
            for struct, _ in reversed(self.structs):
                value = struct.get(name)
                if value is not None and value != "" and not isinstance(value, (dict, list)):
                    return str(value)
        return None

    def objection(self, asked: Collection[str], number: int) -> str | None:
        """Return why a missing id may have a result nevertheless; None: no reason is known.

        Completeness is checked elsewhere. Each reason comes from a known answer that lacked a contacted recipient.

        :param asked: the ids that were asked for.
        :param number: of the page that was asked for, from 1.
        """
        signs, query = self.signs, self.query
        if len(self.results) < len(self.items) or any(result.biz_id not in asked for result in self.results):
            # Ids that were not asked for mean that the ids were not understood.
            return "it holds results that are of none of the ids"
        if name := signs.negative or signs.unclear:
            return f"its {name} does not say success"
        if query.success_field:
            if not self.success:
                return "its success_field holds none of success_values"
        elif not signs.positive:
            return "it holds no flag that says success, and the result_query names no success_field"
        if self.listing is Listing.MISSING:
            return "it holds no list at items_path"
        if self.listing is Listing.LEFT_OUT and not self._says_success_beside_the_list:
            return "it holds no list at items_path, and no flag beside it that says success"
        beside = (
            value for struct, on_path in self.structs for name, value in struct.items() if name != on_path
        )
        if any(map(self._could_be_results, (*beside, *self.answer.beside.values()))):
            return "it holds something else that may be results"
        if any(page not in (number, number - 1) for page in signs.page):
            return "it is not the page that was asked for"
        return None

    def keys(self) -> set[tuple[Any, ...]]:
        """Return what identifies each result, also while results change: not the status, nor the slots."""
        return {
            (each.biz_id, each.task_id, None if each.task_id else each.created_at) for each in self.results
        }

    @cached_property
    def _stated(self) -> tuple[Mapping[str, Any], str] | None:
        """The struct and the name of the ``success_field``, where it is there."""
        if not self.query.success_field or not self.structs:
            return None
        *above, name = self.query.success_field.split(".")
        depth = len(above)
        if depth < len(self.structs) and above == self.query.items_path.split(".")[:depth]:
            struct: Any = self.structs[depth][0]
        else:
            struct = member(self.structs[0][0], ".".join(above))
        return (struct, name) if isinstance(struct, dict) and name in struct else None

    @property
    def _says_success_beside_the_list(self) -> bool:
        if not self.structs:
            return False
        if self._stated is not None and self.success and self._stated[0] is self.structs[-1][0]:
            return True
        return len(self.structs) - 1 in self.signs.positive

    def _could_be_results(self, value: Any, depth: int = _DEPTH) -> bool:
        """Whether a value beside the list may hold results: then the path is wrong, or one of several."""
        value = decoded_json(value)
        if not isinstance(value, (dict, list)) or not depth:
            return isinstance(value, (dict, list)) and bool(value)
        if isinstance(value, list):
            inner = value
            if value and self.listing is Listing.LEFT_OUT:
                return True
        else:
            if self.query.biz_id_field.rpartition(".")[2] in value:
                return True
            inner = list(value.values())
        return any(self._could_be_results(each, depth - 1) for each in inner)


def read_page(query: ResultQuery, answer: Answer) -> Page:
    """Return every result in an answer, with the signs of the answer.

    :raises RequestRefusedError: it holds no result, and says that it failed. It is no list without results:
        recipients that are not found may be sent again.
    :raises ServiceError: it holds no result and no list, and does not clearly say that it succeeded.
    :raises AnswerUnreadableError: ``items_path`` does not fit; the message has the path and the keys there.
    """
    structs, items, listing = _items(query, answer)
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
            Page(query, replace(answer, beside={}), [*structs, (item, None)], (), (), listing).check()
        raise _misfit(query, answer, biz_id_field, f"each item of {query.items_path}", item)
    page = Page(query, answer, structs, items, results, listing)
    if not items:
        page.check()
    return page


def _items(query: ResultQuery, answer: Answer) -> tuple[Structs, Sequence[Any], Listing]:
    node: Any = answer.payload
    structs: Structs = []
    parts = query.items_path.split(".")
    for depth, part in enumerate(parts):
        node = decoded_json(node)
        is_last = depth == len(parts) - 1
        if node is None or (node == {} and depth):
            # {} may be the empty list itself, where the path goes into the object around it.
            return structs, (), Listing.LEFT_OUT if is_last and node == {} else Listing.MISSING
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
            return structs, (), Listing.LEFT_OUT if is_last else Listing.MISSING
        page = Page(query, answer, structs, (), (), Listing.MISSING)
        if not page.signs.negative:
            # A doubt about a member beside the root element excuses no path.
            page = Page(query, replace(answer, beside={}), structs, (), (), Listing.MISSING)
        page.check()
        raise _misfit(query, answer, part, ".".join(parts[:depth]) or "the answer's root element", node)
    node = decoded_json(node)
    return structs, as_list(node), listing_of(node)


def _misfit(query: ResultQuery, answer: Answer, part: str, where: str, node: Any) -> AnswerUnreadableError:
    holds = names_in(node) if isinstance(node, Mapping) else f"a {type(node).__name__}"
    return AnswerUnreadableError(
        f"the result_query does not fit the answer of {query.method}: no {part!r} in {where}, which holds: {holds}",
        replay=Replay.NEVER,
        request_id=answer.request_id,
        hint="Correct items_path or biz_id_field in the result_query.",
    )


def _could_be_items(value: Any) -> bool:
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
        return isinstance(value, (Mapping, list)) and bool(value)
    return isinstance(value, list) and bool(value)
