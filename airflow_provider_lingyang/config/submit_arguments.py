"""What raises unless an argument of the submit operator can be right: tables of checks.

Imports nothing heavy: it is read while DAG files are parsed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

from airflow_provider_lingyang.config.arguments import (
    ArgumentError,
    check_bool,
    check_choice,
    check_columns,
    check_fields,
    check_mapping,
    check_max_lateness,
    check_names,
    check_positive,
    check_window,
    named_columns,
    parse_deadline,
    parse_number,
    shown,
)
from airflow_provider_lingyang.config.literals import (
    Check,
    check_book,
    check_conn_id,
    check_not_blank,
    check_settle,
    check_text,
    is_open,
    optional,
)

Channel = Literal["call", "sms", "email"]
OnInvalid = Literal["fail", "skip"]
OnDuplicateContact = Literal["warn", "fail", "keep_first"]
OnRejected = Literal["continue", "fail"]
OnInDoubt = Literal["stop", "continue"]
OnEmpty = Literal["skip", "fail", "succeed"]
OnClear = Literal["reuse", "resubmit"]
SettledAs = Literal["accepted", "not_executed"]


def _check_columns(argument: str, value: Any) -> None:
    check_mapping(argument, value)
    check_fields(argument, value)
    check_columns(argument, value)


def check_task_defaults(argument: str, value: Any) -> None:
    """Raise unless the argument gives fields of a row a value each; a value may be a template."""
    check_mapping(argument, value)
    check_fields(argument, value, without=("biz_id",))
    for name, inner in value.items():
        if inner is None or is_open(inner):
            continue
        check_not_blank(f"{argument}[{name!r}]", inner)
        text = str(inner).strip()
        if name == "batch_num" and not (text.isascii() and text.isdigit()):
            raise ArgumentError(f"{argument}['batch_num'] must be decimal digits; it is {shown(inner)}")


def _one_of(choices: Any) -> Check:
    return partial(check_choice, choices=get_args(choices))


CHECKS: dict[str, Check] = {
    "channel": optional(_one_of(Channel)),
    "columns": _check_columns,
    "input_params_columns": named_columns,
    "output_slots": check_names,
    "batch_size": check_positive,
    # Each is a thread, and a connection to the gateway.
    "max_in_flight": partial(check_positive, most=100),
    "send_window": check_window,
    "max_lateness": check_max_lateness,
    "max_recipients": optional(check_positive),
    "validate_only": check_bool,
    "on_invalid": _one_of(OnInvalid),
    "on_duplicate_contact": _one_of(OnDuplicateContact),
    "on_rejected": _one_of(OnRejected),
    "on_in_doubt": _one_of(OnInDoubt),
    "on_empty": _one_of(OnEmpty),
}
"""Checks of arguments that are not templated."""
TEMPLATED: dict[str, Check] = {
    "plan_id": parse_number,
    "campaign_key": optional(check_text),
    "use_book_info": optional(check_book),
    "send_until": lambda _, value: parse_deadline(value),
    "on_clear": _one_of(OnClear),
    "settle": check_settle,
    "ledger_conn_id": optional(check_conn_id),
    "lingyang_conn_id": check_conn_id,
}
"""Checks of arguments that are templated, where they stand alone."""
