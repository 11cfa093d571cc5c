"""Build a signed request, read an answer. Pure, shared by both clients.

Source: Taobao Open Platform, "API call method",
doc.alidayu.com/docs/doc.htm?treeId=49&articleId=101617&docType=1
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from pydantic import TypeAdapter, ValidationError

from airflow_provider_lingyang.gateway.error_codes import gateway_error
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    LingyangConfigError,
    LingyangError,
    RequestInvalidError,
    RequestRefusedError,
)
from airflow_provider_lingyang.gateway.models import CHINA, DATE_FORMAT, SUBMIT_METHOD, InitiativeTaskResponse
from airflow_provider_lingyang.gateway.result_query import as_list
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.gateway.signing import SIGN_METHODS, sign

HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded;charset=utf-8",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",
}
MAX_ANSWER_BYTES = 64 * 1024 * 1024
_RESPONSES = TypeAdapter(list[InitiativeTaskResponse])


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What a client needs to know.

    :param url: the full gateway URL; https, http only to loopback.
    :param app_key: the App key.
    :param app_secret: the App secret.
    :param session_token: the user session, where the API needs one.
    :param sign_method: ``hmac-sha256``, ``hmac`` or ``md5``.
    :param timeout: seconds: for the connection to be made, and again for the whole answer to arrive.
    :param max_attempts: how often one request is sent at most; a write only again when it was not executed.
    :raises LingyangConfigError: for a value that cannot be right.
    """

    url: str
    app_key: str
    app_secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    sign_method: str = SIGN_METHODS[0]
    timeout: float = 30.0
    max_attempts: int = 3

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.app_key:
            raise LingyangConfigError("the App key is missing")
        if not self.app_secret:
            raise LingyangConfigError("the App secret is missing")
        if self.sign_method not in SIGN_METHODS:
            raise LingyangConfigError(f"unknown sign_method {self.sign_method!r}: use one of {', '.join(SIGN_METHODS)}")
        if not 0 < self.timeout <= 3600:
            raise LingyangConfigError("timeout must be more than 0 and at most 3600 seconds")
        if self.max_attempts < 1:
            raise LingyangConfigError("max_attempts must be at least 1")

    @property
    def credentials(self) -> dict[str, str]:
        """What no text may hold: value → name."""
        named = {self.app_secret: "app_secret", self.session_token or "": "session_token"}
        return {value: name for value, name in named.items() if value}

    @property
    def plain_http(self) -> bool:
        """Whether the gateway is a process on this machine, spoken to without TLS."""
        return urlsplit(self.url).scheme == "http"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise LingyangConfigError("the gateway URL cannot be read") from None
    if parts.scheme not in ("https", "http") or not host:
        raise LingyangConfigError("the gateway URL must be a full one, such as https://eco.taobao.com/router/rest")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise LingyangConfigError("the gateway URL must hold no user, password, query or fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise LingyangConfigError("plain http is allowed to this machine only (a sandbox): use https")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
        "timestamp": now.astimezone(CHINA).strftime(DATE_FORMAT),
        "format": "json",
        "v": "2.0",
        "sign_method": settings.sign_method,
    }
    if clash := form.keys() & params.keys() | {"sign"} & params.keys():
        raise LingyangConfigError(f"{', '.join(sorted(clash))}: set by the client, not by the caller")
    form = {name: value for name, value in (form | dict(params)).items() if name and value}
    try:
        form["sign"] = sign(form, settings.app_secret, settings.sign_method)
        return urlencode(form).encode("ascii")
    except UnicodeEncodeError:
        # from None: its own text repeats what could not be encoded.
        raise RequestInvalidError(f"a parameter of {method} holds text that is not Unicode") from None


@dataclass(frozen=True, slots=True)
class Answer:
    """A success of the envelope: what is below the root element, and the call's id."""

    payload: Mapping[str, Any]
    request_id: str | None


