"""Rows whose values need no judgement, written as the gateway wants them without asking pydantic.

Most rows of most audiences are like that, and pydantic takes several times as long for them. Whatever is not obviously
right is left to the model, which knows every rule and every message; what is written here is, to the character, what
the model would write.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.gateway.contacts import PLAIN
from airflow_provider_lingyang.gateway.dates import date_text
from airflow_provider_lingyang.gateway.field_types import (
    dump_json,
    json_object_of,
    json_object_text,
    parse_json_object,
    to_start_time,
)
from airflow_provider_lingyang.gateway.models import InitiativeTaskRequest
from airflow_provider_lingyang.gateway.values import is_null

PlainRow = tuple[str, bool, str | None, str, str]
"""``biz_id``, whether it is derived, ``batch_num``, contact, JSON of the task."""

IDENTITY_FIELDS = ("phone_number", "email", "outer_user_id", "cms_user_id")
"""What a derived ``biz_id`` is made from."""
_INT64 = 2**63
# Of others the canonical form is more than their lower case.
_EMAIL = re.compile(r"[!-?A-~]+@[A-Za-z0-9.-]*[A-Za-z0-9-]")
_PHONE = re.compile(f"(?:{PLAIN})|0[2-9][0-9]{{8,10}}|010[0-9]{{7,9}}")


def _text(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return value if value and value == value.strip() else None
    return str(value) if kind is int and -_INT64 <= value < _INT64 else None


def _phone(value: Any) -> str | None:
    text = str(value) if type(value) is int and 0 <= value < _INT64 else value
    return text if type(text) is str and _PHONE.fullmatch(text) else None


def _email(value: Any) -> str | None:
    return value if type(value) is str and _EMAIL.fullmatch(value) else None


def _number(value: Any) -> int | None:
    kind = type(value)
    if kind is str and value.isdigit() and value.isascii() and len(value) <= 18:
        return int(value)
    return value if kind is int and -_INT64 <= value < _INT64 else None


def _object(value: Any) -> str | None:
    kind = type(value)
    if kind is dict:
        return json_object_of(value)
    return json_object_text(value) if kind is str and value.strip() else None


def _variables(value: Any) -> str | None:
    # Of a variable that is NULL the judge says so.
    if isinstance(value, dict):
        return None if any(map(is_null, value.values())) else _object(value)
    text = _object(value)
    return None if text is None or "null" in text else text


def _text_variables(value: Any) -> str | None:
    text = _variables(value)
    if text is None or not all(isinstance(item, str) for item in parse_json_object(text).values()):
        return None
    return text


def _date(value: Any) -> str | None:
    kind = type(value)
    return date_text(to_start_time(value)) if kind is datetime or (kind is str and value.strip()) else None


def _batch_num(value: Any) -> str | None:
    if type(value) is int:
        return str(value) if 0 <= value < _INT64 else None
    return value if type(value) is str and value.isdigit() and value.isascii() and len(value) <= 100 else None


READERS: Mapping[str, Callable[[Any], str | int | None]] = {
    "biz_id": _text,
    "phone_number": _phone,
    "email": _email,
    "outer_user_id": _text,
    "cms_user_id": _number,
    "user_name": _text,
    "input_params": _variables,
    "output_params": _object,
    "source_id": _number,
    "department_id": _number,
    "cms_member_type": _text,
    "appointment_time_id": _number,
    "policy_id": _number,
    "book_charge_biz_info": _object,
    "book_user_id": _number,
    "plan_execute_start_time": _date,
}
"""By field, what reads its plain values: as the model would have them, or None. May raise where the model would."""


def _float(value: float) -> str | None:
    return float.__repr__(value) if math.isfinite(value) else None


def _decimal(value: Decimal) -> str | None:
    return f'"{value:f}"' if value.is_finite() and abs(value.adjusted()) <= 100 else None


_WRITERS: Mapping[type, Callable[[Any], str | None]] = {
    str: encode_basestring,
    int: int.__repr__,
    bool: lambda value: "true" if value else "false",
    float: _float,
    Decimal: _decimal,
    datetime: lambda value: f'"{date_text(value)}"',
    date: lambda value: f'"{value}"',
}
"""By type, what writes a plan variable's plain values as JSON, or None."""


def _not_plain(_: Any) -> None:
    return None


