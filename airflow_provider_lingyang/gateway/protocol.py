"""Build a signed request, read an answer. Pure, shared by both clients.

Source: Taobao Open Platform, "API call method",
doc.alidayu.com/docs/doc.htm?treeId=49&articleId=101617&docType=1
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from airflow_provider_lingyang.gateway.dates import date_text
from airflow_provider_lingyang.gateway.error_codes import LOOK_UP, gateway_error, shown_code
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    LingyangConfigError,
    RequestInvalidError,
    RequestRefusedError,
)
from airflow_provider_lingyang.gateway.form_encoding import form_encoded
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, InitiativeTaskResponse
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.signing import sign
from airflow_provider_lingyang.gateway.xml_answer import parse_xml
from airflow_provider_lingyang.lookup.query import as_list, names_in, plain_text

HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded;charset=utf-8",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_DECODER = json.JSONDecoder(strict=False)


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
        # from None: its own text repeats what could not be encoded.
        raise RequestInvalidError(f"a parameter of {method} holds text that is not Unicode") from None


def signature_of(form: bytes) -> str:
    """Return the signature that a form of :func:`signed_form` ends with."""
    return form.rpartition(b"&sign=")[2].decode()


class Answer:
    """A success of the envelope.

    :param payload: what is below the root element.
    :param raw_request_id: the gateway's id of the call, as it came.
    :param scrub: takes the request's values out of texts.
    """

    def __init__(self, payload: Mapping[str, Any], raw_request_id: str | None, scrub: Scrubber) -> None:
        self.payload = payload
        self.raw_request_id = raw_request_id
        self.scrub = scrub

    @cached_property
    def request_id(self) -> str | None:
        """The gateway's id of the call. Scrubbed when it is asked for: a request is long, and most ids nobody reads."""
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
    """Return what the gateway answered, in JSON, simplified JSON or XML.

    :param status: HTTP status.
    :param content_type: HTTP header, for the message about an answer that is none.
    :param body: the decoded body.
    :param scrub: takes the request's values out of texts.
    :param date: HTTP header; tells how far this machine's clock is off, where the gateway complains of it.
    :param now: this machine's time (aware), to be compared with ``date``.
    :raises GatewayError: the gateway said no.
    :raises AnswerUnreadableError: it is not an answer of the gateway.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        document = parse_xml(body) if body[:64].lstrip().startswith(b"<") else _parse_json(body)
    except (ValueError, RecursionError):
        # from None: the original repeats the body.
        raise _unreadable(status, content_type, body) from None
    error = document.get("error_response") if isinstance(document, dict) else None
    if isinstance(error, dict):
        raise gateway_error(
            code=plain_text(error.get("code")),
            sub_code=plain_text(error.get("sub_code")),
            msg=plain_text(error.get("msg")),
            sub_msg=plain_text(error.get("sub_msg")),
            request_id=plain_text(error.get("request_id")),
            scrub=scrub,
            clock_skew=_clock_skew(date, now),
        )
    payload = _payload(document)
    if status != 200 or payload is None or "error_response" in document:
        raise _unreadable(status, content_type, body)
    return Answer(payload, plain_text(payload.get("request_id") or document.get("request_id")), scrub)


def _parse_json(body: bytes) -> Any:
    try:
        # In less than half of the other's time.
        return from_json(body, cache_strings="keys")
    except ValueError:
        # The platform writes control characters into its texts as they are, which only this one takes.
        return _DECODER.decode(body.decode())


def _payload(document: Any) -> Mapping[str, Any] | None:
    """Return what is below the root element, or None. Official parsers take the only value, whatever its name."""
    if not isinstance(document, dict):
        return None
    for name, value in document.items():
        if name.endswith("_response") and isinstance(value, dict):
            return value
    # Simplified answers have no root element. Of all else, only what looks like the platform's counts as such.
    candidates = [document, *document.values()] if len(document) == 1 else [document]
    return next(
        (each for each in candidates if isinstance(each, dict) and each.keys() & {"result", "request_id"}),
        None,
    )


def _clock_skew(date: str | None, now: datetime | None) -> float | None:
    try:
        there = parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    return None if now is None or there.tzinfo is None else (now - there).total_seconds()


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


class _Whose(TypedDict, total=False):
    """Of an echo, what tells whose it is."""

    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True, hide_input_in_errors=True)  # type: ignore[misc]

    biz_id: str | None


class _Accepted(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(hide_input_in_errors=True)  # type: ignore[misc]

    task_id: int | None
    task_request: _Whose | None


_ACCEPTED = TypeAdapter(list[_Accepted])
_RESPONSES = TypeAdapter(list[InitiativeTaskResponse])


class SubmitReceipt:
    """What became of one submitted request.

    :param items: the accepted tasks as they came.
    :param accepted: of each, what tells whose it is.
    :param answer: what they were read from.
    """

    def __init__(self, items: list[Any], accepted: list[_Accepted], answer: Answer) -> None:
        self.items = items
        self.accepted = accepted
        self._answer = answer

    def __repr__(self) -> str:
        # Without the echo, which is people.
        return f"SubmitReceipt({len(self.accepted)} accepted, request_id={self.request_id!r})"

    def serialize(self) -> dict[str, Any]:
        """Return what Airflow stores of it where a task returns it: ids, and nobody's contact."""
        return {"task_ids": self.task_ids, "request_id": self.request_id}

    @property
    def request_id(self) -> str | None:
        """The gateway's id of the call."""
        return self._answer.request_id

    @cached_property
    def data(self) -> list[InitiativeTaskResponse]:
        """The accepted tasks, each with the gateway's whole echo. Read when it is asked for."""
        return _RESPONSES.validate_python(self.items)

    @property
    def task_ids(self) -> dict[str, int | None]:
        """The accepted recipients, by ``biz_id``: matched through the echo, never by position."""
        found = {}
        for task in self.accepted:
            biz_id = (task.get("task_request") or {}).get("biz_id")
            if biz_id is not None:
                found[biz_id] = task.get("task_id")
        return found

    def strangers(self, biz_ids: Collection[str]) -> int:
        """Return how many echoes belong to nobody of these: without a ``biz_id``, or with another."""
        return sum((task.get("task_request") or {}).get("biz_id") not in biz_ids for task in self.accepted)


