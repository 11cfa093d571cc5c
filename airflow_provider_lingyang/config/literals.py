"""What templated arguments hold in the DAG file already: found wrong while it is parsed, if it can never be right.

Text with a template in it and outputs of other tasks are left to run time, when their values are known. Imports nothing
heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_lingyang.config.arguments import (
    ArgumentError,
    Check,
    check_conn_id,
    check_no_frame,
    check_one_column,
    check_parameters,
    check_rendered,
    check_sql,
    is_listing,
    is_not,
    kind_of,
    parse_settle,
)


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
    :param arguments: those whose absence has a meaning of its own, so that none may render to nothing.
    :param mappings: those of them whose values may not, either.
    :param parameters: those that are bound to a query.
    """

    def __init__(
        self, task: Any, arguments: Iterable[str], parameters: Iterable[str], mappings: Iterable[str] = ()
    ) -> None:
        self._arguments = [name for name in arguments if getattr(task, name) is not None]
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
        for name in self._arguments:
            check_rendered(name, getattr(task, name))
        for name, key in self._values:
            check_rendered(f"{name}[{key!r}]", getattr(task, name)[key])
        for name, places in self._parameters.items():
            value = getattr(task, name)
            optional(check_parameters)(name, value)
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
    checks: dict[str, Check] = {sql: check_sql, conn_id: check_conn_id, parameters: check_parameters}
    check_templated(task, {name: optional(check) for name, check in checks.items()})


def check_book(argument: str, value: object) -> None:
    """Raise unless the argument has all fields of ``use_book_info``, and no other."""
    from airflow_provider_lingyang.gateway.models import UseBookInfo

    if not isinstance(value, Mapping):
        fields = ", ".join(UseBookInfo.model_fields)
        raise is_not(argument, f"a dict of {fields}", value, kind_of)
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
    check_no_frame(argument, value)
    if not is_listing(value):
        raise is_not(
            argument, "a list of rows, or other_task.output (it is never a template)", value, kind_of
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
    parse_settle(value)


def check_campaign(argument: str, value: object) -> None:
    """Raise unless the argument may be a manifest."""
    if isinstance(value, Mapping):
        return
    if hasattr(value, "output"):
        raise ArgumentError(f"{argument} is the task itself; give its manifest: {argument}=submit.output")
    raise is_not(
        argument, f"the manifest of a submit task of this DAG, {argument}=submit.output", value, kind_of
    )


def check_biz_ids(argument: str, value: object) -> None:
    """Raise unless the argument may be a list of ids."""
    check_one_column(argument, value)
    if not is_listing(value):
        raise is_not(argument, "a list, also for one", value, kind_of)
    if not isinstance(value, (list, tuple)):
        return  # Looking into it might use it up.
    for biz_id in value:
        if biz_id is None or not str(biz_id).strip():
            raise ArgumentError(f"{argument} holds an id that is blank")


def check_result_query(argument: str, value: object, *, of_table: bool) -> None:
    """Raise unless the argument may describe a look-up.

    :param of_table: results come from a table: only what a status means is read.
    """
    from airflow_provider_lingyang.lookup.query import ResultQuery, TableQuery, keys_of

    try:
        keys = keys_of(value)
    except ValueError as error:
        raise ArgumentError(f"{argument}: {error}") from None
    _check_fields(argument, keys, TableQuery if of_table else ResultQuery)
    if keys.get("status_field") and not (keys.get("done_values") or keys.get("failed_values")):
        raise ArgumentError(
            f"{argument}: a status_field needs done_values or failed_values, or no recipient ever finishes"
        )
