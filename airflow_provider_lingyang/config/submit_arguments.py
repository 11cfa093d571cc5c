"""What raises unless an argument of the submit operator can be right: a table, for arguments that are not templated.

Imports nothing heavy: it is read while DAG files are parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from airflow_provider_lingyang.config.arguments import (
    check_bool,
    check_choice,
    check_columns,
    check_fields,
    check_mapping,
    check_max_lateness,
    check_names,
    check_plan_variables,
    check_positive,
    check_window,
)
from airflow_provider_lingyang.config.literals import checked

Channel = Literal["call", "sms", "email"]
OnInvalid = Literal["fail", "skip"]
OnDuplicateContact = Literal["warn", "fail", "keep_first"]
OnRejected = Literal["continue", "fail"]
OnInDoubt = Literal["stop", "continue"]
OnEmpty = Literal["skip", "fail", "succeed"]
OnClear = Literal["reuse", "resubmit"]
SettledAs = Literal["accepted", "not_executed"]


def _check_columns(value: Any) -> None:
    check_mapping("columns", value)
    check_fields("columns", value)
    check_columns("columns", value)


def check_task_defaults(value: Any) -> None:
    """Raise unless ``task_defaults`` names fields of a row; its values may be templates."""
    check_mapping("task_defaults", value)
    check_fields("task_defaults", value, without=("biz_id",))


def _is_none_or(check: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda value: None if value is None else check(value)


def _one_of(name: str, choices: Any) -> Callable[[Any], None]:
    return checked(check_choice, name, choices=get_args(choices))


CHECKS: dict[str, Callable[[Any], None]] = {
    "channel": _is_none_or(_one_of("channel", Channel)),
    "columns": _check_columns,
    "input_params_columns": check_plan_variables,
    "output_slots": checked(check_names, "output_slots"),
    "batch_size": checked(check_positive, "batch_size"),
    # Each is a thread, and a connection to the gateway.
    "max_in_flight": checked(check_positive, "max_in_flight", most=100),
    "send_window": checked(check_window, "send_window"),
    "max_lateness": checked(check_max_lateness, "max_lateness"),
    "max_recipients": _is_none_or(checked(check_positive, "max_recipients")),
    "validate_only": checked(check_bool, "validate_only"),
    "on_invalid": _one_of("on_invalid", OnInvalid),
    "on_duplicate_contact": _one_of("on_duplicate_contact", OnDuplicateContact),
    "on_rejected": _one_of("on_rejected", OnRejected),
    "on_in_doubt": _one_of("on_in_doubt", OnInDoubt),
    "on_empty": _one_of("on_empty", OnEmpty),
}
"""Arguments that are not templated → what raises unless their value can be right."""
