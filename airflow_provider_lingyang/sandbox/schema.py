"""Structs on the wire: field → type, required or not. Defined apart from the package's own models.

Source: API page ``alibaba.lingyang.utouch.submit.initiative.batch.task`` (nesting from its Java sample);
``doc.alidayu.com/docs/doc.htm?treeId=49&articleId=101617&docType=1`` for the encoding of structs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeGuard

from airflow_provider_lingyang.sandbox.answers import Refused

INT64 = range(-(2**63), 2**63)
MAX_LOOKUP_IDS = 50
_DATE = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}", re.ASCII)
_PHONE = re.compile(r"[0-9]{5,20}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_DIGITS = re.compile(r"[0-9]+")


class Wire(Enum):
    """A type of the API page and its form in JSON."""

    STRING = "a JSON string"
    NUMBER = "a JSON integer within int64"
    DATE = "a string yyyy-MM-dd HH:mm:ss"
    JSON_OBJECT = "a string that holds a JSON object"
    STRINGS = "a list of strings, none empty"


@dataclass(frozen=True)
class Field:
    """One row of the API page's table."""

    type: Wire | Mapping[str, Field] | tuple[Mapping[str, Field]]
    """A wire type, a struct, or a list of structs (a tuple of one)."""
    required: bool = False
    pattern: re.Pattern[str] | None = None
    """The whole text must match. The API page gives no form for these fields; the stricter reading never accepts what
    the platform would refuse."""


TASK: dict[str, Field] = {
    "source_id": Field(Wire.NUMBER),
    "department_id": Field(Wire.NUMBER),
    "outer_user_id": Field(Wire.STRING),
    "input_params": Field(Wire.JSON_OBJECT, required=True),
    "user_name": Field(Wire.STRING),
    "cms_member_type": Field(Wire.STRING),
    "appointment_time_id": Field(Wire.NUMBER),
    "phone_number": Field(Wire.STRING, pattern=_PHONE),
    "policy_id": Field(Wire.NUMBER),
    "book_charge_biz_info": Field(Wire.JSON_OBJECT),
    "output_params": Field(Wire.JSON_OBJECT, required=True),
    "biz_id": Field(Wire.STRING, pattern=re.compile(r"(?s).+")),
    "book_user_id": Field(Wire.NUMBER),
    "cms_user_id": Field(Wire.NUMBER),
    "email": Field(Wire.STRING, pattern=_EMAIL),
    "plan_execute_start_time": Field(Wire.DATE),
}
USE_BOOK_INFO: dict[str, Field] = {
    "use_platform": Field(Wire.STRING, required=True),
    "book_code": Field(Wire.STRING, required=True),
    "book_owner_id": Field(Wire.NUMBER, required=True),
}
BATCH: dict[str, Field] = {
    "task_unique_code": Field(Wire.STRING, required=True),
    "batch_num": Field(Wire.STRING, pattern=_DIGITS),
    "plan_id": Field(Wire.NUMBER, required=True),
    "task_list": Field((TASK,), required=True),
    "use_book_info": Field(USE_BOOK_INFO),
}
LOOKUP_QUERY: dict[str, Field] = {
    "biz_ids": Field(Wire.STRINGS, required=True),
    # For lookup_styles.py: answers in pages, or of one day.
    "page_no": Field(Wire.NUMBER),
    "page_size": Field(Wire.NUMBER),
    "query_date": Field(Wire.STRING),
}


def is_number(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a ``Number`` of the API page: an integer within int64, no boolean."""
    return type(value) is int and value in INT64


def parse_object(text: str) -> dict[str, Any] | None:
    """Parse a JSON object; return None for anything else.

    Stricter than ``json.loads``: no NaN, no repeated name in an object, no lone surrogates.
    """
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_date(text: object) -> datetime | None:
    """Parse a ``Date`` of the wire, ``yyyy-MM-dd HH:mm:ss``, as naive; return None for anything else."""
    if not isinstance(text, str) or not _DATE.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def check_struct(struct: Mapping[str, Any], fields: Mapping[str, Field], where: str = "") -> None:
    """Check a struct against its table of fields.

    :param struct: a parsed JSON object.
    :param fields: its table.
    :param where: path of the struct, for the message, e.g. ``task_list[3].``.
    :raises Refused: code 15 with ``isv.missing-parameter:FIELD`` or ``isv.invalid-parameter:FIELD``.
    """
    for name, field in fields.items():
        if name not in struct:
            if field.required:
                raise missing(name, f"缺少必填参数 {where}{name}")
        else:
            _check_value(name, struct[name], field, where)
    for name in struct:
        if name not in fields:
            raise invalid(name, f"未知参数 {where}{name}")


def missing(name: str, sub_msg: str) -> Refused:
    """Return the refusal of a missing field."""
    return Refused(15, sub_code=f"isv.missing-parameter:{name}", sub_msg=sub_msg)


def invalid(name: str, sub_msg: str) -> Refused:
    """Return the refusal of an invalid field."""
    return Refused(15, sub_code=f"isv.invalid-parameter:{name}", sub_msg=sub_msg)


def _check_value(name: str, value: Any, field: Field, where: str) -> None:
    kind = field.type
    if isinstance(kind, Wire):
        if not _fits(value, kind) or (field.pattern and not field.pattern.fullmatch(value)):
            raise invalid(name, f"参数 {where}{name} 不合法: {kind.value} is needed")
        if field.required and not value and kind is not Wire.NUMBER:
            raise missing(name, f"参数 {where}{name} 不能为空")
    elif isinstance(kind, tuple):
        if not isinstance(value, list):
            raise invalid(name, f"参数 {where}{name} 不合法: a list is needed")
        if not value:
            raise missing(name, f"参数 {where}{name} 不能为空")
        for index, item in enumerate(value):
            path = f"{where}{name}[{index}]"
            if not isinstance(item, dict):
                raise invalid(name, f"参数 {path} 不合法: an object is needed")
            check_struct(item, kind[0], path + ".")
    else:
        if not isinstance(value, dict):
            raise invalid(name, f"参数 {where}{name} 不合法: an object is needed")
        check_struct(value, kind, f"{where}{name}.")


def _fits(value: Any, kind: Wire) -> bool:
    match kind:
        case Wire.STRING:
            return isinstance(value, str)
        case Wire.NUMBER:
            return is_number(value)
        case Wire.DATE:
            return parse_date(value) is not None
        case Wire.JSON_OBJECT:
            return isinstance(value, str) and parse_object(value) is not None
        case Wire.STRINGS:
            return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
