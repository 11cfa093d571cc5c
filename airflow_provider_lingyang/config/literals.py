"""What arguments hold in the DAG file already: found wrong while it is parsed, if it can never be right.

Text with a template in it and outputs of other tasks are left to run time, when their values are known. The module
imports nothing heavy. Checking a ``use_book_info`` or a ``result_query`` imports pydantic and the models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from airflow_provider_lingyang.config import arguments
from airflow_provider_lingyang.config.arguments import ArgumentError, Check

Channel = Literal["call", "sms", "email"]
OnInvalid = Literal["fail", "skip"]
OnDuplicateContact = Literal["warn", "fail", "keep_first"]
OnRejected = Literal["continue", "fail"]
OnInDoubt = Literal["stop", "continue"]
OnEmpty = Literal["skip", "fail", "succeed"]
OnClear = Literal["reuse", "resubmit"]
SettledAs = Literal["accepted", "not_executed"]


def is_open(value: object) -> bool:
    """Whether only a run can tell what an argument is: it holds a template, or stands for another task's output."""
    if isinstance(value, str):
        return any(mark in value for mark in ("{{", "{%", "{#"))
    # Airflow's mark of what it resolves when a task runs: XComArg, DagParam and the like.
    return hasattr(value, "iter_references")


def holds_open(value: object) -> bool:
    """Whether a value, or anything in it, is open (:func:`is_open`), or is an object whose fields Airflow renders."""
    if isinstance(value, Mapping):
        return any(holds_open(each) for pair in value.items() for each in pair)
    if isinstance(value, (list, tuple, set)):
        return any(map(holds_open, value))
    return is_open(value) or hasattr(value, "template_fields")


def optional(check: Check) -> Check:
    """Return a check that None passes."""
    return lambda argument, value: None if value is None else check(argument, value)


def check_task(task: Any, checks: Mapping[str, Check]) -> None:
    """Check arguments that this package does not template, while the DAG is parsed.

    A subclass may template them: then they are left to :func:`check_rendered_task`.

    :param task: an operator, with an attribute and perhaps a template field for each argument.
    :raises ArgumentError: an argument cannot be right, or holds a template that nothing renders.
    """
    for name, check in checks.items():
        value = getattr(task, name)
        if not holds_open(value):
            check(name, value)
        elif name not in task.template_fields:
            raise ArgumentError(
                f"{name} holds a template, or the output of a task, and is not templated: give it a value that is "
                "known while the DAG is parsed, or add it to template_fields in a subclass"
            )


def check_templated(task: Any, checks: Mapping[str, Check]) -> None:
    """Check templated arguments that are known while the DAG is parsed; leave the others to run time."""
    for name, check in checks.items():
        if not is_open(value := getattr(task, name)):
            check(name, value)


def check_rendered_task(task: Any, checks: Mapping[str, Check]) -> None:
    """Check those arguments of :func:`check_task` that a subclass templates, once they are rendered."""
    for name, check in checks.items():
        if name in task.template_fields:
            check(name, getattr(task, name))


class Rendering:
    """Remembers which templated arguments a task was given, to check what they have rendered to.

    :param task: an operator, not rendered yet.
    :param given: those whose absence has a meaning of its own, so that none may render to nothing.
    :param mappings: those of them whose values may not, either.
    :param parameters: those that are bound to a query.
    """

    def __init__(
        self, task: Any, given: Iterable[str], parameters: Iterable[str], mappings: Iterable[str] = ()
    ) -> None:
        self._given = [name for name in given if getattr(task, name) is not None]
        self._values = [
            (name, key)
            for name in mappings
            if isinstance(value := getattr(task, name), Mapping)
            for key, inner in value.items()
            if inner is not None
        ]
        self._parameters = {name: _open_parameters(getattr(task, name)) for name in parameters}

    def check(self, task: Any) -> None:
        """Raise unless the arguments can be right.

        :param task: the operator, rendered.
        """
        for name in self._given:
            arguments.check_rendered(name, getattr(task, name))
        for name, key in self._values:
            arguments.check_rendered(f"{name}[{key!r}]", getattr(task, name)[key])
        for name, places in self._parameters.items():
            value = getattr(task, name)
            optional(arguments.check_parameters)(name, value)
            for place in places:
                # Python's word for nothing would be bound as that word.
                if value[place] == "None":
                    raise ArgumentError(
                        f"{name}[{place!r}] has rendered to 'None': its template found nothing. Correct it, or give "
                        "the template a default"
                    )


def _open_parameters(value: Any) -> list[Any]:
    """Return the keys, or the positions, of a query's parameters that hold a template."""
    is_list = isinstance(value, (list, tuple))
    places = value.items() if isinstance(value, Mapping) else enumerate(value if is_list else ())
    return [place for place, inner in places if isinstance(inner, str) and is_open(inner)]


def check_query(task: Any, sql: str, conn_id: str, parameters: str) -> None:
    """Check three templated arguments, by their names: a query, its connection, and what is bound to it."""
    if (getattr(task, sql) is None) != (getattr(task, conn_id) is None):
        raise ArgumentError(
            f"{sql} and {conn_id} belong together (where {conn_id} comes from the DAG's default_args, give this task "
            f"{conn_id}=None)"
        )
    if getattr(task, parameters) is not None and getattr(task, sql) is None:
        raise ArgumentError(f"{parameters} belong to {sql}")
    checks: dict[str, Check] = {
        sql: arguments.check_sql,
        conn_id: arguments.check_conn_id,
        parameters: arguments.check_parameters,
    }
    check_templated(task, {name: optional(check) for name, check in checks.items()})


