"""Rows of any naming → validated tasks. Pure; a row at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from airflow_provider_lingyang.audience.fast_path import IDENTITY_FIELDS, FastRowParser, derived_id, is_blank
from airflow_provider_lingyang.config.arguments import CHANNELS, ROW_FIELDS, ArgumentError, did_you_mean
from airflow_provider_lingyang.gateway.contacts import (
    IDENTITY_VERSION,
    canonical_email,
    canonical_phone_of_version_1,
)
from airflow_provider_lingyang.gateway.field_types import (
    ALLOW_INTERNATIONAL,
    OptionalText,
    dump_json,
    parse_json_object,
    variables_as_text,
)
from airflow_provider_lingyang.gateway.models import InitiativeTaskRequest, explain
from airflow_provider_lingyang.gateway.values import is_null

_ANY_CONTACT = ("phone_number", "email", "outer_user_id")
_MAX_BATCH_NUM = 100
_PLAIN_NAME = re.compile(r"(?!.*[0-9]{5})[A-Za-z_][A-Za-z0-9_]{0,63}")
_TEXT: TypeAdapter[str | None] = TypeAdapter(OptionalText)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be sent. Names the row and the field, never the value.

    :param row: number of the row in the reading, from 1.
    :param field: the API's field, with the column it came from where that has another name.
    :param reason: what is wrong with it.
    """

    row: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.field} {self.reason}"


@dataclass(frozen=True, slots=True)
class Recipient:
    """One row that can be sent.

    :param row: number of the row in the reading, from 1.
    :param biz_id: who it is, within the campaign.
    :param derived: whether the ``biz_id`` was made from the contact.
    :param batch_num: as the row has it, or None.
    :param contact: what is dialled, texted or mailed, in its canonical form; what makes two rows one person.
    :param task: the JSON of the task.
    """

    row: int
    biz_id: str
    derived: bool
    batch_num: str | None
    contact: str = field(repr=False)
    task: str = field(repr=False)


