"""Arguments that cannot be right whatever they render to: found while the DAG is parsed. Imports nothing heavy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeGuard, get_args

from airflow_provider_lingyang.gateway.dates import in_china, parse_date
from airflow_provider_lingyang.identity import LOST_LEDGER, lost_key, settle_key
from airflow_provider_lingyang.spelling import did_you_mean

Check = Callable[[str, Any], object]
"""Raises unless an argument, given by its name, can have a value."""
TASK_FIELDS = (
    "biz_id",
    "phone_number",
    "email",
    "outer_user_id",
    "cms_user_id",
    "user_name",
    "input_params",
    "output_params",
    "source_id",
    "department_id",
    "cms_member_type",
    "appointment_time_id",
    "policy_id",
    "book_charge_biz_info",
    "book_user_id",
    "plan_execute_start_time",
)
"""The API's fields of one task."""
ROW_FIELDS = (*TASK_FIELDS, "batch_num")
"""What a row of the audience may hold: a task's fields, and the batch it belongs to."""
CHANNELS = {"call": "phone_number", "sms": "phone_number", "email": "email"}
"""What a plan may do → the contact that it needs."""
TABLE_COLUMNS = ("biz_id", "task_id", "plan_id", "campaign_key", "status", "output_params", "fetched_at")
"""Columns that every table of results has."""
NEVER_KEPT = ("phone_number", "email", "outer_user_id", "cms_user_id", "user_name", "input_params")
"""Fields that may hold personal data: the ledger holds none of them."""
_MAX_KEPT = 20
_COLUMN_BYTES = 63
"""PostgreSQL cuts longer names; MySQL takes 64 characters."""
_NOT_IN_A_COLUMN = re.compile(r"[?%\x00-\x1f\x7f]")
_TIME = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_WINDOW = re.compile(f"(?P<opens>{_TIME}) *- *(?P<closes>{_TIME})")
_NUMBERED = re.compile(r"(?P<code>[^#]*)(?:#(?P<number>[1-9][0-9]{0,8}))?")
_LOST = re.compile(rf"{re.escape(LOST_LEDGER)}#(?P<try>[1-9][0-9]{{0,8}}) +(?P<key>.*)", re.DOTALL)
_WORDS = 1000
_REQUEST_FIELDS = ("plan_id", "use_book_info", "task_unique_code", "task_list")


class ArgumentError(ValueError):
    """An argument cannot be right. The text names it, and the way out."""


def shown(value: object) -> str:
    """Return an argument as an error shows it: short, and of a mapping or a list only what it is, which may be rows."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    plain = value is None or isinstance(value, (str, int, float))
    return repr(value)[:42] if plain else f"a {type(value).__name__}"


def is_listing(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether a value gives items one by one: a list, a generator, a lazy sequence; no text and no mapping."""
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))


_ROWS_OF_FRAMES = {
    "pandas": 'to_dict("records")',
    "polars": "to_dicts()",
    "pyarrow": "to_pylist()",
    "pyspark": "toLocalIterator()",
}


_FRAMES = ("DataFrame", "LazyFrame", "Table", "RecordBatch")


def check_no_frame(argument: str, value: object) -> None:
    """Raise if an argument that takes rows is a data frame, or a column of one: iterating it does not give rows."""
    kind = type(value)
    if kind.__name__ in ("Series", "ndarray"):
        raise ArgumentError(f"{argument} is a {kind.__name__}, one column without names: give a list of rows")
    if kind.__name__ in _FRAMES:
        rows = _ROWS_OF_FRAMES.get(kind.__module__.partition(".")[0], 'to_dict("records")')
        raise ArgumentError(f"{argument} is a {kind.__name__}, which is no list of rows: give frame.{rows}")


def check_one_column(argument: str, value: object) -> None:
    """Raise if an argument that takes ids is a data frame: iterating it gives the names of its columns."""
    if type(value).__name__ in _FRAMES:
        raise ArgumentError(f"{argument} is a {type(value).__name__}: give one column of it, as a list")


def kind_of(value: object) -> str:
    """Return a value as an error shows it that may hold personal data: only its type."""
    return f"a {type(value).__name__}"


def is_not(argument: str, what: str, value: object, shows: Callable[[object], str] = shown) -> ArgumentError:
    """Return the error of an argument that is not what it must be.

    :param shows: describes the value in the message.
    """
    return ArgumentError(f"{argument} must be {what}; it is {shows(value)}")


def must_be(what: str, holds: Callable[[Any], bool], shows: Callable[[object], str] = shown) -> Check:
    """Return a check of an argument: whether it holds what it must be."""

    def check(argument: str, value: object) -> None:
        if not holds(value):
            raise is_not(argument, what, value, shows)

    return check


