"""The API page's structs as pydantic models, with the API's own names and nesting.

Source: API ``alibaba.lingyang.utouch.submit.initiative.batch.task``; its Java sample decides the nesting.
Values are taken kindly (a number for a String, a dict for a String that holds JSON, a datetime for a Date)
and written exactly as the page says. Personal fields never show in a ``repr``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

SUBMIT_METHOD: Final = "alibaba.lingyang.utouch.submit.initiative.batch.task"
SUBMIT_PARAM: Final = "initiative_batch_task_request"
CHINA: Final = timezone(timedelta(hours=8), "CST")
"""GMT+8, the platform's only time zone (no daylight saving since 1991)."""
DATE_FORMAT: Final = "%Y-%m-%d %H:%M:%S"

_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_JAVA_DATE = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{1,2}) (\d{2}):(\d{2}):(\d{2}) (CST|UTC|GMT(?:[+-]\d{2}:?\d{2})?) (\d{4})",
    re.ASCII,
)
_ISO_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}[ Tt]\d{2}", re.ASCII)
_INT64 = 2**63
_MAX_DIGITS = 100
"""Of a Decimal: one with a large exponent would fill the memory with zeros."""


def parse_date(text: str) -> datetime:
    """Return the moment a platform date means, in China's time, on a host of any time zone and locale.

    :param text: ``yyyy-MM-dd HH:mm:ss`` (China's time), Java's ``Thu Mar 14 15:16:52 CST 2024`` (CST is
        China), or ISO 8601 (with an offset, else China's time).
    :raises ValueError: for anything else.
    """
    if found := _JAVA_DATE.fullmatch(text):
        month, day, hour, minute, second, zone, year = found.groups()
        if month not in _MONTHS:
            raise ValueError("not a date")
        moment = datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=_zone(zone)
        )
    elif not _ISO_DATE.match(text):
        raise ValueError("not a date with a time")
    else:
        moment = datetime.fromisoformat(text)
    return in_china(moment)


def date_text(moment: datetime) -> str:
    """Return a datetime as the platform writes it: ``yyyy-MM-dd HH:mm:ss`` at China's time."""
    moment = in_china(moment)
    # Not %Y: on Linux it does not pad the year 1, which is what databases hold for "no date".
    return f"{moment.year:04}-{moment:%m-%d %H:%M:%S}"


def in_china(moment: datetime) -> datetime:
    """Return a datetime in China's time: a naive one already is, an aware one is converted."""
    return moment.replace(tzinfo=CHINA) if moment.tzinfo is None else moment.astimezone(CHINA)


def _zone(name: str) -> timezone:
    if name == "CST":
        return CHINA
    offset = name.removeprefix("GMT").replace(":", "")
    if name == "UTC" or not offset:
        return UTC
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))


def _blank_to_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


