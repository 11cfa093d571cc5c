"""The platform's checks before any work, in its order, each with its code.

Source: ``doc.alidayu.com/docs/doc.htm?treeId=49&articleId=101617&docType=1`` (parameters, signature),
``developer.alibaba.com/docs/doc.htm?articleId=102707`` (codes).
"""

from __future__ import annotations

import binascii
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_to_bytes

from airflow_provider_lingyang.gateway.signing import sign
from airflow_provider_lingyang.sandbox import APP_KEY, APP_SECRET, LOOKUP, SESSION, SUBMIT, TIME
from airflow_provider_lingyang.sandbox.answers import Refused
from airflow_provider_lingyang.sandbox.schema import parse_date

SYSTEM_PARAMETERS = frozenset(
    {
        *("method", "app_key", "sign_method", "sign", "timestamp", "v"),
        *("session", "format", "simplify", "partner_id", "target_app_key"),
    }
)
BUSINESS_PARAMETERS: Mapping[str, frozenset[str]] = {
    SUBMIT: frozenset({"initiative_batch_task_request"}),
    LOOKUP: frozenset({"task_result_query"}),
    TIME: frozenset(),
}
"""Method → its own parameters, all required. The API page calls the struct of a submit optional, but without it there
is nothing to submit."""

MAX_SKEW_S = 600
"""Largest difference of a timestamp from the gateway's clock, in seconds."""

BEIJING = timedelta(hours=8)
_NOT_PLAIN = re.compile(rb"[=\r\n]|%(?![0-9A-Fa-f]{2})")
_FORM = "application/x-www-form-urlencoded"


def read_form(content_type: str, query: str, body: bytes) -> list[tuple[str, str]]:
    """Return the form fields in order, repeated ones included, empty ones not.

    :param content_type: the header as sent; a body of another type has no fields.
    :param query: the raw query string; the platform reads parameters from it, too.
    :param body: the raw body.
    :raises Refused: code 47, for text that is not UTF-8.
    """
    media, _, options = content_type.lower().partition(";")
    charset = options.partition("charset=")[2].strip().strip('"')
    if charset not in ("", "utf-8", "utf8"):
        raise Refused(47)
    parts = [query.encode(), body if media.strip() == _FORM else b""]
    try:
        return [pair for part in parts for field in part.split(b"&") if all(pair := _read_pair(field))]
    except ValueError as error:
        raise Refused(47) from error


def check_protocol(
    http_method: str,
    pairs: list[tuple[str, str]],
    *,
    now: float,
    session_required: bool = False,
) -> None:
    """Check a request up to its business parameters, which :func:`check_arguments` checks.

    :param http_method: ``POST`` is the only one allowed.
    :param pairs: the form fields of :func:`read_form`.
    :param now: the gateway's clock, epoch seconds.
    :param session_required: refuse a request without a session.
    :raises Refused: 9, 21 to 33 or 41.
    """
    if http_method != "POST":
        raise Refused(9)
    params = dict(pairs)
    if len(params) != len(pairs):
        # Before the signature: of a repeated field, the signed value is unknown.
        names = [name for name, _ in pairs]
        raise _invalid_argument(next(name for name in names if names.count(name) > 1))
    if "method" not in params:
        raise Refused(21)
    if params["method"] not in BUSINESS_PARAMETERS:
        raise Refused(22)
    if params.get("format", "xml") not in ("xml", "json"):
        raise Refused(23)
    if "sign" not in params:
        raise Refused(24)
    _check_app_key(params)
    _check_timestamp(params, now)
    _check_version(params)
    _check_signature(params)
    _check_session(params, session_required)


def check_arguments(params: Mapping[str, str]) -> None:
    """Check for unknown and missing parameters, and that ``simplify`` is a boolean.

    :raises Refused: code 40 or 41; ``msg`` ends with the name of the parameter.
    """
    required = BUSINESS_PARAMETERS[params["method"]]
    for name in sorted(required):
        if name not in params:
            raise Refused(40, f"Missing required arguments:{name}")
    for name in params:
        if name not in required and name not in SYSTEM_PARAMETERS:
            raise _invalid_argument(name)
    if params.get("simplify", "false") not in ("true", "false"):
        raise _invalid_argument("simplify")


def gateway_time(now: float) -> datetime:
    """Convert epoch seconds to the platform's time: GMT+8, naive."""
    return (datetime.fromtimestamp(now, UTC) + BEIJING).replace(tzinfo=None)


def _read_pair(field: bytes) -> tuple[str, str]:
    name, _, value = field.partition(b"=")
    return _unquote(name).decode(), _unquote(value).decode()


def _unquote(text: bytes) -> bytes:
    text = text.replace(b"+", b" ")
    if _NOT_PLAIN.search(text):
        return unquote_to_bytes(text)
    # Quoted-printable differs in one sign only, and its decoder is in C: a request of 100 tasks takes a third less
    # time.
    return binascii.a2b_qp(text.replace(b"%", b"="))


def _invalid_argument(name: str) -> Refused:
    return Refused(41, f"Invalid arguments:{name}")


def _check_app_key(params: Mapping[str, str]) -> None:
    if "app_key" not in params:
        raise Refused(28)
    if params["app_key"] != APP_KEY:
        raise Refused(29)


def _check_timestamp(params: Mapping[str, str], now: float) -> None:
    if "timestamp" not in params:
        raise Refused(30)
    text = params["timestamp"]
    # Epoch milliseconds: not documented, but sent by the platform's own Python SDK.
    millis = text.isascii() and text.isdigit() and len(text) == len("1710223556000")
    sent = gateway_time(int(text) / 1000) if millis else parse_date(text)
    if sent is None or abs((sent - gateway_time(now)).total_seconds()) > MAX_SKEW_S:
        raise Refused(31)


def _check_version(params: Mapping[str, str]) -> None:
    if "v" not in params:
        raise Refused(32)
    if params["v"] != "2.0":
        raise Refused(33)


def _check_signature(params: Mapping[str, str]) -> None:
    sign_method = params.get("sign_method")
    if sign_method not in ("md5", "hmac", "hmac-sha256"):
        raise Refused(25)
    unsigned = {name: value for name, value in params.items() if name != "sign"}
    expected = sign(unsigned, APP_SECRET, sign_method)
    if not hmac.compare_digest(expected.encode(), params["sign"].encode()):
        raise Refused(25)


def _check_session(params: Mapping[str, str], required: bool) -> None:
    if "session" not in params:
        if required:
            raise Refused(26)
    elif params["session"] != SESSION:
        raise Refused(27)