def one_of(choices: Any) -> Check:
    """Return a check for one of the values of a ``Literal`` type."""
    words = get_args(choices)
    return must_be(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def whole_number(most: int | None = None) -> Check:
    """Return a check for a whole number from 1."""
    what = "a whole number of at least 1" if most is None else f"a whole number from 1 to {most}"
    return must_be(what, lambda value: _is_number(value, int) and 1 <= value <= (most or value))


def _is_number(value: object, types: Any) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_window(value: object) -> bool:
    hours = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    return value is None or (hours is not None and hours["opens"] != hours["closes"])


check_ratio = must_be("in (0, 1]", lambda value: _is_number(value, (int, float)) and 0 < value <= 1)
check_bool = must_be("True or False", lambda value: isinstance(value, bool))
check_mapping = must_be("a dict", lambda value: isinstance(value, Mapping), kind_of)
check_text = must_be("text", _is_text)
check_sql = must_be("a SELECT, or the path of a .sql file", _is_text)
check_conn_id = must_be("the id of an Airflow connection", _is_text)
check_window = must_be("two different times of the day such as '09:00-20:30'", _is_window)
check_max_lateness = must_be(
    "a timedelta of more than zero, such as timedelta(hours=6)",
    lambda value: value is None or (isinstance(value, timedelta) and value > timedelta()),
)
check_parameters = must_be(
    "a list or a dict, as the database's driver wants it",
    lambda value: isinstance(value, Iterable) and not isinstance(value, (str, bytes)),
    kind_of,
)


def check_fields(argument: str, names: Iterable[str], *, without: Collection[str] = ()) -> None:
    """Raise unless every name is a field that a row may hold."""
    for name in names:
        if name in _REQUEST_FIELDS:
            raise ArgumentError(f"{argument}: {name!r} belongs to the whole request; the operator sets it")
        if name in without:
            raise ArgumentError(f"{argument}: {name!r} must differ from row to row")
        if name not in ROW_FIELDS:
            column = names.get(name) if isinstance(names, Mapping) else None
            raise ArgumentError(
                f"{argument}: {name!r} is not a field of the API{did_you_mean(str(name), ROW_FIELDS)}"
                + (
                    f"; it maps API field → column, so the other way round: {{{column!r}: {name!r}}}"
                    if argument == "columns" and column in ROW_FIELDS
                    else ""
                )
            )


def check_names(argument: str, names: Sequence[str]) -> None:
    """Raise unless the argument is a list of different, non-blank names."""
    if not isinstance(names, (list, tuple)) or not all(map(_is_text, names)):
        raise ArgumentError(f"{argument} must be a list of names")
    if len(set(names)) < len(names):
        raise ArgumentError(f"{argument} holds a name twice")


def named_columns(argument: str, value: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Return name → column, from a mapping or from a list of columns that are named alike.

    :raises ArgumentError: it is neither, or a name is blank or there twice.
    """
    if isinstance(value, Mapping):
        check_names(argument, list(value))
        check_columns(argument, value)
        return dict(value)
    if isinstance(value, str):
        raise ArgumentError(f"{argument} must be a list of names, or a dict: name → column")
    check_names(argument, value)
    return {name: name for name in value}


def check_columns(argument: str, columns: Mapping[str, str]) -> None:
    """Raise unless the argument maps names to non-blank column names."""
    for name, column in columns.items():
        if not _is_text(column):
            raise ArgumentError(f"{argument}: {name!r} must name a column of the rows")


def bad_column_name(column: str) -> str | None:
    """Return why a column of a table of results cannot have this name, or None."""
    if column != column.strip() or _NOT_IN_A_COLUMN.search(column):
        return (
            f"{column!r} cannot name a column (a question mark, a percent sign, a control character, or a blank at "
            "its ends)"
        )
    if len(column.encode(errors="replace")) > _COLUMN_BYTES:
        return f"{column!r} is longer than the {_COLUMN_BYTES} bytes that a column's name may have"
    return None


def check_keep_columns(argument: str, names: Sequence[str]) -> None:
    """Raise unless the argument is a list of columns that may be kept, each a column of a table of results later."""
    check_names(argument, names)
    if len(names) > _MAX_KEPT:
        raise ArgumentError(f"{argument} names {len(names)} columns, more than {_MAX_KEPT}")
    if len({name.lower() for name in names}) < len(names):
        raise ArgumentError(f"{argument} holds names that differ by case only")
    for name in names:
        if name.lower() in NEVER_KEPT:
            raise ArgumentError(f"{argument}: {name!r} may hold personal data, which is never kept")
        if name.lower() in TABLE_COLUMNS:
            raise ArgumentError(
                f"{argument}: a table of results has a column {name!r} for itself: name the column of the rows "
                "otherwise, in SQL with AS"
            )
        if problem := bad_column_name(name):
            raise ArgumentError(f"{argument}: {problem}")


def check_kept_is_not_sent_as(
    argument: str, names: Iterable[str], columns: Mapping[str, str], variables: Mapping[str, str]
) -> None:
    """Raise if a column that is to be kept is sent as something that may be personal.

    :param columns: API field → column.
    :param variables: plan variable → column.
    """
    sent = {column.lower(): f"input_params[{name!r}]" for name, column in variables.items()}
    sent |= {columns[field].lower(): field for field in NEVER_KEPT if field in columns}
    for name in names:
        if what := sent.get(name.lower()):
            raise ArgumentError(
                f"{argument}: {name!r} is sent as {what}, so it may hold personal data, which is never kept"
            )


def check_rendered(argument: str, value: object) -> None:
    """Raise if an argument that was given has rendered to nothing, or to what Python calls nothing."""
    if str("" if value is None else value).strip() in ("", "None"):
        raise ArgumentError(
            f"{argument} was given, but has rendered to nothing: correct its template, or leave the argument out"
        )


def parse_number(argument: str, value: object) -> int:
    """Return a number of the platform's, such as a plan's.

    :param value: the number, or its digits.
    :raises ArgumentError: it is none.
    """
    # Python makes no text of a number with thousands of digits.
    text = "" if isinstance(value, int) and abs(value) >= 2**63 else str(value).strip()
    digits = text.isascii() and text.isdigit() and len(text) < 20
    if isinstance(value, bool) or not digits or int(text) >= 2**63:
        raise is_not(argument, "a number", value)
    return int(text)


def parse_settle(value: object) -> dict[str, str]:
    """Return what the author says about requests in doubt.

    :param value: a mapping, the JSON text of one, or nothing.
    :return: :func:`~airflow_provider_lingyang.identity.settle_key` of each, or
        :func:`~airflow_provider_lingyang.identity.lost_key` → ``accepted`` or ``not_executed``.
    :raises ArgumentError: it is none of these, says something else, or contradicts itself.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError):
            value = None
    elif isinstance(value, Mapping):
        value = _Pairs(value.items())
    if not isinstance(value, _Pairs):
        raise ArgumentError(
            "settle must be a dict: task_unique_code → 'accepted' or 'not_executed', or the JSON of one, with double "
            "quotes (a template that prints a dict needs `| tojson`)"
        )
    if len(value) > _WORDS:
        raise ArgumentError(
            f"settle names {len(value)} requests, more than {_WORDS}: take out those that are settled"
        )
    settled: dict[str, str] = {}
    for name, said in value:
        key = _parse_settle_key(str(name).strip())
        if not isinstance(said, str) or said not in ("accepted", "not_executed"):
            raise is_not(f"settle: {key[:40]!r}", "'accepted' or 'not_executed'", said)
        if key.startswith(LOST_LEDGER) and said != "not_executed":
            raise ArgumentError(
                f"settle: {key[:40]!r} stands for all that a lost ledger may have held, and can only be "
                "'not_executed': who was accepted must be left out of the audience of a new run"
            )
        if settled.setdefault(key, said) != said:
            raise ArgumentError(f"settle says both 'accepted' and 'not_executed' of {key[:40]!r}")
    return settled


def _parse_settle_key(name: str) -> str:
    if name == LOST_LEDGER:
        return name
    if name.startswith(LOST_LEDGER):
        if lost := _LOST.fullmatch(name):
            return lost_key(int(lost["try"]), lost["key"])
        raise ArgumentError(
            f"settle: {name[:40]!r} must name the try that has asked for it, and the campaign: "
            f"'{LOST_LEDGER}#2 campaign_key'; the message of that try has the line to paste"
        )
    if numbered := _NUMBERED.fullmatch(name.lower()):
        return settle_key(numbered["code"], int(numbered["number"] or 1))
    raise ArgumentError(
        f"settle: {name[:60]!r} is no task_unique_code, nor one with the number of its intent, such as 'CODE#2'"
    )


class _Pairs(list[tuple[Any, Any]]):
    """What a dict or a JSON object holds, before the last of two equal names wins."""


def parse_deadline(value: Any) -> datetime | None:
    """Return the moment that ``send_until`` means; None for None.

    :param value: a datetime, or text of one; without a time zone it is China's time.
    :raises ArgumentError: it is none.
    """
    if value is None:
        return None
    try:
        return in_china(value) if isinstance(value, datetime) else parse_date(str(value).strip())
    except (ValueError, OverflowError):
        # The second for a moment that is in no year from 1 to 9999 in China.
        raise is_not("send_until", "a date with a time, such as '2026-01-31 20:00:00'", value) from None
