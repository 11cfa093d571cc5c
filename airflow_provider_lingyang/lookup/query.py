"""The result look-up, described by the user as data: the platform has no public API page for it.

Pure: the description, and the parameters of the calls for some ``biz_ids``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from itertools import combinations
from threading import Lock
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import override

from airflow_provider_lingyang.gateway.dates import in_china
from airflow_provider_lingyang.gateway.errors import (
    LingyangConfigError,
    RequestInvalidError,
)
from airflow_provider_lingyang.gateway.field_types import dump_json
from airflow_provider_lingyang.gateway.parameters import parameter_texts
from airflow_provider_lingyang.lookup.result import TaskResult as TaskResult
from airflow_provider_lingyang.lookup.result import spellings, standing, zone_named
from airflow_provider_lingyang.spelling import did_you_mean

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Word = Annotated[str, BeforeValidator(lambda value: str(value).lower() if isinstance(value, bool) else value)]
"""A value of an answer, as text: JSON's ``true`` is "true"."""
Statuses = Annotated[tuple[Word, ...], AfterValidator(spellings)]
ANY = "*"
"""Of ``success_values``: the field is there, and not null."""
_TODAY = re.compile(r"\{today:([^{}\"]+)\}")
_PLACE = re.compile(r"\{\s*\w+\s*(?:[!:][^{}\"]*)?\}")
_DIRECTIVE = re.compile(r"%[YymdHMSjUWuwBbAaGgVCDFTRheIp%]")
"""Those that every platform's ``strftime`` knows."""
_BUILDING = Lock()
"""A model is built on first use, which takes 20 ms that no DAG file should pay. pydantic's own way of it is not
thread-safe in every version."""


class StatusMeaning(BaseModel):
    """What a status means: all that a query says where results come from a table.

    :param status_field: optional, the field that holds how far a result is.
    :param done_values: statuses that mean: answered.
    :param failed_values: statuses that mean: it will not be answered (not reached, refused …).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True, defer_build=True
    )

    status_field: Name | None = None
    done_values: Statuses = ()
    failed_values: Statuses = ()

    @override
    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        with _BUILDING:
            cls.model_rebuild()
        return super().model_validate(obj, **options)

    @classmethod
    def parse(cls, value: Any, *, where: str) -> Self:
        """Return what a user wrote as a dict or as JSON text.

        :param where: where it was written, for the message.
        :raises LingyangConfigError: naming each wrong key, with the nearest right one.
        """
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate(keys_of(value))
        except ValidationError as error:
            problem = problems_of(error, cls)
        except ValueError as error:
            problem = str(error)
        named = where if where.endswith("result_query") else f"{where}: result_query"
        raise LingyangConfigError(f"{named}: {problem}")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unread(cls, keys: Any) -> Any:
        """Leave out the keys of a look-up, where nothing is looked up."""
        unread = ResultQuery.model_fields.keys() - cls.model_fields.keys()
        return {key: value for key, value in keys.items() if key not in unread}


class ResultQuery(StatusMeaning):
    """How results are looked up by ``biz_id``. Names of fields may be dotted paths.

    :param method: the platform's method name.
    :param request_param: name of the struct parameter that holds the other parameters; null: they are flat.
    :param biz_ids_field: the field that takes the ids: a list (joined with commas where flat), or one
        text where ``max_biz_ids`` is 1.
    :param max_biz_ids: the most ids in one call, 1 by default, 10,000 at most.
    :param fixed_params: further parameters, plain JSON; ``{today:%Y%m%d}`` in a name or a text is China's date.
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
    """

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

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        """Raise for the first rule about several keys that is broken."""
        words = self.success_values
        if bool(self.success_field) != bool(words):
            raise ValueError("success_field and success_values belong together")
        if not all(word.strip() for word in words):
            raise ValueError("success_values holds a blank value")
        if ANY in words and len(words) > 1:
            raise ValueError(f"success_values: {ANY!r} means any value, so it stands alone")
        if self.created_at_zone and not self.created_at_field:
            raise ValueError("created_at_zone needs a created_at_field")
        if self.page_size_field and not self.page_size:
            raise ValueError("page_size_field needs a page_size")
        if (self.done_values or self.failed_values) and not self.status_field:
            raise ValueError("done_values and failed_values need a status_field")
        _ = self.zone
        _check_names((self.biz_ids_field, self.page_field, self.page_size_field, *self.fixed_params))
        _check_places(self._fixed_text)
        return self

    @property
    def zone(self) -> tzinfo | None:
        """The zone of a ``created_at`` without one; None: not given."""
        return None if self.created_at_zone is None else zone_named(self.created_at_zone)

    @property
    def _fixed_text(self) -> str:
        """The JSON of ``fixed_params``: its braces are followed by no letter, and those of a date by no quote."""
        return json.dumps(self.fixed_params, ensure_ascii=False)

    @property
    def proves(self) -> str:
        """The proofs that the look-up can give, in one sentence for the author of a campaign."""
        absent = (
            "that it was not, only where the answer holds a flag that says success (success, is_success, "
            "result_ok …) and is complete; an API without a flag needs success_field and success_values"
        )
        if self.success_field:
            words = "is there" if self.success_values == (ANY,) else f"is {' or '.join(self.success_values)}"
            absent = f"that it was not, where {self.success_field} {words} and the answer is complete"
        dated = "without created_at_field a result of an earlier campaign with the same biz_id counts, too"
        if self.created_at_field:
            age = "11 minutes" if self.zone else "26 hours"
            dated = f"a result that is {age} older is an earlier campaign's"
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
        more: dict[str, Any] = {}
        if self.fixed_params:
            today = in_china(now).strftime
            more = json.loads(_TODAY.sub(lambda found: today(found[1]), self._fixed_text))
        if self.page_size_field:
            more[self.page_size_field] = self.page_size
        if self.page_field and page is not None:
            more[self.page_field] = page
        if self.request_param:
            struct: dict[str, Any] = {}
            for name, inner in ({self.biz_ids_field: value} | more).items():
                if inner is not None:
                    _put(struct, name, inner)
            try:
                return {self.request_param: dump_json(struct)}
            except PydanticCustomError:
                # from None: its own text repeats the id.
                raise RequestInvalidError(
                    "a biz_id holds text that is not Unicode; nothing was sent"
                ) from None
        if not isinstance(value, str):
            if any("," in biz_id for biz_id in value):
                raise LingyangConfigError(
                    "a biz_id holds a comma, which a flat list parameter cannot carry: "
                    "set the result_query's max_biz_ids to 1"
                )
            value = ",".join(value)
        return {self.biz_ids_field: value} | parameter_texts(self.method, more)

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
            meant = task_ids or {}
            ranked = sorted(results, key=lambda result: self._rank(result, meant.get(result.biz_id)))
            found = {result.biz_id: result for result in ranked}
        return found

    def _rank(self, result: TaskResult, task_id: str | None) -> tuple[Any, ...]:
        progress = 0 if result.status is None else 1
        if result.status in self.done_values:
            progress = 3
        elif result.status in self.failed_values:
            progress = 2
        filled = sum(value not in (None, "") for value in result.output_params.values())
        return *standing(result, task_id, progress, self.zone), filled

    @property
    def result_paths(self) -> Sequence[str]:
        """The fields of a result, where one of them is a path."""
        optional = self.status_field, self.task_id_field, self.created_at_field
        fields = [self.biz_id_field, self.output_params_field, *filter(None, optional)]
        return fields if any("." in field for field in fields) else ()


_RULE = "value_error"
_REASONS = {"missing": "is missing", "tuple_type": "must be a list"}


def keys_of(value: Any) -> dict[str, Any]:
    """Return the keys of a query that a user wrote as a dict or as JSON text, unchecked.

    :raises ValueError: it is neither.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            # Not its own text, which may repeat the query.
            raise ValueError(f"it is not JSON (line {error.lineno}, column {error.colno})") from None
        except RecursionError:
            raise ValueError("it is not JSON") from None
    if not isinstance(value, Mapping):
        raise ValueError("it must be a dict, or the JSON of one")
    return dict(value)


