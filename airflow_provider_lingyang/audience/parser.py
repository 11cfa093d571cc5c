"""Rows of any naming → validated tasks. Pure; a row at a time."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError, to_json

from airflow_provider_lingyang.audience.columns import PLAIN_NAME, Layout, layout_of
from airflow_provider_lingyang.audience.kept import kept_json
from airflow_provider_lingyang.config.arguments import CHANNELS
from airflow_provider_lingyang.config.literals import Channel
from airflow_provider_lingyang.gateway.contacts import INVISIBLE, looks_like_contact
from airflow_provider_lingyang.gateway.fast_path import validate_task
from airflow_provider_lingyang.gateway.field_types import (
    dump_json,
    parse_json_object,
    to_text,
)
from airflow_provider_lingyang.gateway.models import explain
from airflow_provider_lingyang.gateway.values import is_blank, is_null
from airflow_provider_lingyang.identity import IDENTITY_VERSION

_ANY_CONTACT = ("phone_number", "email", "outer_user_id")
_MAX_BATCH_NUM = 100
IDENTITY_FIELDS = ("phone_number", "email", "outer_user_id", "cms_user_id")
"""Fields that a derived ``biz_id`` is made from."""
_INVISIBLE = dict.fromkeys(map(ord, INVISIBLE))


class Problems(list[tuple[str, str]]):
    """Why a row cannot be sent: the API's field, with the column it came from where that has another name, and what is
    wrong with it. Never the value.

    :param biz_id: of the row, where there is nothing wrong with it. Default None: it is not known.
    :param batch_num: likewise.
    :param kept: the JSON of the columns that are kept. Default None: none is.
    """

    def __init__(
        self,
        problems: Iterable[tuple[str, str]] = (),
        *,
        biz_id: str | None = None,
        batch_num: str | None = None,
        kept: str | None = None,
    ) -> None:
        super().__init__(problems)
        self.biz_id = biz_id
        self.batch_num = batch_num
        self.kept = kept


@dataclass(frozen=True, slots=True)
class Recipient:
    """One row that can be sent.

    :param row: number of the row in the reading, from 1.
    :param biz_id: identifies the recipient within the campaign.
    :param derived: whether the ``biz_id`` was made from the contact.
    :param batch_num: as the row has it, or None.
    :param contact: what is dialled, texted or mailed, in its canonical form: equal in rows of one recipient.
    :param task: the JSON of the task.
    :param kept: the JSON of the columns that are kept. Default None: none is.
    """

    row: int
    biz_id: str
    derived: bool
    batch_num: str | None
    contact: str = field(repr=False)
    task: str = field(repr=False)
    kept: str | None = field(default=None, repr=False)


@dataclass(kw_only=True, eq=False, repr=False)
class RowParser:
    """Turns rows into recipients. Parameters without a description are the operator's.

    :param input_params_columns: plan variable → column.
    :param campaign: makes derived ids of different campaigns differ.
    :param app_secret: makes derived ids impossible to enumerate.
    :param identity_version: of the canonical forms that derived ids are made from. Default: the latest.
    :param plan_variables_as_text: whether every plan variable is sent as text. Default: as the rows have them.
    :param international_numbers: whether a phone number may be another country's, also where the channel dials it.
        Default: it may not. Of ``email`` it is not dialled, and any will do.
    """

    columns: Mapping[str, str]
    task_defaults: Mapping[str, Any]
    input_params_columns: Mapping[str, str]
    output_slots: Sequence[str]
    channel: Channel | None
    campaign: str
    app_secret: str
    identity_version: int = IDENTITY_VERSION
    plan_variables_as_text: bool = False
    international_numbers: bool = False
    keep_columns: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._defaults = {name: value for name, value in self.task_defaults.items() if not is_blank(value)}
        self._allow_international = self.international_numbers or self.channel == "email"
        self._slots = dict.fromkeys(self.output_slots, "")
        self._slots_json = dump_json(self._slots)
        self._contacts = (CHANNELS[self.channel],) if self.channel else _ANY_CONTACT
        self._layouts: dict[tuple[str, ...], Layout] = {}

    def for_columns(self, names: Sequence[str]) -> Callable[[int, Sequence[Any]], Recipient | Problems]:
        """Return the parser of rows of these columns: row number, values → recipient or problems.

        :raises ArgumentError: a column is unknown, twice there, or missing; with the nearest valid name.
        """
        return partial(self._parse, self._layout(tuple(names)))

    def parse_mapping(self, number: int, row: Mapping[str, Any]) -> Recipient | Problems:
        """Parse one row that brings its own names.

        :param number: of the row, from 1.
        :raises ArgumentError: a name in it is unknown or twice there.
        """
        if not isinstance(row, Mapping):
            return Problems([("the row", f"is a {type(row).__name__}, not a mapping of names to values")])
        names = tuple(row)
        layout = self._layouts.get(names)
        if layout is None:
            layout = self._layout(names, row=number)
            if len(self._layouts) < 1000:
                self._layouts[names] = layout
        return self._parse(layout, number, tuple(row.values()))

    def _layout(self, names: tuple[str, ...], row: int | None = None) -> Layout:
        return layout_of(names, self.columns, self.input_params_columns, self.keep_columns, row=row)

    def _parse(self, layout: Layout, number: int, values: Sequence[Any]) -> Recipient | Problems:
        # An absent value and a NULL are the same: validation then says "missing" for both.
        fields = self._defaults | {
            name: value for name, position in layout.fields.items() if not is_blank(value := values[position])
        }
        problems = list(layout.missing)
        batch_num = fields.pop("batch_num", None)
        if batch_num is not None and (batch_num := _digits(batch_num)) is None:
            problems.append((layout.label("batch_num"), "is not a string of decimal digits"))
        if "biz_id" in layout.fields and "biz_id" not in fields:
            problems.append((layout.label("biz_id"), "is missing"))
        if layout.variables or "input_params" in fields:
            problems += self._fold_variables(layout, values, fields)
        if self._slots:
            self._fold_slots(fields)
        try:
            task = validate_task(fields, allow_international=self._allow_international)
        except ValidationError as error:
            problems += self._explained(error, layout, fields, {name for name, _ in problems})
            return _problems_of(problems, layout, values, fields, batch_num)
        contact = self._contact(task)
        if contact is None:
            label = " or ".join(layout.label(name) for name in self._contacts)
            needed = f"channel {self.channel!r} needs it" if self.channel else "one is needed"
            problems.append((label, f"is missing ({needed})"))
        if not problems and "\0" in task.get("biz_id", ""):
            problems.append((layout.label("biz_id"), "holds a NUL character"))
        kept = None
        if layout.kept:
            kept, unfit = kept_json(layout.kept, values, task.get("phone_number"), _canonical(task, "email"))
            problems += unfit
        if problems or contact is None:
            return _problems_of(problems, layout, values, fields, batch_num)
        derived = "biz_id" not in task
        if derived:
            identity = self._identity(task, fields)
            task = {"biz_id": derived_id(self.app_secret.encode(), self.campaign, identity), **task}
        return Recipient(number, task["biz_id"], derived, batch_num, contact, to_json(task).decode(), kept)

    def _contact(self, task: Mapping[str, Any]) -> str | None:
        for name in self._contacts:
            if value := _canonical(task, name):
                return f"{name} {value}"
        return None

    def _identity(self, task: Mapping[str, Any], fields: Mapping[str, Any]) -> list[Any]:
        """Return what a derived ``biz_id`` is made from: the canonical forms of :data:`IDENTITY_FIELDS`.

        :param task: the task as it is written.
        :param fields: its fields as the row has them.
        """
        if self.identity_version != 1:
            return [_canonical(task, name) for name in IDENTITY_FIELDS]
        phone, email, *ids = map(task.get, IDENTITY_FIELDS)
        # A spelling that version 1 refused had no id: it takes the one of the same number in digits.
        first = phone and canonical_phone_of_version_1(to_text(fields["phone_number"]))
        return [first or phone, email and email.lower(), *ids]

    def _fold_variables(
        self, layout: Layout, values: Sequence[Any], fields: dict[str, Any]
    ) -> list[tuple[str, str]]:
        """Put the plan variables into ``input_params``; return problems of the variables."""
        given = fields.get("input_params")
        if type(given) is str and not (layout.variables or self.plan_variables_as_text or "null" in given):
            return []
        variables = _as_object(given)
        if variables is None:
            return []  # validation says what is wrong with it
        problems = [
            (f"input_params[{name!r}]" if PLAIN_NAME.fullmatch(str(name)) else "input_params", "is NULL")
            for name, value in variables.items()
            if is_null(value)
        ]
        if not (layout.variables or self.plan_variables_as_text):
            return problems
        for name, position in layout.variables.items():
            if is_null(value := values[position]):
                problems.append((_variable(layout, name), "is NULL"))
            else:
                variables[name] = value
        fields["input_params"] = variables
        if self.plan_variables_as_text:
            with suppress(PydanticCustomError):
                fields["input_params"] = {name: _variable_text(value) for name, value in variables.items()}
        return problems

    def _fold_slots(self, fields: dict[str, Any]) -> None:
        given = fields.get("output_params")
        if given is None:
            fields["output_params"] = self._slots_json
        elif (slots := _as_object(given)) is not None:
            fields["output_params"] = {**self._slots, **slots}

    def _explained(
        self, error: ValidationError, layout: Layout, fields: Mapping[str, Any], seen: set[str]
    ) -> list[tuple[str, str]]:
        """Return what validation found, without fields of which a problem is known already."""
        problems: list[tuple[str, str]] = []
        for name, reason in explain(error):
            given = fields.get(name)
            if name == "input_params" and isinstance(given, Mapping):
                bad = [variable for variable in layout.variables if not _is_json(given.get(variable))]
                problems += [(_variable(layout, variable), reason) for variable in bad]
                if bad:
                    continue
            if (label := layout.label(name)) not in seen:
                problems.append((label, reason + _WAYS_OUT.get((name, reason), "")))
        return problems


_WAYS_OUT = {
    ("input_params", "is missing"): (
        " (name its columns in input_params_columns; of a plan without variables: task_defaults={'input_params': {}})"
    ),
    ("output_params", "is missing"): (
        " (name the plan's slots in output_slots; of a plan without any: task_defaults={'output_params': {}})"
    ),
}
"""What to do about what is wrong with a field of a row."""


def _problems_of(
    problems: list[tuple[str, str]],
    layout: Layout,
    values: Sequence[Any],
    fields: Mapping[str, Any],
    batch_num: str | None,
) -> Problems:
    biz_id, label = None, layout.label("biz_id")
    if "biz_id" in fields and all(name != label for name, _ in problems):
        with suppress(PydanticCustomError):
            biz_id = to_text(fields["biz_id"]).strip()
    # What validation would refuse later, or a column that was taken for another.
    if biz_id is not None and ("\0" in biz_id or looks_like_contact(biz_id)):
        biz_id = None
    kept = None
    if layout.kept:
        kept, _ = kept_json(layout.kept, values, fields.get("phone_number"), fields.get("email"))
    return Problems(problems, biz_id=biz_id, batch_num=batch_num, kept=kept)


def _variable(layout: Layout, name: str) -> str:
    return f"input_params[{name!r}] (column {layout.names[layout.variables[name]]!r})"


def _digits(value: Any) -> str | None:
    try:
        text = to_text(value).strip()
    except PydanticCustomError:
        return None
    return text if text.isascii() and text.isdigit() and len(text) <= _MAX_BATCH_NUM else None


def _as_object(value: Any) -> dict[str, Any] | None:
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            return parse_json_object(value)
        except PydanticCustomError:
            return None
    return dict(value) if isinstance(value, Mapping) else None


def _is_json(value: Any) -> bool:
    try:
        dump_json(value)
    except PydanticCustomError:
        return False
    return True


def _variable_text(value: Any) -> str | None:
    """Return a plan variable's value as text; NULL stays NULL.

    :raises PydanticCustomError: JSON cannot hold it.
    """
    if is_null(value):
        return None
    if isinstance(value, str):
        return value
    text = dump_json(value)
    return str(json.loads(text)) if text.startswith('"') else text


def _canonical(task: Mapping[str, Any], name: str) -> Any:
    """Return a contact so that equal ones look equal: of mailboxes case does not matter, of ids of members it may."""
    value = task.get(name)
    return canonical_email(value) if name == "email" and value else value


def derived_id(app_secret: bytes, campaign: str, identity: Sequence[Any]) -> str:
    """Return the ``biz_id`` of a recipient that has none."""
    return hmac.new(app_secret, dump_json([campaign, *identity]).encode(), hashlib.sha256).hexdigest()[:32]


def canonical_email(text: str) -> str:
    """Return a mailbox so that two spellings of one are equal; a request keeps the original spelling.

    Neither case nor width matters, and a domain in Unicode is the one that its ASCII form names.
    """
    folded = unicodedata.normalize("NFKC", text.strip().translate(_INVISIBLE)).casefold()
    name, _, domain = folded.rpartition("@")
    domain = domain.rstrip(".")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:  # A label that is too long, or blank.
        pass
    return f"{name}@{domain}"


def canonical_phone_of_version_1(text: str) -> str | None:
    """Return the canonical form of version 1 of a phone number; None where version 1 refused it."""
    digits = re.sub(r"(?<=[0-9])[\s-]+(?=[0-9])", "", text.strip())
    digits = re.sub(r"^(?:\+\s*|00)86", "", digits)
    return digits if re.fullmatch(r"[0-9]{5,20}", digits) else None
