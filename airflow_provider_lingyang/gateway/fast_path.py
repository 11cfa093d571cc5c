"""Validate tasks of plain values without the models, in a third of their time. Pure.

Most tasks hold what the gateway wants already. The schema below takes such values without a call of Python, and
refuses every value that a model might refuse or change; the models then decide, and report errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Required, cast, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import CoreSchema, core_schema, to_json
from typing_extensions import TypedDict

from airflow_provider_lingyang.gateway import field_types as types
from airflow_provider_lingyang.gateway.contacts import PLAIN
from airflow_provider_lingyang.gateway.dates import date_text
from airflow_provider_lingyang.gateway.field_types import ALLOW_INTERNATIONAL, INT64
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest, InitiativeTaskRequest


def _either(first: CoreSchema, second: CoreSchema) -> GetPydanticSchema:
    schema = core_schema.union_schema([first, second], mode="left_to_right")
    return GetPydanticSchema(lambda _source, _handler: schema)


def _text(pattern: str) -> GetPydanticSchema:
    text = core_schema.str_schema(strict=True, strip_whitespace=True, min_length=1, pattern=pattern)
    digits = core_schema.no_info_plain_validator_function(int.__repr__)
    return _either(text, core_schema.chain_schema([_INT64, digits, text]))


_INT64 = core_schema.int_schema(strict=True, ge=-INT64, lt=INT64)
_DIGITS = core_schema.str_schema(strict=True, pattern="^[0-9]{1,18}$")


def _start_time(value: Any) -> str:
    if type(value) is str:
        return _start_time_of_text(value)
    if type(value) is datetime:
        return date_text(types.to_start_time(value))
    raise ValueError("not plain")


@lru_cache(256)
def _start_time_of_text(text: str) -> str:
    return date_text(types.to_start_time(text))


# A text that begins with a control character may be blank.
_TEXT = Annotated[str, _text(r"^[^\x00-\x1f]")]
_NUMBER = Annotated[int, _either(_INT64, core_schema.chain_schema([_DIGITS, core_schema.int_schema()]))]
_PLAIN_TYPES: dict[Any, Any] = {
    types.Text: _TEXT,
    types.Number: _NUMBER,
    types.Phone: Annotated[str, _text(PLAIN)],
    types.Email: Annotated[str, _text("^[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+$")],
    types.JsonObject: types.JsonObject,
    types.Date: Annotated[str, PlainValidator(_start_time)],
}
"""Type of a model's field → that of plain values, as they are written."""
_OR_BLANK: Any = types.OrBlank
_FIELDS = {
    **{kind: Required[plain] for kind, plain in _PLAIN_TYPES.items()},
    **{_OR_BLANK[kind]: plain | None for kind, plain in _PLAIN_TYPES.items()},
}


def _plain(model: type[BaseModel], **others: Any) -> Any:
    """Return the type of a dict that holds plain values for a model.

    :param others: fields with a type of their own.
    """
    hints = get_type_hints(model, include_extras=True)
    fields = {name: _FIELDS.get(hints[name], hints[name]) for name in model.model_fields}
    plain = TypedDict(f"Plain{model.__name__}", fields | others, total=False)  # type: ignore[misc]  # the fields are the model's
    return with_config(ConfigDict(extra="forbid", hide_input_in_errors=True))(plain)


FastTask = _plain(InitiativeTaskRequest)
FastRequest = _plain(
    InitiativeBatchTaskRequest,
    # Tasks of other values are the model's.
    task_list=Required[
        Annotated[
            list[Annotated[FastTask | InitiativeTaskRequest, Field(union_mode="left_to_right")]],  # type: ignore[valid-type]  # mypy knows no type that is made
            Field(min_length=1),
        ]
    ],
)

_TASK = TypeAdapter(FastTask)
_REQUEST = TypeAdapter(FastRequest)


def validate_task(fields: Mapping[str, Any], *, allow_international: bool = False) -> dict[str, Any]:
    """Return a task's fields as they are written, in the order of the API page.

    :param fields: names and values of the API page, without None.
    :param allow_international: whether the phone number may be another country's.
    :raises ValidationError: it breaks the API page's rules.
    """
    try:
        return cast("dict[str, Any]", _TASK.validate_python(fields))
    except ValidationError:
        context = {ALLOW_INTERNATIONAL: allow_international}
        return InitiativeTaskRequest.model_validate(fields, context=context).model_dump(exclude_none=True)


def request_json(request: Mapping[str, Any], *, allow_international: bool = False) -> str:
    """Return a request as the gateway wants it: compact, without nulls, non-ASCII raw.

    :param request: names and values of the API page.
    :param allow_international: whether phone numbers may be another country's.
    :raises ValidationError: it breaks the API page's rules.
    """
    context = {ALLOW_INTERNATIONAL: allow_international}
    try:
        fields = _without_none(_REQUEST.validate_python(request, context=context))
    except ValidationError:
        return InitiativeBatchTaskRequest.model_validate(dict(request), context=context).to_json()
    # Of the models in there, to_json leaves None out itself.
    fields["task_list"] = [
        _without_none(task) if isinstance(task, dict) and None in task.values() else task
        for task in fields["task_list"]
    ]
    return to_json(fields, exclude_none=True).decode()


def _without_none(struct: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in struct.items() if value is not None}