def problems_of(error: ValidationError, model: type[BaseModel], unknown: Collection[str] = ()) -> str:
    """Return each problem of what a user wrote for a model, without the values.

    :param unknown: keys whose values are not known yet: what concerns them, or several keys, is left out.
    """
    problems: list[str] = []
    keys = ""
    for item in error.errors(include_url=False):
        kind, name = item["type"], ".".join(map(str, item["loc"]))[:80]
        if unknown and (kind == _RULE or item["loc"][0] in unknown):
            continue
        if kind == _RULE:
            problems.append(str(item["ctx"]["error"]))
        elif kind == "extra_forbidden":
            problems.append(f"{name!r} is no key of it{did_you_mean(name, model.model_fields)}")
            keys = f"; it takes {', '.join(model.model_fields)}"
        elif item["input"] is None or kind == "string_too_short":
            problems.append(f"{name} is blank: fill it in, or leave it out")
        else:
            problems.append(f"{name} {_REASONS.get(kind) or 'is wrong (' + item['msg'] + ')'}")
    return "; ".join(problems) + keys


def _check_names(names: Iterable[str | None]) -> None:
    for one, other in combinations(filter(None, names), 2):
        if f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."):
            raise ValueError(
                f"{other!r} is twice among biz_ids_field, page_field, page_size_field and fixed_params"
            )


def _check_places(text: str) -> None:
    for form in _TODAY.findall(text):
        if not _DIRECTIVE.search(form) or "%" in _DIRECTIVE.sub("", form):
            raise ValueError("fixed_params: a date is written as {today:%Y%m%d}, with directives of strftime")
    if found := _PLACE.search(_TODAY.sub("", text)):
        raise ValueError(
            f"fixed_params: {found[0][:40]} is unknown; only a date, such as {{today:%Y%m%d}}, is filled in"
        )


def _put(struct: dict[str, Any], path: str, value: Any) -> None:
    """Set a field of a struct; one with dots in its name is a field of a struct within."""
    *within, last = path.split(".")
    for name in within:
        struct = struct.setdefault(name, {})
    struct[last] = value
