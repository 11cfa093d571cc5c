"""Which column of a row holds which field of the API, and which plan variable. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_lingyang.config.arguments import (
    ROW_FIELDS,
    ArgumentError,
    check_kept_is_not_sent_as,
)
from airflow_provider_lingyang.spelling import did_you_mean

PLAIN_NAME = re.compile(r"(?!.*[0-9]{5})[A-Za-z_][A-Za-z0-9_]{0,63}")
"""Names that may be shown. Any other may be data: in a file without a header, a recipient is in their place."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of rows.

    :param names: the columns' names.
    :param fields: API field → position in the row.
    :param variables: plan variable → position in the row.
    :param kept: column that is kept, by its name in the argument → position in the row.
    :param missing: (argument, reason) for each column that an argument names and the rows lack.
    """

    names: tuple[str, ...]
    fields: Mapping[str, int]
    variables: Mapping[str, int]
    kept: Mapping[str, int]
    missing: list[tuple[str, str]]

    def label(self, field: str) -> str:
        """Return a field's name, with the column that it comes from where that has another name."""
        position = self.fields.get(field)
        if position is None or self.names[position] == field:
            return field
        return f"{field} (column {self.names[position]!r})"


def layout_of(
    names: tuple[str, ...],
    columns: Mapping[str, str],
    input_params_columns: Mapping[str, str],
    keep_columns: Sequence[str] = (),
    *,
    row: int | None = None,
) -> Layout:
    """Return which of these columns holds what.

    :param columns: API field → column; fields not named here are taken from a column of their own name, whatever its
        case, unless that column is named here for another field.
    :param input_params_columns: plan variable → column.
    :param keep_columns: columns that are kept.
    :param row: number of the row that brings these names. Default: they are those of all rows, and show in errors.
    :raises ArgumentError: a column is unknown, twice there, or missing in all rows; with the nearest valid name.
    """
    where = "" if row is None else f" (row {row})"
    if strange := [type(name).__name__ for name in names if not isinstance(name, str)]:
        more = ": a line of a file has more fields than its header" if None in names else ""
        raise ArgumentError(f"the audience has a column whose name is a {strange[0]}{where}{more}")

    def shown(position: int, name: str) -> str:
        return repr(name) if row is None or PLAIN_NAME.fullmatch(name) else f"number {position + 1}"

    index: dict[str, int] = {}
    for position, name in enumerate(names):
        if name.lower() in index:
            raise ArgumentError(
                f"the audience has the column {shown(position, name)} twice{where}: give each a name of its own"
            )
        index[name.lower()] = position
    known = [name for name in names if row is None or PLAIN_NAME.fullmatch(name)]
    missing: list[tuple[str, str]] = []

    def positions(argument: str, named: Mapping[str, str]) -> dict[str, int]:
        found = {}
        for target, column in named.items():
            if (position := index.get(column.lower())) is not None:
                found[target] = position
                continue
            near = did_you_mean(column, known)
            if row is None:
                raise ArgumentError(
                    f"{argument}[{target!r}]: the audience has no column {column!r}{near}; it has {', '.join(names)}"
                )
            missing.append(
                (f"{argument}[{target!r}]", f"names the column {column!r}, which the row lacks{near}")
            )
        return found

    fields = positions("columns", columns)
    variables = positions("input_params_columns", input_params_columns)
    kept = positions("keep_columns", {name: name for name in keep_columns})
    claimed = set(fields.values())
    for name in ROW_FIELDS:
        own = index.get(name)
        if own is not None and name not in columns and own not in claimed:
            fields[name] = own
    check_kept_is_not_sent_as(
        "keep_columns",
        kept,
        {field: names[position] for field, position in fields.items()},
        {variable: names[position] for variable, position in variables.items()},
    )
    used = {*fields.values(), *variables.values(), *kept.values()}
    for position, name in enumerate(names):
        if position not in used:
            raise ArgumentError(
                f"the audience's column {shown(position, name)} is not a field of the API{where} and nothing "
                f"uses it{did_you_mean(name, ROW_FIELDS)}: name it in columns, input_params_columns or keep_columns, "
                "or leave it out"
            )
    return Layout(names, fields, variables, kept, missing)