class RowParser:
    """Turns rows into recipients.

    :param columns: API field → column of the rows; fields not named here are taken from a column of
        their own name, whatever its case, unless that column is named here for another field.
    :param task_defaults: API field → value, for rows that lack it.
    :param input_params_columns: plan variable → column, folded into ``input_params``.
    :param output_slots: become the slots of ``output_params``, each ``""``.
    :param channel: ``call``, ``sms`` or ``email``; None: any contact will do.
    :param campaign: makes derived ids of different campaigns differ.
    :param key: makes derived ids impossible to enumerate: the App secret.
    :param identity_version: of the canonical forms that derived ids are made from. Default: the latest.
    :param plan_variables_as_text: whether every plan variable is sent as text. Default: as the rows have them.
    :param international_numbers: whether a phone number may be another country's, also where the channel dials it.
        Default: it may not. Of ``email`` it is not dialled, and any will do.
    """

    def __init__(
        self,
        *,
        columns: Mapping[str, str],
        task_defaults: Mapping[str, Any],
        input_params_columns: Mapping[str, str],
        output_slots: Sequence[str],
        channel: str | None,
        campaign: str,
        key: str,
        identity_version: int = IDENTITY_VERSION,
        plan_variables_as_text: bool = False,
        international_numbers: bool = False,
    ) -> None:
        self._columns = columns
        self._defaults = {name: value for name, value in task_defaults.items() if not is_blank(value)}
        self._identity_version = identity_version
        self._as_text = plan_variables_as_text
        self._context = {ALLOW_INTERNATIONAL: international_numbers or channel == "email"}
        if plan_variables_as_text and (given := _as_object(self._defaults.get("input_params"))):
            # A value that JSON cannot hold is an error of each row.
            with suppress(PydanticCustomError):
                self._defaults["input_params"] = variables_as_text(given)
        self._variables = input_params_columns
        self._slots = dict.fromkeys(output_slots, "")
        self._slots_json = dump_json(self._slots)
        self._channel = channel
        self._contacts = (CHANNELS[channel],) if channel else _ANY_CONTACT
        self._campaign = campaign
        self._key = key.encode()
        self._readers: dict[tuple[str, ...], _Layout] = {}

    def for_columns(self, names: Sequence[str]) -> Callable[[int, Sequence[Any]], Recipient | list[Problem]]:
        """Return what reads rows of these columns.

        :raises ArgumentError: a column is unknown, twice there, or missing; with the nearest valid name.
        """
        layout = self._layout_of(tuple(names), all_needed=True)
        plain = layout.plain.read

        def read(number: int, values: Sequence[Any]) -> Recipient | list[Problem]:
            row = plain(values)
            return self._validate(number, layout, values) if row is None else Recipient(number, *row)

        return read

    def parse_mapping(self, number: int, row: Mapping[str, Any]) -> Recipient | list[Problem]:
        """Read one row that brings its own names.

        :param number: of the row, from 1.
        :raises ArgumentError: a name in it is unknown or twice there.
        """
        if not isinstance(row, Mapping):
            return [
                Problem(number, "the row", f"is a {type(row).__name__}, not a mapping of names to values")
            ]
        names = tuple(row)
        layout = self._readers.get(names)
        if layout is None:
            layout = self._layout_of(names, all_needed=False, row=number)
            if len(self._readers) < 1000:
                self._readers[names] = layout
        values = tuple(row.values())
        # Of a row that lacks a column of an argument the judge says so.
        plain = None if layout.missing else layout.plain.read(values)
        return self._validate(number, layout, values) if plain is None else Recipient(number, *plain)

    def _layout_of(self, names: tuple[str, ...], *, all_needed: bool, row: int | None = None) -> _Layout:
        where = "" if row is None else f" (row {row})"
        if strange := [type(name).__name__ for name in names if not isinstance(name, str)]:
            more = ": a line of a file has more fields than its header" if None in names else ""
            raise ArgumentError(f"the audience has a column whose name is a {strange[0]}{where}{more}")

        def shown(position: int) -> str:
            # Rows that bring their own names may have none: a file without a header has a person in their place.
            name = names[position]
            return repr(name) if all_needed or _PLAIN_NAME.fullmatch(name) else f"number {position + 1}"

        index: dict[str, int] = {}
        for position, name in enumerate(names):
            if name.lower() in index:
                raise ArgumentError(
                    f"the audience has the column {shown(position)} twice{where}: give each a name of its own"
                )
            index[name.lower()] = position

        missing: list[Problem] = []

        def position_of(column: str, argument: str) -> int | None:
            found = index.get(column.lower())
            if found is None:
                near = did_you_mean(
                    column, [name for name in names if all_needed or _PLAIN_NAME.fullmatch(name)]
                )
                if all_needed:
                    raise ArgumentError(
                        f"{argument}: the audience has no column {column!r}{near}; it has {', '.join(names)}"
                    )
                missing.append(
                    Problem(row or 0, argument, f"names the column {column!r}, which the row lacks{near}")
                )
            return found

        fields: dict[str, int] = {}
        for name, column in self._columns.items():
            if (found := position_of(column, f"columns[{name!r}]")) is not None:
                fields[name] = found
        variables = {
            variable: found
            for variable, column in self._variables.items()
            if (found := position_of(column, f"input_params_columns[{variable!r}]")) is not None
        }
        claimed = set(fields.values())
        for name in ROW_FIELDS:
            own = index.get(name)
            if own is not None and name not in self._columns and own not in claimed:
                fields[name] = own
        used = {*fields.values(), *variables.values()}
        for position, name in enumerate(names):
            if position not in used:
                raise ArgumentError(
                    f"the audience's column {shown(position)} is not a field of the API{where} and nothing uses it"
                    f"{did_you_mean(name, ROW_FIELDS)}: name it in columns or input_params_columns, or leave it out"
                )
        plain = FastRowParser(
            fields=fields,
            variables=variables,
            defaults=self._defaults,
            slots=self._slots_json if self._slots else "",
            contacts=self._contacts,
            campaign=self._campaign,
            key=self._key,
            variables_as_text=self._as_text,
        )
        return _Layout(names, fields, variables, missing, plain)

    def _validate(self, number: int, layout: _Layout, values: Sequence[Any]) -> Recipient | list[Problem]:
        """Read any row, with everything that may be wrong with it."""
        problems = [Problem(number, problem.field, problem.reason) for problem in layout.missing]
        fields = {name: values[position] for name, position in layout.fields.items()}
        for name, default in self._defaults.items():
            if is_blank(fields.get(name)):
                fields[name] = default
        batch_num = _batch_num(fields.pop("batch_num", None), number, layout, problems)
        if "biz_id" in layout.fields and is_blank(fields.get("biz_id")):
            problems.append(Problem(number, layout.label("biz_id"), "is missing"))
        self._fold_variables(number, layout, values, fields, problems)
        self._fold_slots(fields)
        # An absent value and a NULL are the same: pydantic then says "missing" for both.
        fields = {name: value for name, value in fields.items() if not is_blank(value)}
        try:
            task = InitiativeTaskRequest.model_validate(fields, context=self._context)
        except ValidationError as error:
            seen = {problem.field for problem in problems}
            for name, reason in explain(error):
                if (label := layout.label(name)) not in seen:
                    problems.append(Problem(number, label, reason + _WAYS_OUT.get((name, reason), "")))
            return problems
        contact = self._contact(task)
        if contact is None:
            label = " or ".join(layout.label(name) for name in self._contacts)
            reason = (
                f"is missing (channel {self._channel!r} needs it)"
                if self._channel
                else "is missing (one is needed)"
            )
            problems.append(Problem(number, label, reason))
        if problems or contact is None:
            return problems
        biz_id = task.biz_id
        if biz_id is not None and "\0" in biz_id:
            problems.append(Problem(number, layout.label("biz_id"), "holds a NUL character"))
            return problems
        derived = biz_id is None
        if biz_id is None:
            biz_id = self._derived(task, fields)
            task = task.model_copy(update={"biz_id": biz_id})
        return Recipient(number, biz_id, derived, batch_num, contact, task.to_json())

    def _fold_variables(
        self,
        number: int,
        layout: _Layout,
        values: Sequence[Any],
        fields: dict[str, Any],
        problems: list[Problem],
    ) -> None:
        base = _as_object(fields.get("input_params"))
        if base is None:
            return  # the model says what is wrong with it
        problems += [
            Problem(
                number,
                f"input_params[{name!r}]" if _PLAIN_NAME.fullmatch(str(name)) else "input_params",
                "is NULL",
            )
            for name, value in base.items()
            if is_null(value)
        ]
        if not layout.variables and (not self._as_text or is_blank(fields.get("input_params"))):
            return
        for variable, position in layout.variables.items():
            value = values[position]
            if is_null(value):
                column = layout.names[position]
                problems.append(Problem(number, f"input_params[{variable!r}] (column {column!r})", "is NULL"))
                continue
            base[variable] = value
        try:
            fields["input_params"] = dump_json(variables_as_text(base) if self._as_text else base)
        except PydanticCustomError as error:
            bad = [variable for variable in layout.variables if not _is_json(base.get(variable))]
            problems += [
                Problem(
                    number,
                    f"input_params[{variable!r}] (column {layout.names[layout.variables[variable]]!r})",
                    error.message(),
                )
                for variable in bad
            ]
            if not bad:
                problems.append(Problem(number, layout.label("input_params"), error.message()))
            # The row is invalid already; this keeps the model from saying so once more.
            fields["input_params"] = "{}"

    def _fold_slots(self, fields: dict[str, Any]) -> None:
        if not self._slots:
            return
        given = fields.get("output_params")
        if is_blank(given):
            fields["output_params"] = self._slots_json
        elif (base := _as_object(given)) is not None:
            fields["output_params"] = {**self._slots, **base}

    def _contact(self, task: InitiativeTaskRequest) -> str | None:
        return next((f"{name} {value}" for name in self._contacts if (value := _canonical(task, name))), None)

    def _derived(self, task: InitiativeTaskRequest, fields: Mapping[str, Any]) -> str:
        who = [_canonical(task, name) for name in IDENTITY_FIELDS]
        if self._identity_version == 1:
            who[:2] = _of_version_1(task, fields)
        return derived_id(self._key, self._campaign, who)