def _to_text(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if (whole := _whole(value)) is not None:
        return str(whole)
    raise PydanticCustomError("text", "must be text")


def _whole(value: Any) -> int | None:
    """Return an integral Decimal as an int, or None for anything else."""
    if not isinstance(value, Decimal) or not value.is_finite() or value.adjusted() > _MAX_DIGITS:
        return None
    return int(value) if value == value.to_integral_value() else None


def _to_number(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,19}\s*", value, re.ASCII):
        value = int(value)
    elif (whole := _whole(value)) is not None:
        value = whole
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        raise PydanticCustomError("number", "must be a whole number of at most 64 bits")
    return value


def _to_json_object(value: Any) -> Any:
    """Check a JSON object, given as a dict or as text, and return its text: serialised once."""
    if value is None:
        return None
    if isinstance(value, str):
        parse_json_object(value)
        return value.strip()
    if not isinstance(value, dict):
        raise PydanticCustomError("json_object", "must be a JSON object")
    return dump_json(value)


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text holds.

    :raises PydanticCustomError: it holds something else, a name twice, or half a character.
    """
    try:
        parsed = _DECODER.decode(text.strip())
        if "\\u" in text:
            # An escaped half of a character passes for JSON, and no one can show it.
            json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise PydanticCustomError("json_object", "must be a JSON object")
    return parsed


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice: which value counts is up to the reader")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def dump_json(value: Any) -> str:
    """Return compact JSON with raw non-ASCII, as the platform wants it.

    Decimals and UUIDs become text, datetimes ``yyyy-MM-dd HH:mm:ss`` at China's time, other dates ISO text.
    """
    try:
        text = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_json_default
        )
        text.encode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise PydanticCustomError("json_object", "holds a value that JSON cannot hold") from None
    return text


def _json_default(value: Any) -> str:
    if isinstance(value, datetime):
        return date_text(value)
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= _MAX_DIGITS:
        return format(value, "f")
    if isinstance(value, date) or type(value).__name__ in ("UUID", "time"):
        return str(value)
    raise TypeError("not JSON")


def _to_date(value: Any) -> Any:
    if value is None:
        return None
    try:
        if isinstance(value, datetime):
            return in_china(value)
        if isinstance(value, str):
            return parse_date(value.strip())
    except (ValueError, OverflowError):
        pass
    raise PydanticCustomError("date", "must be a date with a time, such as 2024-03-12 14:05:56")


def _to_phone(value: Any) -> Any:
    text = _to_text(value)
    if text is None:
        return None
    digits = re.sub(r"[\s-]", "", text)
    digits = re.sub(r"^(?:\+|00)86", "", digits)
    if not re.fullmatch(r"[0-9]{5,20}", digits):
        raise PydanticCustomError("phone", "is not a phone number (5 to 20 digits)")
    return digits


def _to_email(value: Any) -> Any:
    text = _to_text(value)
    if text is None:
        return None
    text = text.strip()
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise PydanticCustomError("email", "is not an email address")
    return text


_STRIPPED = StringConstraints(strip_whitespace=True, min_length=1)
_NOT_BLANK = BeforeValidator(_blank_to_none)

Text = Annotated[str, _STRIPPED, BeforeValidator(_to_text)]
Number = Annotated[int, BeforeValidator(_to_number)]
JsonObject = Annotated[str, BeforeValidator(_to_json_object)]
Date = Annotated[
    datetime,
    BeforeValidator(_to_date),
    PlainSerializer(date_text, return_type=str),
]
Phone = Annotated[str, BeforeValidator(_to_phone)]
Email = Annotated[str, BeforeValidator(_to_email)]

OptionalText = Annotated[Text | None, _NOT_BLANK]
OptionalNumber = Annotated[Number | None, _NOT_BLANK]
OptionalJsonObject = Annotated[JsonObject | None, _NOT_BLANK]
OptionalDate = Annotated[Date | None, _NOT_BLANK]
OptionalPhone = Annotated[Phone | None, _NOT_BLANK]
OptionalEmail = Annotated[Email | None, _NOT_BLANK]

PRIVATE = Field(default=None, repr=False)


class _Struct(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class InitiativeTaskRequest(_Struct):
    """One person to be called, texted or mailed (the Java sample's ``obj4``).

    ``input_params``, ``output_params`` and ``book_charge_biz_info`` take a dict or the text of a JSON
    object; ``plan_execute_start_time`` takes a datetime (a naive one is China's time) or text.
    """

    biz_id: OptionalText = None
    phone_number: OptionalPhone = PRIVATE
    email: OptionalEmail = PRIVATE
    outer_user_id: OptionalText = PRIVATE
    cms_user_id: OptionalNumber = PRIVATE
    user_name: OptionalText = PRIVATE
    input_params: JsonObject = Field(repr=False)
    output_params: JsonObject = Field(repr=False)
    source_id: OptionalNumber = None
    department_id: OptionalNumber = None
    cms_member_type: OptionalText = None
    appointment_time_id: OptionalNumber = None
    policy_id: OptionalNumber = None
    book_charge_biz_info: OptionalJsonObject = PRIVATE
    book_user_id: OptionalNumber = PRIVATE
    plan_execute_start_time: OptionalDate = None

    def to_json(self) -> str:
        """Return the struct as the gateway wants it: compact, without nulls, non-ASCII raw."""
        return self.model_dump_json(exclude_none=True)


class UseBookInfo(_Struct):
    """The account book that pays (the Java sample's ``obj5``)."""

    use_platform: Text
    book_code: Text
    book_owner_id: Number

    def to_json(self) -> str:
        """Return the struct as the gateway wants it."""
        return self.model_dump_json()


class InitiativeBatchTaskRequest(_Struct):
    """One call: tasks of one plan and one ``batch_num`` (the Java sample's ``obj1``)."""

    task_unique_code: Text
    batch_num: OptionalText = None
    task_list: Annotated[list[InitiativeTaskRequest], Field(min_length=1)]
    plan_id: Number
    use_book_info: UseBookInfo | None = None

    def to_json(self) -> str:
        """Return the struct as the gateway wants it: compact, without nulls, non-ASCII raw."""
        return self.model_dump_json(exclude_none=True)


def _date_or_text(value: Any) -> Any:
    """An echo's date is information only: one of an unknown form is kept as text."""
    try:
        return _to_date(value)
    except PydanticCustomError:
        return str(value)


EchoDate = Annotated[datetime | str | None, BeforeValidator(_date_or_text)]


class InitiativeTaskEcho(BaseModel):
    """What the gateway repeats of a task it accepted. Every field may be absent; unknown ones are ignored."""

    model_config = ConfigDict(
        extra="ignore", hide_input_in_errors=True, frozen=True, coerce_numbers_to_str=True
    )

    biz_id: str | None = None
    phone_number: str | None = PRIVATE
    email: str | None = PRIVATE
    outer_user_id: str | None = PRIVATE
    cms_user_id: int | None = PRIVATE
    user_name: str | None = PRIVATE
    input_params: Any = PRIVATE
    output_params: Any = PRIVATE
    source_id: int | None = None
    department_id: int | None = None
    cms_member_type: str | None = None
    appointment_time_id: int | None = None
    policy_id: int | None = None
    book_charge_biz_info: Any = PRIVATE
    book_user_id: int | None = PRIVATE
    plan_execute_start_time: EchoDate = None

    @model_validator(mode="wrap")
    @classmethod
    def _without_unreadable(cls, echo: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Leave out what cannot be read: all but the ``biz_id`` is information only, and the task was accepted."""
        try:
            return validate(echo)
        except ValidationError as error:
            unreadable = {item["loc"][0] for item in error.errors(include_input=False) if item["loc"]}
            if not isinstance(echo, Mapping) or not unreadable or "biz_id" in unreadable:
                raise
            return validate({name: value for name, value in echo.items() if name not in unreadable})


class InitiativeTaskResponse(BaseModel):
    """One accepted task: its id, and the echo that tells whose it is."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, frozen=True)

    task_id: int | None = None
    task_request: InitiativeTaskEcho | None = None


def explain(error: ValidationError) -> list[tuple[str, str]]:
    """Return what is wrong as (field, reason) pairs; never with the value, which pydantic's own text repeats."""
    return [
        (
            ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-")),
            _reason(item["type"], item["msg"]),
        )
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
