"""The result look-up, described by the user as data: the platform has no public API page for it.

Pure: the description, and the parameters of the calls for some ``biz_ids``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway.dates import in_china
from airflow_provider_lingyang.gateway.errors import (
    LingyangConfigError,
    RequestInvalidError,
)
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.models import explain
from airflow_provider_lingyang.lookup.created_at import zone_named
from airflow_provider_lingyang.lookup.parameters import ANY, as_parameter, contradiction, filled, put
from airflow_provider_lingyang.lookup.result import TaskResult as TaskResult
from airflow_provider_lingyang.lookup.result import spellings, standing

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Word = Annotated[str, BeforeValidator(lambda value: str(value).lower() if isinstance(value, bool) else value)]
"""A value of an answer, as text: JSON's ``true`` is "true"."""
Statuses = Annotated[tuple[Word, ...], AfterValidator(spellings)]


class ResultQuery(BaseModel):
    """How results are looked up by ``biz_id``. Names of fields may be dotted paths.

    :param method: the platform's method name.
    :param request_param: name of the struct parameter that holds the other parameters; null: they are flat.
    :param biz_ids_field: the field that takes the ids: a list (joined with commas where flat), or one
        text where ``max_biz_ids`` is 1.
    :param max_biz_ids: the most ids in one call, 1 by default, 10,000 at most.
    :param fixed_params: further parameters, plain JSON; ``{today:%Y%m%d}`` in a text is the date in China's time.
    :param page_field: optional, the field that takes the number of the page, from 1: pages are followed.
    :param page_size_field: optional, the field that takes ``page_size``.
    :param page_size: optional, how many results a page holds at most.
    :param items_path: dotted path to the list of results, below the answer's root element.
    :param success_field: optional, dotted path below the root element to the sign of success; for an API without a flag
        such as ``success``.
    :param success_values: its values that mean success; ``["*"]``: it is there, and not null.
    :param biz_id_field: the result's own ``biz_id``.
    :param output_params_field: the result's slots: see :func:`~airflow_provider_lingyang.lookup.slots.read_slots`.
    :param task_id_field: optional, the result's task id.
    :param created_at_field: optional, when the task was created.
    :param created_at_zone: optional, the zone of a ``created_at`` that names none: an IANA name or an offset such as
        ``+08:00``. Without it a result is an earlier campaign's only if it is more than 26 hours older than the
        request; with it, 11 minutes.
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
    fixed_params: dict[str, JsonValue] = {}
    page_field: Name | None = None
    page_size_field: Name | None = None
    page_size: Annotated[int, Field(ge=1, le=100_000)] | None = None
    items_path: Name
    success_field: Name | None = None
    success_values: tuple[Word, ...] = ()
    biz_id_field: Name = "biz_id"
    output_params_field: Name = "output_params"
    task_id_field: Name | None = None
    created_at_field: Name | None = None
    created_at_zone: Name | None = None
    status_field: Name | None = None
    done_values: Statuses = ()
    failed_values: Statuses = ()

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
        problem = contradiction(query.model_dump())
        try:
            _ = query.zone
        except ValueError:
            problem = "created_at_zone is neither an IANA name (Asia/Shanghai) nor an offset (+08:00)"
        if problem:
            raise LingyangConfigError(f"{where}: result_query: {problem}")
        return query

    @cached_property
    def zone(self) -> tzinfo | None:
        """The zone of a ``created_at`` without one; None: not given."""
        return None if self.created_at_zone is None else zone_named(self.created_at_zone)

    @property
    def proves(self) -> str:
        """The proofs that the look-up can give, in one sentence for the author of a campaign."""
        if self.success_field:
            words = "is there" if self.success_values == (ANY,) else f"is {' or '.join(self.success_values)}"
            absent = f"that it was not, where {self.success_field} {words} and the answer is complete"
        else:
            absent = (
                "that it was not, only where the answer holds a flag that says success (success, is_success, "
                "result_ok …) and is complete; an API without a flag needs success_field and success_values"
            )
        if self.created_at_field:
            dated = (
                f"a result that is {'11 minutes' if self.zone else '26 hours'} older is an earlier campaign's"
            )
        else:
            dated = (
                "without created_at_field a result of an earlier campaign with the same biz_id counts, too"
            )
        return f"the look-up can show that a recipient was contacted, and {absent}; {dated}"

    def chunks(self, biz_ids: Sequence[str]) -> Iterator[list[str]]:
        """Yield at most ``max_biz_ids`` ids at a time."""
        for start in range(0, len(biz_ids), self.max_biz_ids):
            yield list(biz_ids[start : start + self.max_biz_ids])

    def parameters(self, biz_ids: Sequence[str], now: datetime, page: int | None = 1) -> dict[str, str]:
        """Return the business parameters of one call.

        :param biz_ids: at most ``max_biz_ids``.
        :param now: the moment of the call (aware), for dates in ``fixed_params``.
        :param page: the number of the page, where pages are followed; None: the one that the API returns by default.
        """
        value: Any = list(biz_ids) if self.max_biz_ids > 1 else biz_ids[0]
        more: dict[str, Any] = filled(self.fixed_params, in_china(now)) if self.fixed_params else {}
        if self.page_size_field:
            more[self.page_size_field] = self.page_size
        if self.page_field and page is not None:
            more[self.page_field] = page
        if self.request_param:
            struct: dict[str, Any] = {}
            for name, inner in ({self.biz_ids_field: value} | more).items():
                if inner is not None:
                    put(struct, name, inner)
            return {self.request_param: _struct(struct)}
        if not isinstance(value, str):
            if any("," in biz_id for biz_id in value):
                raise LingyangConfigError(
                    "a biz_id holds a comma, which a flat list parameter cannot carry: "
                    "set the result_query's max_biz_ids to 1"
                )
            value = ",".join(value)
        flat = {name: as_parameter(inner) for name, inner in more.items() if inner is not None}
        return {self.biz_ids_field: value} | flat

    def preferred(
        self, results: Sequence[TaskResult], task_ids: Mapping[str, str | None] | None = None
    ) -> dict[str, TaskResult]:
        """Return one result for each ``biz_id``: the one that counts for a wait.

        That is the one of the task that is meant, else the newest, else done over failed, else the one with most
        slots, else the last.

        :param task_ids: ``biz_id`` → the task that is meant, where it is known.
        """
        found = {result.biz_id: result for result in results}
        if len(found) < len(results):
            best: dict[str, tuple[Any, ...]] = {}
            for result in results:
                rank = self._rank(result, (task_ids or {}).get(result.biz_id))
                if rank >= best.get(result.biz_id, ()):
                    best[result.biz_id] = rank
                    found[result.biz_id] = result
        return found

    def _rank(self, result: TaskResult, task_id: str | None) -> tuple[Any, ...]:
        progress = 0 if result.status is None else 1
        if result.status in self.done_values:
            progress = 3
        elif result.status in self.failed_values:
            progress = 2
        filled = sum(value not in (None, "") for value in result.output_params.values())
        return *standing(result, task_id, progress, self.zone), filled

    @cached_property
    def result_paths(self) -> Sequence[str]:
        """The fields of a result, where one of them is a path."""
        optional = self.status_field, self.task_id_field, self.created_at_field
        fields = [self.biz_id_field, self.output_params_field, *filter(None, optional)]
        return fields if any("." in field for field in fields) else ()


def _of_json(value: Any, *, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        # Not its own text, which may repeat the query.
        place = f"line {error.lineno}, column {error.colno}"
        raise LingyangConfigError(f"{where}: result_query is not JSON ({place})") from None
    except (ValueError, RecursionError):
        raise LingyangConfigError(f"{where}: result_query is not JSON") from None


def parse_statuses(value: Any, *, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return done_values and failed_values, out of a whole result_query or of one that holds nothing else.

    :raises LingyangConfigError: they are no lists of words.
    """
    value = _of_json(value, where=where)
    if isinstance(value, Mapping) and value.keys() <= {"done_values", "failed_values"}:
        value = {"method": "-", "biz_ids_field": "-", "items_path": "-", "status_field": "-", **value}
    query = ResultQuery.parse(value, where=where)
    return query.done_values, query.failed_values


def _struct(value: Any) -> str:
    try:
        return dump_json(value)
    except PydanticCustomError:
        # from None: its own text repeats the id.
        raise RequestInvalidError("a biz_id holds text that is not Unicode; nothing was sent") from None


def _problem(field: str, reason: str) -> str:
    near = difflib.get_close_matches(field, ResultQuery.model_fields, n=1)
    return f"{field} {reason}" + (f" (did you mean {near[0]}?)" if near and "not a field" in reason else "")
