"""The Airflow connection of type ``lingyang``: one model, from which its forms and the READMEs' tables derive.

Airflow reads the form while it starts, after it has imported pydantic itself: nothing else is imported here.
"""

from __future__ import annotations

import json
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from airflow_provider_lingyang.gateway.errors import LingyangConfigError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

CONN_TYPE = "lingyang"


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

    model_config = ConfigDict(defer_build=True, frozen=True)

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
        description="Holds requests and look-ups back; at least 1/3600. Empty: as fast as they are answered.",
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


EXTRA_FIELDS = tuple(LingyangConnection.model_fields)[3:]
"""Every key that the connection's extra may hold."""


def input_of(name: str) -> Input:
    """Return how the form takes a field."""
    metadata = LingyangConnection.model_fields[name].metadata
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