def read_receipt(answer: Answer) -> SubmitReceipt:
    """Return which tasks of a submitted request were accepted.

    :raises RequestRefusedError: ``success`` is false: nothing of the request was accepted.
    :raises AnswerUnreadableError: the answer has no ``result`` that says so or so.
    """
    result = answer.payload.get("result")
    success = str(plain_text(result.get("success"))).lower() if isinstance(result, dict) else ""
    if not isinstance(result, dict) or success not in ("true", "false"):
        raise AnswerUnreadableError(
            f"the answer to {SUBMIT_METHOD} has no result with success true or false "
            f"(it holds: {answer.scrub(names_in(answer.payload))})",
            request_id=answer.request_id,
            hint=LOOK_UP,
        )
    if success == "false":
        raise RequestRefusedError(
            "the platform refused the request (success=false)",
            code=shown_code(plain_text(result.get("code")), answer.scrub),
            msg=answer.scrub(plain_text(result.get("message"))),
            request_id=answer.request_id,
            hint="Check the plan_id, the plan's state and the fields that the message names.",
        )
    items = as_list(result.get("data"))
    try:
        accepted = _ACCEPTED.validate_python(items)
    except ValidationError:
        raise AnswerUnreadableError(
            f"the answer to {SUBMIT_METHOD} says success, but its data cannot be read",
            request_id=answer.request_id,
            hint=LOOK_UP,
        ) from None
    return SubmitReceipt(items, accepted, answer)
