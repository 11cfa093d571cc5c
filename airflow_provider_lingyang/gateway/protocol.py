"""Build a signed request, read an answer. Pure, shared by both clients.

Source: Taobao Open Platform, "API call method",
doc.alidayu.com/docs/doc.htm?treeId=49&articleId=101617&docType=1
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from airflow_provider_lingyang.gateway.answer_parser import DuplicateKeyError, parse_answer
from airflow_provider_lingyang.gateway.answer_values import Sign, plain_text, sign_of
from airflow_provider_lingyang.gateway.dates import date_text
from airflow_provider_lingyang.gateway.error_classification import gateway_error
from airflow_provider_lingyang.gateway.errors import (
    LOOK_UP,
    AnswerUnreadableError,
    LingyangConfigError,
    RequestInvalidError,
)
from airflow_provider_lingyang.gateway.form_encoding import form_encoded
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.signing import sign

HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded;charset=utf-8",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}
ONE_CALL_HEADERS = HEADERS | {"Connection": "close"}
"""Of a request with a connection of its own."""
_FLAT = frozenset(("isv", "isp", "system"))
"""Types of the newer gateway's errors (jaq-doc.alibaba.com articleId=119481)."""
CONTRADICTION = "the answer contradicts itself"


def signed_form(settings: GatewaySettings, method: str, params: Mapping[str, str], now: datetime) -> bytes:
    """Return the body of one attempt: system and business parameters, signed, form-encoded.

    :param method: the platform's method name.
    :param params: business parameters; empty ones are neither signed nor sent.
    :param now: the moment of this attempt (aware): the timestamp is fresh on each.
    """
    form = {
        "method": method,
        "app_key": settings.app_key,
        "session": settings.session_token or "",
        "timestamp": date_text(now),
        "format": "json",
        "v": "2.0",
        "sign_method": settings.sign_method,
    }
    if clash := form.keys() & params.keys() | {"sign"} & params.keys():
        raise LingyangConfigError(f"{', '.join(sorted(clash))}: set by the client, not by the caller")
    form = {name: value for name, value in (form | dict(params)).items() if name and value}
    try:
        form["sign"] = sign(form, settings.app_secret, settings.sign_method)
        return b"&".join(form_encoded(name) + b"=" + form_encoded(value) for name, value in form.items())
    except UnicodeEncodeError:
        # from None: its own text repeats the parameter.
        raise RequestInvalidError(f"a parameter of {method} holds text that is not Unicode") from None


def signature_of(form: bytes) -> str:
    """Return the signature that a form of :func:`signed_form` ends with."""
    return form[form.rindex(b"&sign=") + len(b"&sign=") :].decode()


# Its repr would show recipients.
@dataclass(eq=False, repr=False)
class Answer:
    """A success of the envelope.

    :param payload: the value below the root element.
    :param raw_request_id: the gateway's id of the call, as it came.
    :param scrub: takes the request's values out of texts.
    :param beside: the members beside the root element.
    """

    payload: Mapping[str, Any]
    raw_request_id: str | None
    scrub: Scrubber
    beside: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def request_id(self) -> str | None:
        """The gateway's id of the call. Scrubbed on first use: a request is long, and most ids are never read."""
        return self.scrub.call_id(self.raw_request_id)


