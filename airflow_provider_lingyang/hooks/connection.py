"""The fields of an Airflow connection to the gateway. Pure.

Each function raises :class:`LingyangConfigError` for a field that cannot be right, with its name and the connection's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Formatter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_lingyang.config.connection_form import EXTRA_FIELDS
from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.lookup.query import ResultQuery

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection


def client_settings(conn: Connection) -> GatewaySettings:
    """Return the settings of both clients. Pure.

    :raises LingyangConfigError: naming the connection and the field that cannot be right.
    """
    extra = _extra(conn)
    options: dict[str, Any] = {}
    try:
        for name, kind in (("timeout", float), ("max_attempts", int)):
            if extra.get(name) not in (None, ""):
                options[name] = kind(str(extra[name]))
    except ValueError:
        raise LingyangConfigError(f"connection {conn.conn_id!r}: {name} must be a number") from None
    if extra.get("sign_method"):
        options["sign_method"] = str(extra["sign_method"])
    if conn.port or conn.schema:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: host takes the full gateway URL; leave port and schema empty "
            "(in a URI, write its / as %2F and its : as %3A)"
        )
    try:
        return GatewaySettings(
            url=(conn.host or "").strip().rstrip("/"),
            app_key=(conn.login or "").strip(),
            app_secret=(conn.password or "").strip(),
            session_token=str(extra.get("session_token") or "").strip() or None,
            **options,
        )
    except LingyangConfigError as error:
        raise LingyangConfigError(f"connection {conn.conn_id!r}: {error}") from None


def max_requests_per_second(conn: Connection) -> float | None:
    """Return the rate limit of a connection, or None. Pure.

    :raises LingyangConfigError: it is no number, or less than one request an hour.
    """
    value = _extra(conn).get("max_requests_per_second")
    if value in (None, ""):
        return None
    try:
        rate = float(str(value))
    except ValueError:
        rate = 0.0
    if not 1 / 3600 <= rate < float("inf"):
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: max_requests_per_second must be at least 1/3600, one request an hour"
        )
    return rate


def lookup_settle(conn: Connection) -> float:
    """Return after how many seconds a look-up knows of every executed request: by default 30, or twice the timeout.

    :raises LingyangConfigError: it is no number, or less than the timeout.
    """
    timeout = client_settings(conn).timeout
    value = _extra(conn).get("lookup_settle")
    if value in (None, ""):
        return max(30.0, 2 * timeout)
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: lookup_settle must be a number of seconds up to 86400"
        )
    if seconds < timeout:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: lookup_settle ({seconds:g}) must be at least timeout ({timeout:g}): a "
            "request may be under way for that long, and a recipient that is not found before it arrives would be "
            "contacted twice"
        )
    return seconds


def dedupes_by_code(conn: Connection) -> bool:
    """Return whether the user states that the gateway executes a ``task_unique_code`` only once.

    :raises LingyangConfigError: it is neither true nor false.
    """
    return _switch(conn, "dedupes_by_code")


def plan_variables_as_text(conn: Connection) -> bool:
    """Return whether every plan variable is sent as text. Pure.

    :raises LingyangConfigError: it is neither true nor false.
    """
    return _switch(conn, "plan_variables_as_text")


def allows_international_numbers(conn: Connection) -> bool:
    """Return whether a recipient's phone number may be another country's: by default it may not. Pure.

    :raises LingyangConfigError: it is neither ``refuse`` nor ``allow``.
    """
    value = str(_extra(conn).get("international_numbers") or "refuse").strip()
    if value not in ("refuse", "allow"):
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: international_numbers must be 'refuse' or 'allow'"
        )
    return value == "allow"


def result_query(conn: Connection) -> ResultQuery | None:
    """Return the look-up that a connection describes, or None. Pure.

    :raises LingyangConfigError: it describes one that cannot be right.
    """
    value = _extra(conn).get("result_query")
    # The form of Airflow 3 shows an empty object as a list.
    if value in (None, "", {}, []):
        return None
    return ResultQuery.parse(value, where=f"connection {conn.conn_id!r}")


def console_url(conn: Connection) -> str | None:
    """Return the address of a plan in the console, with ``{plan_id}`` in its number's place, or None. Pure.

    :raises LingyangConfigError: it is no address that a browser can be sent to, or names another place.
    """
    value = _extra(conn).get("console_url")
    if value in (None, ""):
        return None
    template = str(value).strip()
    try:
        address = urlsplit(template)
        parts = list(Formatter().parse(template))
    except ValueError:
        address, parts = urlsplit(""), []
    places = [name + (f":{form}" if form else "") for _, name, form, _ in parts if name is not None]
    plain = template.isprintable() and " " not in template and all(part[3] is None for part in parts)
    web = address.scheme in ("http", "https") and address.hostname and "@" not in address.netloc
    if not (web and plain) or set(places) - {"plan_id"}:
        raise LingyangConfigError(
            f"connection {conn.conn_id!r}: console_url must be an address such as "
            "'https://console.example/plans/{plan_id}': http or https, without a user, and with no other place in "
            "braces than {plan_id}"
        )
    return template


def _switch(conn: Connection, name: str) -> bool:
    value = str(_extra(conn).get(name)).strip().lower()
    is_on = {"": False, "none": False, "false": False, "true": True}.get(value)
    if is_on is None:
        raise LingyangConfigError(f"connection {conn.conn_id!r}: {name} must be true or false")
    return is_on


def _extra(conn: Connection) -> Mapping[str, Any]:
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
