"""The Airflow connection of type ``lingyang``: one model, from which its forms and the READMEs' tables derive.

Airflow reads the form while it starts, after it has imported pydantic itself: nothing else is imported here. Since
3.2 it reads it from the provider's metadata, earlier versions read it from the hook's classmethods.
"""

from __future__ import annotations

import json
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from airflow_provider_lingyang.gateway.errors import LingyangConfigError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

CONN_TYPE = "lingyang"
_KEPT = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"
"""What Airflow 2 shows in the place of a secret, and takes for the stored one when it comes back."""


class Input(NamedTuple):
    """How the form takes a field, and the words of its error.

    :param type: JSON's name of it.
    :param must_be: what an error says that the field must be. Empty: no value is an error here.
    :param minimum: the smallest number.
    """

    type: Literal["string", "secret", "number", "integer", "boolean", "object"]
    must_be: str = ""
    minimum: int | None = None


def _text(value: Any) -> str:
    return str(value or "").strip()


def _plan_address(value: Any) -> str:
    template = str(value).strip()
    address, parts = urlsplit(template), list(Formatter().parse(template))
    places = {name + (f":{form}" if form else "") for _, name, form, _ in parts if name is not None}
    plain = template.isprintable() and " " not in template and all(part[3] is None for part in parts)
    web = address.scheme in ("http", "https") and address.hostname and "@" not in address.netloc
    if not (web and plain) or places - {"plan_id"}:
        raise ValueError
    return template


# JSON's true is no number.
_READ_NUMBER = BeforeValidator(lambda value: float(str(value)))
_Text = Annotated[str, PlainValidator(_text), Input("string")]
_Secret = Annotated[str, PlainValidator(_text), Input("secret")]
_Switch = Annotated[
    bool,
    BeforeValidator(
        lambda value: {"": False, "none": False, "false": False, "true": True}.get(str(value).strip().lower())
    ),
    Input("boolean", "true or false"),
]