def read_answer(*, status: int, content_type: str, body: bytes, scrub: Scrubber) -> Answer:
    """Return what the gateway answered.

    :param status: HTTP status.
    :param content_type: HTTP header, for the message about an answer that is none.
    :param body: the decoded body.
    :param scrub: takes the request's values out of texts.
    :raises GatewayError: the gateway said no.
    :raises AnswerUnreadableError: it is not an answer of the gateway.
    """
    came = f"HTTP {status}, {_kind(content_type, body)}, {len(body)} bytes"
    try:
        document = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        raise _unreadable(came) from None
    if not isinstance(document, dict):
        raise _unreadable(came)
    if "error_response" in document:
        raise _read_error(document["error_response"], scrub, came)
    if status != 200:
        raise _unreadable(came)
    # Official parsers ignore the root's name; simplified answers have none.
    payload = next((value for name, value in document.items() if name.endswith("_response")), document)
    if not isinstance(payload, dict):
        raise _unreadable(came)
    return Answer(payload, _text(payload.get("request_id") or document.get("request_id")))


def _read_error(error: Any, scrub: Scrubber, came: str) -> LingyangError:
    if not isinstance(error, dict):
        return _unreadable(came)
    return gateway_error(
        code=_text(error.get("code")),
        sub_code=_text(error.get("sub_code")),
        msg=_text(error.get("msg")),
        sub_msg=_text(error.get("sub_msg")),
        request_id=_text(error.get("request_id")),
        scrub=scrub,
    )


def _unreadable(came: str) -> AnswerUnreadableError:
    return AnswerUnreadableError(
        f"the answer is not one of the gateway ({came})",
        hint="Check that the connection's host is the gateway and that no proxy or login page stands before it.",
    )


def _kind(content_type: str, body: bytes) -> str:
    start = body[:200].lstrip().lower()
    if not start:
        return "empty"
    if start.startswith((b"<!doctype html", b"<html")) or "html" in content_type:
        return "HTML"
    if start.startswith(b"<"):
        return "XML"
    if start.startswith((b"{", b"[")):
        return "JSON that is damaged or of another shape"
    return "neither JSON nor XML"


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, (dict, list)):
        return None
    return str(value)


@dataclass(frozen=True, slots=True)
class SubmitReceipt:
    """What became of one submitted request.

    :param data: the accepted tasks, each with the gateway's echo.
    :param request_id: the gateway's id of the call.
    """

    data: list[InitiativeTaskResponse] = field(repr=False)
    request_id: str | None = None

    @property
    def task_ids(self) -> dict[str, int | None]:
        """The accepted recipients, by ``biz_id``: matched through the echo, never by position."""
        return {
            task.task_request.biz_id: task.task_id
            for task in self.data
            if task.task_request is not None and task.task_request.biz_id is not None
        }


def read_receipt(answer: Answer, scrub: Scrubber) -> SubmitReceipt:
    """Return which tasks of a submitted request were accepted.

    :param scrub: takes the request's values out of texts.

    :raises RequestRefusedError: ``success`` is false: nothing of the request was accepted.
    :raises AnswerUnreadableError: the answer has no ``result`` that says so or so.
    """
    result = answer.payload.get("result")
    success = result.get("success") if isinstance(result, dict) else None
    if not isinstance(result, dict) or str(success).lower() not in ("true", "false"):
        keys = scrub(", ".join(sorted(answer.payload)))
        raise AnswerUnreadableError(
            f"the answer to {SUBMIT_METHOD} has no result with success true or false (it holds: {keys})",
            request_id=answer.request_id,
        )
    if str(success).lower() == "false":
        raise RequestRefusedError(
            "the platform refused the request (success=false)",
            code=scrub(_text(result.get("code"))),
            msg=scrub(_text(result.get("message"))),
            request_id=answer.request_id,
            hint="Check the plan_id, the plan's state and the fields that the message names.",
        )
    try:
        data = _RESPONSES.validate_python(as_list(result.get("data")))
    except ValidationError:
        raise AnswerUnreadableError(
            f"the answer to {SUBMIT_METHOD} says success, but its data cannot be read",
            request_id=answer.request_id,
        ) from None
    return SubmitReceipt(data, answer.request_id)