def read_answer(
    *,
    status: int,
    content_type: str,
    body: bytes,
    scrub: Scrubber,
    date: str | None = None,
    now: datetime | None = None,
) -> Answer:
    """Return the gateway's answer, from JSON, simplified JSON or XML.

    :param status: HTTP status.
    :param content_type: HTTP header, for the message about an answer that is none.
    :param body: the decoded body.
    :param scrub: takes the request's values out of texts.
    :param date: HTTP header; measures how far this machine's clock is off, where the gateway complains of it.
    :param now: this machine's time (aware), to be compared with ``date``.
    :raises GatewayError: the gateway refused.
    :raises AnswerUnreadableError: it is not an answer of the gateway.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        document = parse_answer(body)
    except DuplicateKeyError:
        raise _contradiction("a name twice, with different values", None, scrub) from None
    except (ValueError, RecursionError):
        # from None: the original repeats the body.
        raise _unreadable(status, content_type, body) from None
    if isinstance(document, dict):
        _refuse_error(document, status, scrub, _clock_skew(date, now))
    payload = _payload(document)
    if status != 200 or payload is None or "error_response" in document:
        raise _unreadable(status, content_type, body)
    beside = (
        {}
        if payload is document
        else {name: value for name, value in document.items() if value is not payload}
    )
    return Answer(payload, plain_text(payload.get("request_id") or document.get("request_id")), scrub, beside)


def _refuse_error(
    document: Mapping[str, Any], status: int, scrub: Scrubber, clock_skew: float | None
) -> None:
    """Raise the error that an answer holds.

    :raises GatewayError: the gateway refused, and said nothing else.
    :raises AnswerUnreadableError: it said something else beside it, so the outcome of the request is unknown.
    """
    error = document.get("error_response")
    others = [value for name, value in document.items() if name != "error_response"]
    if "error_response" not in document:
        roots = [name for name, value in document.items() if name.endswith("_response") and value]
        # An empty root says nothing beside a success, but two roots are two answers where one refuses.
        if len(roots) > 1 or (roots and "result" in document):
            raise _contradiction("two answers in one", plain_text(document.get("request_id")), scrub)
        if roots or "result" in document or _side(document) not in _FLAT or not document.get("code"):
            inner = document[roots[0]] if roots else document
            if isinstance(inner, dict) and inner.get("error_response"):
                raise _contradiction("an error inside a success", plain_text(inner.get("request_id")), scrub)
            return
        error = document
    if not isinstance(error, dict):
        return
    request_id = plain_text(error.get("request_id"))
    # Old gateways repeat the request's arguments in their errors.
    within = [value for name, value in error.items() if name != "args"]
    flagged = any(sign_of(name) is Sign.FLAG for node in (document, error) for name in node)
    # The newer gateway's type says which side is at fault, also where it wraps its error.
    kind = _side(error) if error is document or _side(error) in ("isp", "system") else None
    if flagged or any(isinstance(value, (dict, list)) and value for value in (*others, *within)):
        raise _contradiction("an error beside a success", request_id, scrub)
    raise gateway_error(
        code=plain_text(error.get("code")),
        sub_code=plain_text(error.get("sub_code")),
        msg=plain_text(error.get("msg") or error.get("message")),
        sub_msg=plain_text(error.get("sub_msg")),
        request_id=request_id,
        scrub=scrub,
        clock_skew=clock_skew,
        status=status,
        kind=kind,
    )


def _side(error: Mapping[str, Any]) -> str:
    return (plain_text(error.get("type")) or "").strip().lower()


def _contradiction(what: str, request_id: str | None, scrub: Scrubber) -> AnswerUnreadableError:
    return AnswerUnreadableError(f"{CONTRADICTION}: {what}", request_id=scrub.call_id(request_id))


def _payload(document: Any) -> Mapping[str, Any] | None:
    """Return the value below the root element, or None. Official parsers take the only value, whatever its name."""
    if not isinstance(document, dict):
        return None
    for name, value in document.items():
        if name.endswith("_response") and isinstance(value, dict):
            return value
    # Simplified answers have no root element: recognise them by members of the platform's.
    candidates = [document, *document.values()] if len(document) == 1 else [document]
    return next(
        (each for each in candidates if isinstance(each, dict) and each.keys() & {"result", "request_id"}),
        None,
    )


def _clock_skew(date: str | None, now: datetime | None) -> float | None:
    try:
        gateway_time = parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    return None if now is None or gateway_time.tzinfo is None else (now - gateway_time).total_seconds()


def _unreadable(status: int, content_type: str, body: bytes) -> AnswerUnreadableError:
    return AnswerUnreadableError(
        f"the answer is not one of the gateway (HTTP {status}, {_kind(content_type, body)}, {len(body)} bytes)",
        hint=f"{_what_to_check(status)} {LOOK_UP}",
    )


def _what_to_check(status: int) -> str:
    if 300 <= status < 400:
        return "Redirects are not followed: put the gateway's final URL into the connection's host."
    if status == 413:
        return "Something before the gateway takes no request of this size: lower batch_size."
    if status == 429:
        return "Something before the gateway throttles: lower the connection's max_requests_per_second."
    if status >= 500:
        return "The gateway, or something before it, is in trouble."
    return "Check that the connection's host is the gateway and that no proxy or login page stands before it."


def _kind(content_type: str, body: bytes) -> str:
    start = body[:200].lstrip().lower()
    if not start:
        return "empty"
    if start.startswith((b"<!doctype html", b"<html")) or "html" in content_type.lower():
        return "HTML"
    if start.startswith(b"<"):
        return "XML that is damaged or of another shape"
    try:
        body.decode()
    except UnicodeDecodeError:
        return "not in UTF-8"
    if start.startswith((b"{", b"[")):
        return "JSON that is damaged or of another shape"
    return "neither JSON nor XML"
