"""The API page's structs as pydantic models, with the API's own names and nesting.

Source: API ``alibaba.lingyang.utouch.submit.initiative.batch.task``; its Java sample decides the nesting.
Lenient with input (a number for a String, a dict for a String that holds JSON, a datetime for a Date), exact in
requests. Personal fields never show in a ``repr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway.field_types import (
    Date,
    Email,
    JsonObject,
    Number,
    OrBlank,
    Phone,
    Text,
    to_date,
)

SUBMIT_METHOD: Final = "alibaba.lingyang.utouch.submit.initiative.batch.task"
SUBMIT_PARAM: Final = "initiative_batch_task_request"


def _private() -> Any:
    """Return a field that no ``repr`` shows, None by default. A new one each time: pydantic 2.11 adds what a type says
    to the field itself.
    """
    return Field(default=None, repr=False)


class _Struct(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)

    def to_json(self) -> str:
        """Return the struct as the gateway wants it: compact, without nulls, non-ASCII raw."""
        return self.model_dump_json(exclude_none=True)


class InitiativeTaskRequest(_Struct):
    """One recipient to be called, texted or mailed (the Java sample's ``obj4``).

    ``input_params``, ``output_params`` and ``book_charge_biz_info`` take a dict or the text of a JSON
    object; ``plan_execute_start_time`` takes a datetime (a naive one is China's time) or text.
    """

    biz_id: OrBlank[Text] = None
    phone_number: OrBlank[Phone] = _private()
    email: OrBlank[Email] = _private()
    outer_user_id: OrBlank[Text] = _private()
    cms_user_id: OrBlank[Number] = _private()
    user_name: OrBlank[Text] = _private()
    input_params: JsonObject = Field(repr=False)
    output_params: JsonObject = Field(repr=False)
    source_id: OrBlank[Number] = None
    department_id: OrBlank[Number] = None
    cms_member_type: OrBlank[Text] = None
    appointment_time_id: OrBlank[Number] = None
    policy_id: OrBlank[Number] = None
    book_charge_biz_info: OrBlank[JsonObject] = _private()
    book_user_id: OrBlank[Number] = _private()
    plan_execute_start_time: OrBlank[Date] = None


class UseBookInfo(_Struct):
    """The account book that pays (the Java sample's ``obj5``)."""

    use_platform: Text
    book_code: Text
    book_owner_id: Number


class InitiativeBatchTaskRequest(_Struct):
    """One call: tasks of one plan and one ``batch_num`` (the Java sample's ``obj1``)."""

    task_unique_code: Text
    batch_num: OrBlank[Text] = None
    task_list: Annotated[list[InitiativeTaskRequest], Field(min_length=1)]
    plan_id: Number
    use_book_info: UseBookInfo | None = None


def _date_or_text(value: Any) -> Any:
    """An echo's date is information only: one of an unknown form is kept as text."""
    try:
        return to_date(value)
    except PydanticCustomError:
        return str(value)


EchoDate = Annotated[datetime | str | None, BeforeValidator(_date_or_text)]


class InitiativeTaskEcho(BaseModel):
    """The gateway's echo of an accepted task. Every field may be absent; unknown ones are ignored."""

    model_config = ConfigDict(
        extra="ignore", hide_input_in_errors=True, frozen=True, coerce_numbers_to_str=True
    )

    biz_id: str | None = None
    phone_number: str | None = _private()
    email: str | None = _private()
    outer_user_id: str | None = _private()
    cms_user_id: int | None = _private()
    user_name: str | None = _private()
    input_params: Any = _private()
    output_params: Any = _private()
    source_id: int | None = None
    department_id: int | None = None
    cms_member_type: str | None = None
    appointment_time_id: int | None = None
    policy_id: int | None = None
    book_charge_biz_info: Any = _private()
    book_user_id: int | None = _private()
    plan_execute_start_time: EchoDate = None

    @model_validator(mode="wrap")
    @classmethod
    def _without_unreadable(cls, echo: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Drop unreadable fields: all but the ``biz_id`` is information only, and the task was accepted."""
        try:
            return validate(echo)
        except ValidationError as error:
            unreadable = {item["loc"][0] for item in error.errors(include_input=False) if item["loc"]}
            if not isinstance(echo, Mapping) or not unreadable or "biz_id" in unreadable:
                raise
            return validate({name: value for name, value in echo.items() if name not in unreadable})


class InitiativeTaskResponse(BaseModel):
    """One accepted task: its id, and the echo of its recipient."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, frozen=True)

    task_id: int | None = None
    task_request: InitiativeTaskEcho | None = None


def explain(error: ValidationError) -> list[tuple[str, str]]:
    """Return the problems as (field, reason) pairs, without the value, which pydantic's own text repeats."""
    return [
        (".".join(map(str, item["loc"])), _reason(item["type"], item["msg"]))
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]


_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of the API",
    "string_too_short": "is blank",
    "string_unicode": "holds text that is not Unicode",
    "too_short": "is empty",
}
_OWN_TYPES = frozenset(("text", "number", "json_object", "date", "phone", "email"))


def _reason(kind: str, message: str) -> str:
    return _REASONS.get(kind) or (message if kind in _OWN_TYPES else f"is not valid ({kind})")