def check_book(argument: str, value: object) -> None:
    """Raise unless the argument has all fields of ``use_book_info``, and no other."""
    from airflow_provider_lingyang.gateway.models import UseBookInfo

    if not isinstance(value, Mapping):
        fields = ", ".join(UseBookInfo.model_fields)
        raise arguments.is_not(argument, f"a dict of {fields}", value, arguments.kind_of)
    _check_fields(argument, value, UseBookInfo)


def _check_fields(argument: str, value: Mapping[str, Any], model: Any) -> None:
    """Raise unless a pydantic model can be made of a mapping, once the values are known that only a run can tell."""
    from pydantic import ValidationError

    from airflow_provider_lingyang.lookup.query import problems_of

    try:
        model.model_validate(value)
    except ValidationError as error:
        unknown = [name for name, inner in value.items() if holds_open(inner)]
        if problems := problems_of(error, model, unknown):
            raise ArgumentError(f"{argument}: {problems}") from None


def check_rows(argument: str, value: object) -> None:
    """Raise unless the argument may be rows."""
    if value is None or hasattr(value, "iter_references"):
        return
    arguments.check_no_frame(argument, value)
    if not arguments.is_listing(value):
        raise arguments.is_not(
            argument,
            "a list of rows, or other_task.output (it is never a template)",
            value,
            arguments.kind_of,
        )
    for row in value if isinstance(value, (list, tuple)) else ():
        biz_id = row.get("biz_id") if isinstance(row, Mapping) else None
        if isinstance(biz_id, str) and is_open(biz_id):
            raise ArgumentError(
                f"{argument} is never rendered, and a biz_id in it holds a template: let another task return the rows, "
                "or use sql"
            )


def check_settle(argument: str, value: object) -> None:
    """Raise unless the argument says something about requests in doubt."""
    if isinstance(value, Mapping):
        value = {code: said for code, said in value.items() if not is_open(said)}
    arguments.parse_settle(value)


def check_campaign(argument: str, value: object) -> None:
    """Raise unless the argument may be a manifest."""
    if hasattr(value, "output"):
        raise ArgumentError(f"{argument} is the task itself; give its manifest: {argument}=submit.output")
    if not isinstance(value, Mapping):
        what = f"the manifest of a submit task of this DAG, {argument}=submit.output"
        raise arguments.is_not(argument, what, value, arguments.kind_of)


def check_biz_ids(argument: str, value: object) -> None:
    """Raise unless the argument may be a list of ids."""
    arguments.check_one_column(argument, value)
    if not arguments.is_listing(value):
        raise arguments.is_not(argument, "a list, also for one", value, arguments.kind_of)
    # Looking into anything else might use it up.
    for biz_id in value if isinstance(value, (list, tuple)) else ():
        if biz_id is None or not str(biz_id).strip():
            raise ArgumentError(f"{argument} holds an id that is blank")


def check_result_query(argument: str, value: object, *, of_table: bool) -> None:
    """Raise unless the argument may describe a look-up.

    :param of_table: results come from a table: only what a status means is read.
    """
    from airflow_provider_lingyang.lookup.query import ResultQuery, StatusMeaning, keys_of

    try:
        keys = keys_of(value)
    except ValueError as error:
        raise ArgumentError(f"{argument}: {error}") from None
    _check_fields(argument, keys, StatusMeaning if of_table else ResultQuery)
    if keys.get("status_field") and not (keys.get("done_values") or keys.get("failed_values")):
        raise ArgumentError(
            f"{argument}: a status_field needs done_values or failed_values, or no recipient ever finishes"
        )


def _check_columns(argument: str, value: Any) -> None:
    arguments.check_mapping(argument, value)
    arguments.check_fields(argument, value)
    arguments.check_columns(argument, value)


def check_task_defaults(argument: str, value: Any) -> None:
    """Raise unless the argument gives fields of a row a value each; a value may be a template."""
    arguments.check_mapping(argument, value)
    arguments.check_fields(argument, value, without=("biz_id",))
    for name, inner in value.items():
        if inner is None or is_open(inner):
            continue
        text = str(inner).strip()
        if text in ("", "None"):
            raise ArgumentError(f"{argument}[{name!r}] is blank: fill it in, or leave it out")
        if name == "batch_num" and not (text.isascii() and text.isdigit()):
            raise arguments.is_not(f"{argument}['batch_num']", "decimal digits", inner)


CHECKS: dict[str, Check] = {
    "channel": optional(arguments.one_of(Channel)),
    "columns": _check_columns,
    "input_params_columns": arguments.named_columns,
    "output_slots": arguments.check_names,
    "keep_columns": arguments.check_keep_columns,
    "batch_size": arguments.whole_number(),
    # Each is a thread, and a connection to the gateway.
    "max_in_flight": arguments.whole_number(most=100),
    "shards": optional(arguments.whole_number()),
    "send_window": arguments.check_window,
    "max_lateness": arguments.check_max_lateness,
    "max_recipients": optional(arguments.whole_number()),
    "validate_only": arguments.check_bool,
    "on_invalid": arguments.one_of(OnInvalid),
    "on_duplicate_contact": arguments.one_of(OnDuplicateContact),
    "on_rejected": arguments.one_of(OnRejected),
    "on_in_doubt": arguments.one_of(OnInDoubt),
    "on_empty": arguments.one_of(OnEmpty),
}
"""Checks of arguments that are not templated."""
TEMPLATED: dict[str, Check] = {
    "plan_id": arguments.parse_number,
    "campaign_key": optional(arguments.check_text),
    "use_book_info": optional(check_book),
    "send_until": lambda _, value: arguments.parse_deadline(value),
    "on_clear": arguments.one_of(OnClear),
    "settle": check_settle,
    "ledger_conn_id": optional(arguments.check_conn_id),
    "lingyang_conn_id": arguments.check_conn_id,
}
"""Checks of arguments that are templated, where they stand alone."""