_WAYS_OUT = {
    ("input_params", "is missing"): (
        " (name its columns in input_params_columns; of a plan without variables: task_defaults={'input_params': {}})"
    ),
    ("output_params", "is missing"): (
        " (name the plan's slots in output_slots; of a plan without any: task_defaults={'output_params': {}})"
    ),
}
"""What to do about what is wrong with a field of a row."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which column of a row holds what."""

    names: tuple[str, ...]
    fields: dict[str, int]
    variables: dict[str, int]
    missing: list[Problem]
    plain: FastRowParser

    def label(self, name: str) -> str:
        position = self.fields.get(name)
        if position is None or self.names[position] == name:
            return name
        return f"{name} (column {self.names[position]!r})"


def _canonical(task: InitiativeTaskRequest, name: str) -> Any:
    """Return a contact so that equal ones look equal: of mailboxes case does not matter, of ids of members it may."""
    value = getattr(task, name)
    return canonical_email(value) if name == "email" and value else value


def _of_version_1(task: InitiativeTaskRequest, fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the phone number and the mailbox as version 1 had them.

    A spelling that it refused had no id: it takes the one of the same number in digits.
    """
    phone = fields.get("phone_number")
    first = canonical_phone_of_version_1(str(_TEXT.validate_python(phone))) if task.phone_number else None
    return first or task.phone_number, task.email and task.email.lower()


def _batch_num(value: Any, number: int, layout: _Layout, problems: list[Problem]) -> str | None:
    if is_blank(value):
        return None
    try:
        text = _TEXT.validate_python(value)
    except ValidationError:
        text = None
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > _MAX_BATCH_NUM:
        problems.append(Problem(number, layout.label("batch_num"), "is not a string of decimal digits"))
        return None
    return text


def _as_object(value: Any) -> dict[str, Any] | None:
    if is_blank(value):
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