class LingyangConnection(BaseModel):
    """A connection to the gateway; what follows ``password`` is kept in its extra, where every field may be empty.

    Its fields are in the order of the form. ``GatewaySettings`` checks the values that every call needs, so that their
    types here admit what it refuses.
    """

    model_config = ConfigDict(frozen=True)

    host: _Text = Field(
        "",
        title="Gateway URL",
        description="The full gateway URL: https, or http to this machine (a sandbox).",
        examples=["https://eco.taobao.com/router/rest"],
    )
    login: _Text = Field(
        "",
        title="App key",
        description="The number that the platform gave your app.",
        examples=["the number that the platform gave your app"],
    )
    password: _Secret = Field(
        "", repr=False, title="App secret", description="The app's secret.", examples=["the app's secret"]
    )
    session_token: _Secret = Field(
        "", repr=False, title="Session token", description="The user session. Only where your API needs one."
    )
    sign_method: Annotated[
        Literal["hmac-sha256", "hmac", "md5"],
        PlainValidator(lambda value: str(value or "hmac-sha256")),
        Input("string"),
    ] = Field(
        "hmac-sha256",
        title="Sign method",
        description="How requests are signed: hmac-sha256, hmac or md5. Leave it unless your gateway accepts only "
        "another one.",
    )
    timeout: Annotated[float, _READ_NUMBER, Input("number", "a number")] = Field(
        30.0,
        title="Timeout (seconds)",
        description="For the connection to be made (10 at most), and again for the whole answer; a sensor's look-up: "
        "for both together.",
    )
    max_attempts: Annotated[
        int, BeforeValidator(lambda value: int(str(value))), Input("integer", "a number", minimum=1)
    ] = Field(
        3,
        title="Attempts",
        description="How often one request is sent at most; a submission only when it provably was not executed.",
    )
    max_requests_per_second: Annotated[
        float | None, _READ_NUMBER, Input("number", "at least 1/3600, one request an hour")
    ] = Field(
        None,
        ge=1 / 3600,
        allow_inf_nan=False,
        title="Requests per second",
        description="Holds requests and look-ups back: of all tasks together whose ledger is in one database "
        "(ledger_conn_id), else of each process. At least 1/3600. Empty: as fast as they are answered.",
    )
    result_query: Annotated[Any, Input("object")] = Field(
        None,
        title="Result query (JSON)",
        description="A JSON object that describes how results are looked up: method, request_param, biz_ids_field, "
        "max_biz_ids, items_path, status_field, done_values, failed_values and others; the README has them all. "
        "Empty: results cannot be looked up.",
        examples=['{"method": "…", "biz_ids_field": "…", "items_path": "…"}'],
    )
    lookup_settle: Annotated[
        float | None, _READ_NUMBER, Input("number", "a number of seconds up to 86400")
    ] = Field(
        None,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        title="Look-up settles after (seconds)",
        description="By then the look-up knows of every executed request, so that not found means not executed. At "
        "least the timeout. Empty: 30, or twice the timeout if that is more.",
        examples=["30"],
    )
    dedupes_by_code: _Switch = Field(
        False,
        title="Gateway de-duplicates by code",
        description="Switch it on only if you know that your gateway executes a task_unique_code only once: a request "
        "whose answer was lost is then sent again as it was. If it does not, recipients are contacted twice.",
    )
    plan_variables_as_text: _Switch = Field(
        False,
        title="Plan variables as text",
        description="Switch it on if your plan takes text only: numbers, booleans and lists in input_params are then "
        'sent as text, 7 as "7", true as "true".',
    )
    international_numbers: Annotated[
        Literal["refuse", "allow"],
        BeforeValidator(lambda value: str(value or "refuse").strip()),
        Input("string", "'refuse' or 'allow'"),
    ] = Field(
        "refuse",
        title="Numbers of other countries",
        description="Whether a phone number may be another country's (+1…, 001…; sent as 001…): such calls are dear "
        'and often blocked. refuse: such a row is invalid. With channel="email" any number will do.',
    )
    console_url: Annotated[
        str | None,
        BeforeValidator(_plan_address),
        Input(
            "string",
            "an address such as 'https://console.example/plans/{plan_id}': http or https, without a user, and with no "
            "other place in braces than {plan_id}",
        ),
    ] = Field(
        None,
        title="Address of a plan in the console",
        description="Where a plan is in the console, such as https://console.example/plans/{plan_id}: the tasks' link "
        "Lingyang plan leads there. Empty: no link.",
        examples=["https://…/plans/{plan_id}"],
    )

    @classmethod
    def read(cls, conn: Connection, *names: str) -> LingyangConnection:
        """Return a connection with these fields checked. The others have their defaults, whatever it holds of them.

        :raises LingyangConfigError: naming the connection, and the field that cannot be right.
        """
        given = _extra(conn) | {"host": conn.host, "login": conn.login, "password": conn.password}
        try:
            return cls.model_validate(
                {name: given[name] for name in names if given.get(name) not in (None, "")}
            )
        except ValidationError as error:
            # Not its own text, which may repeat the value.
            name = str(error.errors()[0]["loc"][0])
        raise LingyangConfigError(f"connection {conn.conn_id!r}: {name} must be {input_of(name).must_be}")


_FIELDS = LingyangConnection.model_fields
EXTRA_FIELDS = tuple(_FIELDS)[3:]
"""Every key that the connection's extra may hold."""


def input_of(name: str) -> Input:
    """Return how the form takes a field."""
    metadata = _FIELDS[name].metadata
    return next(each for each in metadata if isinstance(each, Input))


def _extra(conn: Connection) -> dict[str, Any]:
    # Not extra_dejson: it turns broken JSON into an empty dict, and a missing session into a riddle.
    try:
        extra = json.loads(conn.extra or "{}")
    except (ValueError, RecursionError):
        extra = None
    if not isinstance(extra, dict):
        raise LingyangConfigError(f"connection {conn.conn_id!r}: extra must be a JSON object")
    if unknown := sorted(extra.keys() - set(EXTRA_FIELDS)):
        names = ", ".join(name[:40] for name in unknown)
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: extra holds unknown {names}; it takes {', '.join(EXTRA_FIELDS)}"
        )
    return extra


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

    text: tuple[Any, Any, list[Any]] = (StringField, BS3TextFieldWidget, [])
    kinds: dict[str, tuple[Any, Any, list[Any]]] = {
        "secret": (PasswordField, SecretWidget, []),
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
        make_field, make_widget, checks = kinds.get(kind, text)
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
