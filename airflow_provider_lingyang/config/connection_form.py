"""The form of a connection of type ``lingyang``: one description for both ways in which Airflow asks for it.

Airflow 3.2 and later read it from the provider's metadata, earlier versions from the hook's classmethods.
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from airflow_provider_lingyang.config.connection import EXTRA_FIELDS, LingyangConnection, input_of
from airflow_provider_lingyang.gateway.errors import LingyangConfigError

_KEPT = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"
"""What Airflow 2 shows in the place of a secret, and takes for the stored one when it comes back."""
_FIELDS = LingyangConnection.model_fields


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return the fields of the extra as the provider's metadata describes them (Airflow 3.2 and later)."""
    return {
        name: {"label": _FIELDS[name].title, "description": _help(name), "schema": _schema(name)}
        for name in EXTRA_FIELDS
    }


def field_behaviour() -> dict[str, Any]:
    """Return what becomes of the fields that every connection has, with the keys of Airflow's hooks."""
    placeholders = {
        name: field.examples[0] if field.examples else _if_empty(name) for name, field in _FIELDS.items()
    }
    return {
        "hidden_fields": ["schema", "port"],
        "relabeling": {name: field.title for name, field in _FIELDS.items() if name not in EXTRA_FIELDS},
        "placeholders": {name: text for name, text in placeholders.items() if text},
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

    class JsonWidget(BS3TextAreaFieldWidget):  # type: ignore[misc]  # the base has no types
        """Shows what the extra holds as JSON. Airflow would show, and save, what Python's ``str`` makes of it."""

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            if isinstance(field.data, (dict, list)):
                field.data = json.dumps(field.data, indent=2, ensure_ascii=False)
            return super().__call__(field, **kwargs)

    class SecretWidget(BS3PasswordFieldWidget):  # type: ignore[misc]  # the base has no types
        """Shows that there is a secret. Airflow would show nothing, and forget it when the form is saved."""

        def __call__(self, field: Any, **kwargs: Any) -> Any:
            # One that was typed just now, into a form with another mistake in it, goes back to who typed it.
            if field.data and not field.raw_data:
                field.data = _KEPT
            self.hide_value = False
            return super().__call__(field, **kwargs)

    class ChoiceWidget(BS3TextFieldWidget):  # type: ignore[misc]  # the base has no types
        """A drop-down. Airflow takes no field that would bring its own."""

        def __init__(self, choices: list[str]) -> None:
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
        from airflow_provider_lingyang.lookup.query import ResultQuery

        try:
            ResultQuery.parse(field.data, where="the form")
        except LingyangConfigError as error:
            raise ValidationError(str(error)) from None

    kinds: dict[str, tuple[Any, Any, list[Any]]] = {
        "string": (StringField, BS3TextFieldWidget, []),
        "secret": (PasswordField, SecretWidget, []),
        "number": (StringField, BS3TextFieldWidget, []),
        "integer": (IntegerField, BS3TextFieldWidget, []),
        "object": (StringField, JsonWidget, [can_be_right]),
    }
    made: dict[str, Any] = {}
    for name in EXTRA_FIELDS:
        kind, schema = input_of(name).type, _schema(name)
        shown = {"label": _FIELDS[name].title, "description": _help(name), "default": schema.get("default")}
        if kind == "boolean":
            made[name] = BooleanField(**shown)
            continue
        make_field, make_widget, checks = kinds[kind]
        if choices := schema.get("enum"):
            widget, checks = ChoiceWidget(choices), [any_of(choices)]
        else:
            widget = make_widget()
        made[name] = make_field(validators=[Optional(), *checks], widget=widget, **shown)
        if kind == "object" and hasattr(made[name], "param"):
            # What stands in for WTForms in Airflow 3.0 and 3.1: with this it is edited and checked as JSON there, too,
            # and an object that the connection holds is not shown, and saved, as "[object Object]".
            made[name].param.schema["type"] = schema["type"]
    return made


def _schema(name: str) -> dict[str, Any]:
    field, (kind, _, minimum) = _FIELDS[name], input_of(name)
    # Without "null" the form would insist on a value.
    schema: dict[str, Any] = {"type": ["string" if kind == "secret" else kind, "null"]}
    if kind == "secret":
        schema["format"] = "password"
    if kind == "boolean":
        schema["default"] = field.default
    if get_origin(field.annotation) is Literal:
        schema |= {"enum": list(get_args(field.annotation)), "default": field.default}
    if minimum is not None:
        schema["minimum"] = minimum
    return schema


def _help(name: str) -> str:
    default = _if_empty(name)
    return f"{_FIELDS[name].description}" + (f" Empty: {default}." if default else "")


def _if_empty(name: str) -> str:
    """Return the number that an empty field means; no text where it means none."""
    default = _FIELDS[name].default
    return f"{default:g}" if input_of(name).type in ("number", "integer") and default is not None else ""
