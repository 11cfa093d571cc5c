"""What raises unless an argument of the submit operator can be right: tables of checks.

Imports nothing heavy: it is read while DAG files are parsed.
"""

from __future__ import annotations

from typing import Any, Literal

from airflow_provider_lingyang.config import arguments, literals

Channel = Literal["call", "sms", "email"]
OnInvalid = Literal["fail", "skip"]
OnDuplicateContact = Literal["warn", "fail", "keep_first"]
OnRejected = Literal["continue", "fail"]
OnInDoubt = Literal["stop", "continue"]
OnEmpty = Literal["skip", "fail", "succeed"]
OnClear = Literal["reuse", "resubmit"]
SettledAs = Literal["accepted", "not_executed"]


def _check_columns(argument: str, value: Any) -> None:
    arguments.check_mapping(argument, value)
    arguments.check_fields(argument, value)
    arguments.check_columns(argument, value)


def check_task_defaults(argument: str, value: Any) -> None:
    """Raise unless the argument gives fields of a row a value each; a value may be a template."""
    arguments.check_mapping(argument, value)
    arguments.check_fields(argument, value, without=("biz_id",))
    for name, inner in value.items():
        if inner is None or literals.is_open(inner):
            continue
        text = str(inner).strip()
        if text in ("", "None"):
            raise arguments.ArgumentError(f"{argument}[{name!r}] is blank: fill it in, or leave it out")
        if name == "batch_num" and not (text.isascii() and text.isdigit()):
            raise arguments.is_not(f"{argument}['batch_num']", "decimal digits", inner)


CHECKS: dict[str, arguments.Check] = {
    "channel": literals.optional(arguments.one_of(Channel)),
    "columns": _check_columns,
    "input_params_columns": arguments.named_columns,
    "output_slots": arguments.check_names,
    "batch_size": arguments.whole_number(),
    # Each is a thread, and a connection to the gateway.
    "max_in_flight": arguments.whole_number(most=100),
    "send_window": arguments.check_window,
    "max_lateness": arguments.check_max_lateness,
    "max_recipients": literals.optional(arguments.whole_number()),
    "validate_only": arguments.check_bool,
    "on_invalid": arguments.one_of(OnInvalid),
    "on_duplicate_contact": arguments.one_of(OnDuplicateContact),
    "on_rejected": arguments.one_of(OnRejected),
    "on_in_doubt": arguments.one_of(OnInDoubt),
    "on_empty": arguments.one_of(OnEmpty),
}
"""Checks of arguments that are not templated."""
TEMPLATED: dict[str, arguments.Check] = {
    "plan_id": arguments.parse_number,
    "campaign_key": literals.optional(arguments.check_text),
    "use_book_info": literals.optional(literals.check_book),
    "send_until": lambda _, value: arguments.parse_deadline(value),
    "on_clear": arguments.one_of(OnClear),
    "settle": literals.check_settle,
    "ledger_conn_id": literals.optional(arguments.check_conn_id),
    "lingyang_conn_id": arguments.check_conn_id,
}
"""Checks of arguments that are templated, where they stand alone."""