class FastRowParser:
    """Reads the plain ones among rows of one shape.

    :param fields: API field → position in the row.
    :param variables: plan variable → position in the row.
    :param defaults: API field → value, for rows that lack it; none of them blank.
    :param slots: JSON of ``output_params`` for rows that lack it; empty: there is none.
    :param contacts: fields of which each row needs one.
    :param campaign: makes derived ids of different campaigns differ.
    :param key: makes derived ids impossible to enumerate.
    :param variables_as_text: whether every plan variable is written as text. Default: only what JSON writes so.
    """

    def __init__(
        self,
        *,
        fields: Mapping[str, int],
        variables: Mapping[str, int],
        defaults: Mapping[str, Any],
        slots: str,
        contacts: Sequence[str],
        campaign: str,
        key: bytes,
        variables_as_text: bool = False,
    ) -> None:
        self._as_text = variables_as_text
        self._batch_num = fields.get("batch_num")
        self._default_batch_num = _batch_num(defaults.get("batch_num"))
        self._campaign = campaign
        self._key = key
        self._contacts = [(IDENTITY_FIELDS.index(name), f"{name} ") for name in contacts]
        self._variables = [(f"{encode_basestring(name)}:", place) for name, place in variables.items()]
        self._fields: list[tuple[str, int | None, Any, Any, int]] = []
        self._possible = ("batch_num" in defaults) == (self._default_batch_num is not None)
        for name in InitiativeTaskRequest.model_fields:
            reader, given = READERS[name], defaults.get(name)
            if name == "input_params" and variables_as_text:
                reader = _text_variables
            default: Any = None if given is None else _read(reader, given)
            if given is not None and default is None:
                self._possible = False
            if name == "output_params" and slots:
                self._possible &= given is None
                # What a row brings itself is merged with the slots.
                reader, default = _not_plain, slots
            if name == "input_params" and variables:
                self._possible &= given is None
                reader, default = _not_plain, self
            place = fields.get(name)
            if place is None and default is None:
                # Without either of these two no row is valid.
                self._possible &= name not in ("input_params", "output_params")
                continue
            who = IDENTITY_FIELDS.index(name) if name in IDENTITY_FIELDS else -1
            self._fields.append((f'"{name}":', place, reader, default, who))
        self._has_biz_id = "biz_id" in fields

    def read(self, values: Sequence[Any]) -> PlainRow | None:
        """Return a row that can be sent, or None where the model has to judge."""
        if not self._possible:
            return None
        try:
            return self._read(values)
        except (PydanticCustomError, ValueError, OverflowError):
            # Halves of characters are among them.
            return None

    def _read(self, values: Sequence[Any]) -> PlainRow | None:
        batch_num = None
        if (place := self._batch_num) is not None:
            value = values[place]
            batch_num = _batch_num(value)
            if batch_num is None and not is_blank(value):
                return None
        batch_num = batch_num or self._default_batch_num
        who: list[Any] = [None, None, None, None]
        parts: list[str] = []
        biz_id = ""
        for prefix, place, reader, default, which in self._fields:
            plain = None
            if place is not None:
                value = values[place]
                plain = reader(value)
                if plain is None and not is_blank(value):
                    return None
            if plain is None:
                plain = default
            if plain is self:
                plain = self._folded(values)
            if plain is None:
                if prefix in _NEEDED:
                    return None
                continue
            if which >= 0:
                who[which] = plain.lower() if which == 1 else plain
            elif prefix == _BIZ_ID:
                biz_id = plain
            parts.append(prefix + (encode_basestring(plain) if type(plain) is str else int.__repr__(plain)))
        for which, prefix in self._contacts:
            if who[which] is not None:
                contact = f"{prefix}{who[which]}"
                break
        else:
            return None
        if derived := not biz_id:
            if self._has_biz_id:
                return None
            biz_id = derived_id(self._key, self._campaign, who)
            parts.insert(0, f'{_BIZ_ID}"{biz_id}"')
        elif "\0" in biz_id:
            return None
        task = "{" + ",".join(parts) + "}"
        if not task.isascii():
            task.encode()
        return biz_id, derived, batch_num, contact, task

    def _folded(self, values: Sequence[Any]) -> str | None:
        parts = []
        for prefix, place in self._variables:
            value = values[place]
            write = _WRITERS.get(type(value))
            text = write(value) if write is not None else None
            if text is None:
                return None
            parts.append(f'{prefix}"{text}"' if self._as_text and text[0] != '"' else prefix + text)
        return "{" + ",".join(parts) + "}"


_BIZ_ID = '"biz_id":'
_NEEDED = ('"input_params":', '"output_params":')


def _read(reader: Callable[[Any], str | int | None], value: Any) -> str | int | None:
    try:
        return reader(value)
    except (PydanticCustomError, ValueError, OverflowError):
        return None


def is_blank(value: Any) -> bool:
    """Whether a row lacks a value."""
    return is_null(value) or (isinstance(value, str) and not value.strip())


def derived_id(key: bytes, campaign: str, who: Sequence[Any]) -> str:
    """Return the ``biz_id`` of a recipient that has none.

    :param who: the values of :data:`IDENTITY_FIELDS` in their canonical forms.
    """
    return hmac.new(key, dump_json([campaign, *who]).encode(), hashlib.sha256).hexdigest()[:32]
