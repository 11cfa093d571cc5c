"""Validate tasks of plain values without the models, in a third of their time. Pure.

Most tasks hold what the gateway wants already. The schema below takes such values without a call of Python, and
refuses every value that a model might refuse or change; the models then decide, and report errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Required, cast

from pydantic import ConfigDict, Field, GetPydanticSchema, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema, to_json
from typing_extensions import TypedDict

from airflow_provider_lingyang.gateway.contacts import PLAIN
from airflow_provider_lingyang.gateway.dates import date_text
from airflow_provider_lingyang.gateway.field_types import (
    ALLOW_INTERNATIONAL,
    INT64,
    json_object_of,
    json_object_text,
    to_start_time,
)
from airflow_provider_lingyang.gateway.models import (
    InitiativeBatchTaskRequest,
    InitiativeTaskRequest,
    UseBookInfo,
)


def _either(first: CoreSchema, second: CoreSchema) -> GetPydanticSchema:
    schema = core_schema.union_schema([first, second], mode="left_to_right")
    return GetPydanticSchema(lambda _source, _handler: schema)


def _text(pattern: str) -> GetPydanticSchema:
    text = core_schema.str_schema(strict=True, strip_whitespace=True, min_length=1, pattern=pattern)
    digits = core_schema.no_info_plain_validator_function(int.__repr__)
    return _either(text, core_schema.chain_schema([_INT64, digits, text]))


_INT64 = core_schema.int_schema(strict=True, ge=-INT64, lt=INT64)
_DIGITS = core_schema.str_schema(strict=True, pattern="^[0-9]{1,18}$")

# A text that begins with a control character may be blank.
FastText = Annotated[str, _text(r"^[^\x00-\x1f]")]
FastNumber = Annotated[int, _either(_INT64, core_schema.chain_schema([_DIGITS, core_schema.int_schema()]))]
FastPhone = Annotated[str, _text(PLAIN)]
FastEmail = Annotated[str, _text("^[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+$")]


def _json_object(value: Any) -> str:
    if type(value) is str:
        return json_object_text(value)
    if type(value) is dict:
        return json_object_of(value)
    raise PydanticCustomError("json_object", "must be a JSON object")


def _start_time(value: Any) -> str:
    if type(value) is str:
        return _start_time_of_text(value)
    if type(value) is datetime:
        return date_text(to_start_time(value))
    raise PydanticCustomError("date", "must be a date with a time")


@lru_cache(256)
def _start_time_of_text(text: str) -> str:
    return date_text(to_start_time(text))


FastJsonObject = Annotated[str, PlainValidator(_json_object)]
FastDate = Annotated[str, PlainValidator(_start_time)]


class FastTask(TypedDict, total=False):
    """An :class:`InitiativeTaskRequest` of plain values, as it is written."""

    __pydantic_config__ = ConfigDict(extra="forbid", hide_input_in_errors=True)  # type: ignore[misc]  # pydantic reads it from a TypedDict

    biz_id: FastText | None
    phone_number: FastPhone | None
    email: FastEmail | None
    outer_user_id: FastText | None
    cms_user_id: FastNumber | None
    user_name: FastText | None
    input_params: Required[FastJsonObject]
    output_params: Required[FastJsonObject]
    source_id: FastNumber | None
    department_id: FastNumber | None
    cms_member_type: FastText | None
    appointment_time_id: FastNumber | None
    policy_id: FastNumber | None
    book_charge_biz_info: FastJsonObject | None
    book_user_id: FastNumber | None
    plan_execute_start_time: FastDate | None


class FastRequest(TypedDict, total=False):
    """An :class:`InitiativeBatchTaskRequest`; of its tasks, those of plain values are :class:`FastTask`."""

    __pydantic_config__ = ConfigDict(extra="forbid", hide_input_in_errors=True)  # type: ignore[misc]  # pydantic reads it from a TypedDict

    task_unique_code: Required[FastText]
    batch_num: FastText | None
    task_list: Required[
        Annotated[
            list[Annotated[FastTask | InitiativeTaskRequest, Field(union_mode="left_to_right")]],
            Field(min_length=1),
        ]
    ]
    plan_id: Required[FastNumber]
    use_book_info: UseBookInfo | None


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
