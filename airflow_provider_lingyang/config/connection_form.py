"""The form of a connection of type ``lingyang``: one description for both ways in which Airflow asks for it.

Airflow 3.2 and later read it from the provider's metadata, earlier versions from the hook's classmethods. Airflow
reads the metadata while it starts, so nothing is imported here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

CONN_TYPE = "lingyang"


class Field(NamedTuple):
    """A field that is kept in the connection's extra. Every one may stay empty.

    :param kind: what it takes; ``json`` is an object.
    :param help: shown below it.
    :param placeholder: shown in it while it is empty, by Airflow 2.
    :param choices: what may be chosen, the default first.
    :param least: the smallest number.
    """

    name: str
    label: str
    kind: Literal["text", "secret", "number", "integer", "boolean", "json"]
    help: str
    placeholder: str = ""
    choices: tuple[str, ...] = ()
    least: int | None = None


FIELDS = (
    Field(
        "session_token",
        "Session token",
        "secret",
        "The user session. Only where your API needs one.",
    ),
    Field(
        "sign_method",
        "Sign method",
        "text",
        "How requests are signed. Leave it unless your gateway accepts only another one.",
        choices=("hmac-sha256", "hmac", "md5"),
    ),
    Field(
        "timeout",
        "Timeout (seconds)",
        "number",
        "For the connection to be made (10 at most), and again for the whole answer. Empty: 30.",
        placeholder="30",
    ),
    Field(
        "max_attempts",
        "Attempts",
        "integer",
        "How often one request is sent; a submission only when it provably was not executed. Empty: 3.",
        placeholder="3",
        least=1,
    ),
    Field(
        "max_requests_per_second",
        "Requests per second",
        "number",
        "Holds requests back; at least 1/3600. Empty: as fast as they are answered.",
    ),
    Field(
        "result_query",
        "Result query (JSON)",
        "json",
        "A JSON object that describes how results are looked up: method, request_param, biz_ids_field, max_biz_ids, "
        "items_path, status_field, done_values, failed_values and others; the README has them all. "
        "Empty: results cannot be looked up.",
        placeholder='{"method": "…", "biz_ids_field": "…", "items_path": "…"}',
    ),
    Field(
        "lookup_settle",
        "Look-up settles after (seconds)",
        "number",
        "By then the look-up knows of every executed request, so that not found means not executed. At least the "
        "timeout. Empty: 30, or twice the timeout if that is more.",
        placeholder="30",
    ),
    Field(
        "dedupes_by_code",
        "Gateway de-duplicates by code",
        "boolean",
        "Switch it on only if you know that your gateway executes a task_unique_code only once: a request whose answer "
        "was lost is then sent again. If it does not, people are called twice.",
    ),
    Field(
        "plan_variables_as_text",
        "Plan variables as text",
        "boolean",
        "Switch it on if your plan takes text only: numbers, booleans and lists in input_params are then sent as text.",
    ),
    Field(
        "international_numbers",
        "Numbers of other countries",
        "text",
        "Whether phone numbers with +, or 00, and another country's code may be called or texted: such calls are dear "
        "and often blocked.",
        choices=("refuse", "allow"),
    ),
    Field(
        "console_url",
        "Address of a plan in the console",
        "text",
        "With {plan_id} where the plan's number goes; tasks then link to their plan. Empty: no link.",
        placeholder="https://…/plans/{plan_id}",
    ),
)
EXTRA_FIELDS = tuple(field.name for field in FIELDS)
"""Every key that the connection's extra may hold."""

_HIDDEN = ("schema", "port")
_LABELS = {"host": "Gateway URL", "login": "App key", "password": "App secret"}
_PLACEHOLDERS = {
    "host": "https://eco.taobao.com/router/rest",
    "login": "the number that the platform gave your app",
    "password": "the app's secret",
}
_KEPT = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"
"""What Airflow 2 shows in the place of a secret, and takes for the stored one when it comes back."""
_TYPES = {"text": "string", "secret": "string", "json": "object"}


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return the fields as the provider's metadata describes them (Airflow 3.2 and later)."""
    return {
        field.name: {"label": field.label, "description": field.help, "schema": _schema(field)}
        for field in FIELDS
    }


