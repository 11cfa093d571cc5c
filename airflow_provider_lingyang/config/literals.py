"""What templated arguments hold in the DAG file already: found wrong while it is parsed, if it can never be right.

Text with a template in it and outputs of other tasks are left to run time, when their values are known. Imports nothing
heavy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_lingyang.config.arguments import (
    ArgumentError,
    check_choice,
    check_positive,
    did_you_mean,
    is_listing,
    parse_number,
    parse_settle,
    shown,
)
from airflow_provider_lingyang.delivery.schedule import parse_until

BOOK_FIELDS = ("use_platform", "book_code", "book_owner_id")
"""The API's fields of ``use_book_info``; all are needed."""
RESULT_QUERY_FIELDS = {
    "method": True,
    "request_param": False,
    "biz_ids_field": True,
    "max_biz_ids": False,
    "items_path": True,
    "biz_id_field": False,
    "output_params_field": False,
    "task_id_field": False,
    "created_at_field": False,
    "status_field": False,
    "done_values": False,
    "failed_values": False,
}
"""The keys of a ``result_query``, and whether each is needed."""


def is_open(value: object) -> bool:
    """Whether only a run can tell what an argument is: it holds a template, or stands for another task's output."""
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    # Airflow's mark of what it resolves when a task runs: XComArg, DagParam and the like.
    return hasattr(value, "iter_references")


def check_text(argument: str, value: object, what: str) -> None:
    """Raise unless the argument is text, and not blank.

    :param what: it must be, for the message.
    """
    if not is_open(value) and (not isinstance(value, str) or not value.strip()):
        raise ArgumentError(f"{argument} must be {what}; it is {shown(value)}")


def check_conn_id(argument: str, value: object) -> None:
    """Raise unless the argument may name a connection."""
    check_text(argument, value, "the id of an Airflow connection")


def check_number(argument: str, value: object) -> None:
    """Raise unless the argument is a number of the platform's, such as a plan's."""
    if not is_open(value):
        parse_number(argument, value)


def check_until(value: object) -> None:
    """Raise unless ``send_until`` is a moment."""
    if not is_open(value):
        parse_until(value)


def check_book(argument: str, value: object) -> None:
    """Raise unless the argument has all fields of ``use_book_info``, and no other."""
    if value is None or is_open(value):
        return
    if not isinstance(value, Mapping):
        raise ArgumentError(
            f"{argument} must be a dict of {', '.join(BOOK_FIELDS)}; it is a {type(value).__name__}"
        )
    _check_keys(argument, value, BOOK_FIELDS, needed=BOOK_FIELDS)
    for name, inner in value.items():
        _check_not_blank(f"{argument}[{name!r}]", inner)
    check_number(f"{argument}['book_owner_id']", value["book_owner_id"])


def check_defaults(argument: str, value: Mapping[str, Any]) -> None:
    """Raise unless each default holds something."""
    for name, inner in value.items():
        if inner is None or is_open(inner):
            continue
        _check_not_blank(f"{argument}[{name!r}]", inner)
        text = str(inner).strip()
        if name == "batch_num" and not (text.isascii() and text.isdigit()):
            raise ArgumentError(f"{argument}['batch_num'] must be decimal digits; it is {shown(inner)}")


def check_rows(argument: str, value: object) -> None:
    """Raise unless the argument may be rows."""
    if value is None or hasattr(value, "iter_references"):
        return
    if not is_listing(value):
        raise ArgumentError(
            f"{argument} must be a list of rows, or other_task.output (it is never a template); it is a "
            f"{type(value).__name__}"
        )
    for row in value if isinstance(value, (list, tuple)) else ():
        biz_id = row.get("biz_id") if isinstance(row, Mapping) else None
        if isinstance(biz_id, str) and is_open(biz_id):
            raise ArgumentError(
                f"{argument} is never rendered, and a biz_id in it holds a template: let another task return the rows, "
                "or use sql"
            )


def check_parameters(argument: str, value: object) -> None:
    """Raise unless the argument may be bound to a query."""
    if value is None or is_open(value):
        return
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ArgumentError(
            f"{argument} must be a list or a dict, as the database's driver wants it; it is a {type(value).__name__}"
        )


def check_on_clear(argument: str, value: object, choices: Iterable[str]) -> None:
    """Raise unless the argument is one of its choices."""
    if not is_open(value):
        check_choice(argument, value, tuple(choices))


def check_settle(value: object) -> None:
    """Raise unless ``settle`` says something about requests in doubt."""
    if is_open(value):
        return
    if isinstance(value, Mapping):
        value = {code: said for code, said in value.items() if not is_open(said)}
    parse_settle(value)


def check_campaign(argument: str, value: object) -> None:
    """Raise unless the argument may be a manifest."""
    if value is None or is_open(value) or isinstance(value, Mapping):
        return
    if hasattr(value, "output"):
        raise ArgumentError(f"{argument} is the task itself; give its manifest: {argument}=submit.output")
    raise ArgumentError(
        f"{argument} must be the manifest of a submit task of this DAG, {argument}=submit.output; it is a "
        f"{type(value).__name__}"
    )


def check_biz_ids(argument: str, value: object) -> None:
    """Raise unless the argument may be a list of ids."""
    if value is None or is_open(value):
        return
    if not is_listing(value):
        raise ArgumentError(f"{argument} must be a list, also for one; it is a {type(value).__name__}")
    if not isinstance(value, (list, tuple)):
        return  # Looking into it might use it up.
    for biz_id in value:
        if biz_id is None or not str(biz_id).strip():
            raise ArgumentError(f"{argument} holds an id that is blank")


def check_result_query(argument: str, value: object, *, of_table: bool) -> None:
    """Raise unless the argument may describe a look-up.

    :param of_table: answers come from a table: only what a status means is read.
    """
    if value is None or is_open(value):
        return
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{argument} must be a dict, or the JSON of one")
    needed = [name for name, is_needed in RESULT_QUERY_FIELDS.items() if is_needed and not of_table]
    _check_keys(argument, value, RESULT_QUERY_FIELDS, needed=needed)
    for name in needed:
        _check_not_blank(f"{argument}[{name!r}]", value[name])
    if isinstance(most := value.get("max_biz_ids"), int):
        check_positive(f"{argument}['max_biz_ids']", most)
    tells = bool(value.get("done_values") or value.get("failed_values"))
    if tells and not value.get("status_field") and not of_table:
        raise ArgumentError(f"{argument}: done_values and failed_values need a status_field")
    if value.get("status_field") and not tells:
        raise ArgumentError(
            f"{argument}: a status_field needs done_values or failed_values, or nobody ever finishes"
        )


def _check_keys(
    argument: str, value: Mapping[str, Any], known: Iterable[str], *, needed: Iterable[str]
) -> None:
    for name in value:
        if name not in known:
            raise ArgumentError(
                f"{argument}: {shown(name)} is no key of it{did_you_mean(str(name), known)}; it takes "
                f"{', '.join(known)}"
            )
    if missing := [name for name in needed if name not in value]:
        raise ArgumentError(f"{argument}: {', '.join(missing)} is missing")


def _check_not_blank(argument: str, value: object) -> None:
    if not is_open(value) and str("" if value is None else value).strip() in ("", "None"):
        raise ArgumentError(f"{argument} is blank: fill it in, or leave it out")
