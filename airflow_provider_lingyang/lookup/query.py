"""The result look-up, described by the user as data: the platform has no public API page for it.

Everything here is pure: which call to make for some ``biz_ids``, and how to read its answer.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway.error_codes import shown_code
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    LingyangConfigError,
    Replay,
    RequestInvalidError,
    RequestRefusedError,
)
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.models import explain

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DECODER = json.JSONDecoder(strict=False)
"""Made once: ``json.loads`` makes one for each text where it is not to be strict."""
Scrub = Callable[[str | None], str | None]


class TaskResult:
    """What a look-up told about one recipient.

    :param biz_id: whose answer it is.
    :param output_params: the slots as they came, see :func:`read_slots`; read when they are asked for, because of many
        people only the status matters.
    :param status: the platform's word for how far it is, if the query names a ``status_field``.
    :param task_id: the platform's task, if the query names a ``task_id_field``.
    :param created_at: the platform's text, if the query names a ``created_at_field``.
    """

    __slots__ = ("_came", "_read", "biz_id", "created_at", "status", "task_id")

    def __init__(
        self,
        biz_id: str,
        output_params: Any = None,
        status: str | None = None,
        task_id: str | None = None,
        created_at: str | None = None,
    ) -> None:
        self.biz_id = biz_id
        self.status = status
        self.task_id = task_id
        self.created_at = created_at
        self._came = output_params
        self._read: tuple[Mapping[str, Any], bool] | None = None

    @property
    def output_params(self) -> Mapping[str, Any]:
        """The slots, as a dict; empty where the answer held none."""
        return self._slots[0]

    @property
    def readable(self) -> bool:
        """Whether the slots could be read: nothing at all can, text that is no JSON cannot."""
        return self._slots[1]

    @property
    def _slots(self) -> tuple[Mapping[str, Any], bool]:
        if self._read is None:
            self._read = read_slots(self._came)
        return self._read

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskResult) and self._facts == other._facts

    def __repr__(self) -> str:
        # Without the slots: what people answered belongs into no log.
        return f"TaskResult({self.biz_id!r}, status={self.status!r}, task_id={self.task_id!r})"

    @property
    def _facts(self) -> tuple[Any, ...]:
        return self.biz_id, *self._slots, self.status, self.task_id, self.created_at

    __hash__ = None  # type: ignore[assignment]  # as any other record that holds a dict


class ResultQuery(BaseModel):
    """How results are looked up by ``biz_id``.

    :param method: the platform's method name.
    :param request_param: name of the struct parameter that holds ``biz_ids_field``; null: flat.
    :param biz_ids_field: the field that takes the ids: a list (joined with commas where flat), or one
        text where ``max_biz_ids`` is 1.
    :param max_biz_ids: the most ids in one call, 1 by default, 10,000 at most.
    :param items_path: dotted path to the list of results, below the answer's root element.
    :param biz_id_field: the result's own ``biz_id``.
    :param output_params_field: the result's slots: see :func:`read_slots`.
    :param task_id_field: optional, the result's task id.
    :param created_at_field: optional, when the task was created.
    :param status_field: optional, how far it is.
    :param done_values: statuses that mean: answered.
    :param failed_values: statuses that mean: it will not be answered (not reached, refused …).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True
    )

    method: Name
    request_param: Name | None = None
    biz_ids_field: Name
    max_biz_ids: Annotated[int, Field(ge=1, le=10_000)] = 1
    items_path: Name
    biz_id_field: Name = "biz_id"
    output_params_field: Name = "output_params"
    task_id_field: Name | None = None
    created_at_field: Name | None = None
    status_field: Name | None = None
    done_values: tuple[str, ...] = ()
    failed_values: tuple[str, ...] = ()

    @classmethod
    def parse(cls, value: Any, *, where: str) -> ResultQuery:
        """Return the query that a user wrote as a dict or as JSON text.

        :param where: where it was written, for the message.
        :raises LingyangConfigError: naming each wrong key, with the nearest right one.
        """
        if isinstance(value, ResultQuery):
            return value
        value = _of_json(value, where=where)
        if not isinstance(value, Mapping):
            raise LingyangConfigError(f"{where}: result_query must be a JSON object")
        try:
            query = cls.model_validate(dict(value))
        except ValidationError as error:
            problems = "; ".join(_problem(field, reason) for field, reason in explain(error))
            raise LingyangConfigError(f"{where}: result_query: {problems}") from None
        if (query.done_values or query.failed_values) and not query.status_field:
            raise LingyangConfigError(
                f"{where}: result_query: done_values and failed_values need a status_field"
            )
        return query

    def calls(self, biz_ids: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Yield, for at most ``max_biz_ids`` ids each, the ids and the business parameters of the call."""
        for start in range(0, len(biz_ids), self.max_biz_ids):
            chunk = list(biz_ids[start : start + self.max_biz_ids])
            value: Any = chunk if self.max_biz_ids > 1 else chunk[0]
            if self.request_param:
                yield chunk, {self.request_param: _struct({self.biz_ids_field: value})}
            elif isinstance(value, str):
                yield chunk, {self.biz_ids_field: value}
            elif any("," in biz_id for biz_id in chunk):
                raise LingyangConfigError(
                    "a biz_id holds a comma, which a flat list parameter cannot carry: "
                    "set the result_query's max_biz_ids to 1"
                )
            else:
                yield chunk, {self.biz_ids_field: ",".join(chunk)}

    def read(
        self,
        payload: Mapping[str, Any],
        scrub: Scrub = lambda text: text,
        request_id: str | None = None,
        *,
        task_ids: Mapping[str, str | None] | None = None,
    ) -> dict[str, TaskResult]:
        """Return the results in an answer, by ``biz_id``.

        :param payload: the answer below its root element.
        :param scrub: takes the request's values out of texts.
        :param request_id: the gateway's id of the call, for errors.
        :param task_ids: ``biz_id`` → the task that is meant, where it is known. Of several results of one ``biz_id``
            that task's counts, else the last.
        :raises RequestRefusedError: the answer says ``success`` false. It is no list without results: people
            who are not found may be sent again.
        :raises AnswerUnreadableError: when ``items_path`` does not fit; tells the path and the keys there.
        """
        results: dict[str, TaskResult] = {}
        # Looked up once: every field of a pydantic model that is read in the loop is felt with a million people.
        biz_id_field, slots_field = self.biz_id_field, self.output_params_field
        status_field, task_id_field = self.status_field, self.task_id_field
        created_at_field = self.created_at_field
        for item in self._items(payload, scrub, request_id):
            biz_id = item.get(biz_id_field) if isinstance(item, dict) else None
            # Nearly all is text, and a function called for nothing is felt, too.
            if type(biz_id) is not str:
                biz_id = plain_text(biz_id)
            if biz_id is None:
                raise self._misfit(biz_id_field, f"each item of {self.items_path}", item, scrub(request_id))
            task_id = plain_text(item.get(task_id_field)) if task_id_field else None
            if task_ids and biz_id in results and results[biz_id].task_id == task_ids.get(biz_id) is not None:
                continue
            results[biz_id] = TaskResult(
                biz_id,
                item.get(slots_field),
                plain_text(item.get(status_field)) if status_field else None,
                task_id,
                plain_text(item.get(created_at_field)) if created_at_field else None,
            )
        return results

    def _items(self, payload: Mapping[str, Any], scrub: Scrub, request_id: str | None) -> list[Any]:
        node: Any = payload
        parts = self.items_path.split(".")
        for depth, part in enumerate(parts):
            _check_success(node, scrub, request_id)
            if node is None or (node == {} and depth):
                return []
            if isinstance(node, Mapping) and part in node:
                node = node[part]
                continue
            # The platform leaves an empty list out. Where something else stands that could be it, or where not even
            # the first step fits, the path is wrong instead, and "nobody was found" would be a lie.
            left_out = isinstance(node, Mapping) and not any(map(_could_be_items, node.values()))
            if left_out and (depth or len(parts) == 1):
                return []
            raise self._misfit(
                part, ".".join(parts[:depth]) or "the answer's root element", node, scrub(request_id)
            )
        return as_list(node)

    def _misfit(self, part: str, where: str, node: Any, request_id: str | None) -> AnswerUnreadableError:
        holds = names_in(node) if isinstance(node, Mapping) else f"a {type(node).__name__}"
        return AnswerUnreadableError(
            f"the result_query does not fit the answer of {self.method}: no {part!r} in {where}, which holds: {holds}",
            replay=Replay.NEVER,
            request_id=request_id,
            hint="Correct items_path or biz_id_field in the result_query.",
        )


def _of_json(value: Any, *, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        # Not its own text, which may grow to hold what was written.
        place = f"line {error.lineno}, column {error.colno}"
        raise LingyangConfigError(f"{where}: result_query is not JSON ({place})") from None
    except (ValueError, RecursionError):
        raise LingyangConfigError(f"{where}: result_query is not JSON") from None


def _check_success(node: Any, scrub: Scrub, request_id: str | None) -> None:
    if isinstance(node, Mapping) and str(plain_text(node.get("success"))).lower() == "false":
        raise RequestRefusedError(
            "the platform refused the look-up (success=false)",
            code=shown_code(plain_text(node.get("code")), scrub),
            msg=scrub(plain_text(node.get("message"))),
            request_id=scrub(request_id),
            hint="Check the result_query's request_param, biz_ids_field and max_biz_ids.",
        )


def parse_statuses(value: Any, *, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return done_values and failed_values, out of a whole result_query or of one that holds nothing else.

    :raises LingyangConfigError: they are no lists of words.
    """
    value = _of_json(value, where=where)
    if isinstance(value, Mapping) and value.keys() <= {"done_values", "failed_values"}:
        value = {"method": "-", "biz_ids_field": "-", "items_path": "-", "status_field": "-", **value}
    query = ResultQuery.parse(value, where=where)
    return query.done_values, query.failed_values


def as_list(value: Any) -> list[Any]:
    """Return a list of the platform in any of its spellings: absent, null, ``{}``, wrapped once, or plain."""
    if value is None or value == {} or value == "":
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        (inner,) = value.values()
        if isinstance(inner, list):
            return inner
        if not inner and not isinstance(inner, (bool, int)):
            return []
        if isinstance(inner, Mapping):
            return [inner]
    return [value]


def _could_be_items(value: Any) -> bool:
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
        return isinstance(value, (Mapping, list)) and bool(value)
    return isinstance(value, list) and bool(value)


def plain_text(value: Any) -> str | None:
    """Return a value of an answer as text; None for what is none, a list or a struct."""
    if value is None or isinstance(value, str):
        return value
    # Not Mapping, which takes ten times as long to ask for: what comes from JSON is a dict.
    return None if isinstance(value, (dict, list)) else str(value)


def names_in(node: Mapping[str, Any]) -> str:
    """Return the names in a struct of an answer; those that may be data, such as a phone number, as "…"."""
    names = [name for name in node if _FIELD_NAME.fullmatch(name)][:20]
    return ", ".join(sorted(names) + ["…"] * (len(names) < len(node))) or "nothing"


def _struct(value: Any) -> str:
    try:
        return dump_json(value)
    except PydanticCustomError:
        # from None: its own text repeats what could not be written.
        raise RequestInvalidError("a biz_id holds text that is not Unicode; nothing was sent") from None


def read_slots(value: Any) -> tuple[Mapping[str, Any], bool]:
    """Return slot → value, and whether the value could be read.

    :param value: an object, slot → value; a list of ``{"name", "value", …}``, or an object that holds such a list as
        ``slots``, as the platform pushes results (open.fliggy.com/docs/api.htm?apiId=68994); or the JSON text of
        any of these. Nothing, or blank text, is no slots.
    """
    if isinstance(value, str):
        if not value.strip():
            return {}, True
        try:
            value = _DECODER.decode(value)
        except (ValueError, RecursionError):
            return {}, False
    if value is None:
        return {}, True
    is_object = isinstance(value, dict)
    pushed = value.get("slots") if is_object else value
    if isinstance(pushed, list) and all(isinstance(slot, dict) and "name" in slot for slot in pushed):
        return {str(slot["name"]): slot.get("value") for slot in pushed}, True
    return (value, True) if is_object else ({}, False)


def _problem(field: str, reason: str) -> str:
    near = difflib.get_close_matches(field, ResultQuery.model_fields, n=1)
    return f"{field} {reason}" + (f" (did you mean {near[0]}?)" if near and "not a field" in reason else "")