def field_behaviour() -> dict[str, Any]:
    """Return what becomes of the fields that every connection has, with the keys of Airflow's hooks."""
    placeholders = {field.name: field.placeholder for field in FIELDS if field.placeholder}
    return {
        "hidden_fields": list(_HIDDEN),
        "relabeling": dict(_LABELS),
        "placeholders": _PLACEHOLDERS | placeholders,
    }


def widgets() -> dict[str, Any]:
    """Return the fields as WTForms has them (before Airflow 3.2), which is imported only here.

    Airflow takes four classes of fields and throws the whole hook away at the sight of another, so numbers are texts.
    """
    from flask_appbuilder.fieldwidgets import (
        BS3PasswordFieldWidget,
        BS3TextAreaFieldWidget,
        BS3TextFieldWidget,
    )
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, ValidationError, any_of

    class JsonWidget(BS3TextAreaFieldWidget):  # type: ignore[misc]
        """Shows what the extra holds as JSON. Airflow would show, and save, what Python's ``str`` makes of it."""

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            if isinstance(field.data, (dict, list)):
                field.data = json.dumps(field.data, indent=2, ensure_ascii=False)
            return super().__call__(field, **kwargs)

    class SecretWidget(BS3PasswordFieldWidget):  # type: ignore[misc]
        """Shows that there is a secret. Airflow would show nothing, and forget it when the form is saved."""

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            # One that was typed just now, into a form with another mistake in it, goes back to who typed it.
            if field.data and not field.raw_data:
                field.data = _KEPT
            self.hide_value = False
            return super().__call__(field, **kwargs)

    class ChoiceWidget(BS3TextFieldWidget):  # type: ignore[misc]
        """A drop-down. Airflow takes no field that would bring its own."""

        def __init__(self, choices: tuple[str, ...]) -> None:
            self.choices = choices

        def __call__(self, field: Any, **_: Any) -> Any:
            from markupsafe import Markup

            # What is stored stays what it is until a person chooses, or an error says that it cannot be right.
            choices = dict.fromkeys((*self.choices, *filter(None, (field.data,))))
            options = [
                Markup("<option{}>{}</option>").format(
                    Markup(" selected") if choice == field.data else "", choice
                )
                for choice in choices
            ]
            select = Markup('<select class="form-control" id="{}" name="{}">{}</select>')
            return select.format(field.id, field.name, Markup("").join(options))

    def can_be_right(form: Any, field: Any) -> None:
        from airflow_provider_lingyang.gateway.errors import LingyangConfigError
        from airflow_provider_lingyang.lookup.query import ResultQuery

        try:
            ResultQuery.parse(field.data, where="the form")
        except LingyangConfigError as error:
            raise ValidationError(str(error)) from None

    kinds: Mapping[str, tuple[Any, Any, list[Any]]] = {
        "text": (StringField, BS3TextFieldWidget, []),
        "secret": (PasswordField, SecretWidget, []),
        "number": (StringField, BS3TextFieldWidget, []),
        "integer": (IntegerField, BS3TextFieldWidget, []),
        "json": (StringField, JsonWidget, [can_be_right]),
    }
    made: dict[str, Any] = {}
    for field in FIELDS:
        if field.kind == "boolean":
            made[field.name] = BooleanField(field.label, description=field.help, default=False)
            continue
        kind, make_widget, checks = kinds[field.kind]
        if field.choices:
            widget, checks = ChoiceWidget(field.choices), [any_of(list(field.choices))]
        else:
            widget = make_widget()
        made[field.name] = kind(
            field.label,
            validators=[Optional(), *checks],
            description=field.help,
            default=field.choices[0] if field.choices else None,
            widget=widget,
        )
        if field.kind == "json" and hasattr(made[field.name], "param"):
            # What stands in for WTForms in Airflow 3.0 and 3.1: with this it is edited and checked as JSON there, too,
            # and an object that the connection holds is not shown, and saved, as "[object Object]".
            made[field.name].param.schema["type"] = _schema(field)["type"]
    return made


def _schema(field: Field) -> dict[str, Any]:
    # Without "null" the form would insist on a value.
    schema: dict[str, Any] = {"type": [_TYPES.get(field.kind, field.kind), "null"]}
    if field.kind == "secret":
        schema["format"] = "password"
    if field.kind == "boolean":
        schema["default"] = False
    if field.choices:
        schema |= {"enum": list(field.choices), "default": field.choices[0]}
    if field.least is not None:
        schema["minimum"] = field.least
    return schema
