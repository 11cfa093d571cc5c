"""Answers on the wire: JSON, simplified JSON or XML, and the platform's error texts.

Source: ``doc.alidayu.com/docs/doc.htm?treeId=49&articleId=101617&docType=1`` (envelope),
``developer.alibaba.com/docs/doc.htm?articleId=102707`` (error codes), API page (XML example).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from xml.sax.saxutils import escape

MESSAGES = {
    7: "App Call Limited",
    9: "Http Action Not Allowed",
    10: "Service Currently Unavailable",
    11: "Insufficient isv permissions",
    12: "Insufficient User Permissions",
    13: "Insufficient Partner Permissions",
    15: "Remote service error",
    21: "Missing Method",
    22: "Invalid Method",
    23: "Invalid Format",
    24: "Missing Signature",
    25: "Invalid Signature",
    26: "Missing Session",
    27: "Invalid Session",
    28: "Missing App Key",
    29: "Invalid App Key",
    30: "Missing Timestamp",
    31: "Invalid Timestamp",
    32: "Missing Version",
    33: "Invalid Version",
    40: "Missing required arguments",
    41: "Invalid arguments",
    47: "Invalid encoding",
    50: "Remote service error",
}
"""Error code → ``msg``."""

ResponseFormat = Literal["json", "xml"]
JSON_TYPE = "text/javascript;charset=UTF-8"
XML_TYPE = "text/xml;charset=UTF-8"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Refused(Exception):
    """A check refused the request.

    :param code: the platform's code; an int, or a word.
    :param msg: default: the platform's text for the code.
    :param sub_code: None: not in the answer, as the platform does for codes 21 to 47.
    :param sub_msg: None: not in the answer.
    """

    def __init__(
        self, code: int | str, msg: str = "", sub_code: str | None = None, sub_msg: str | None = None
    ) -> None:
        super().__init__(code, msg, sub_code)
        self.code = code
        self.msg = msg or MESSAGES.get(code if isinstance(code, int) else -1, "Error")
        self.sub_code = sub_code
        self.sub_msg = sub_msg


@dataclass(frozen=True)
class Items:
    """A list on the wire: an object around it in JSON, bare when simplified, repeated elements in XML."""

    name: str
    values: list[dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """An answer before it is rendered."""

    root: str
    """Name of the root element; the simplified form has none, except for an error."""
    payload: dict[str, Any]
    code: str = ""
    """For the record: code of the error or of the result."""
    sub_code: str = ""
    error: bool = False


@dataclass(frozen=True)
class RawAnswer:
    """An answer as bytes, for all that the platform's envelope cannot express."""

    body: bytes
    content_type: str = "text/html;charset=UTF-8"
    status: int = 200
    cut: bool = False
    """Announce the whole body, send half of it and reset the connection."""


def new_request_id() -> str:
    """Return a new ``request_id``."""
    return "sb" + secrets.token_hex(6)


def root_of(method: str) -> str:
    """Return the name of an answer's root element: underscores for dots, without a leading ``taobao.``."""
    return method.removeprefix("taobao.").replace(".", "_") + "_response"


def error_answer(refused: Refused, request_id: str) -> Answer:
    """Return the ``error_response`` for a refusal."""
    payload: dict[str, Any] = {"code": refused.code, "msg": refused.msg}
    if refused.sub_code is not None:
        payload["sub_code"] = refused.sub_code
    if refused.sub_msg is not None:
        payload["sub_msg"] = refused.sub_msg
    payload["request_id"] = request_id
    return Answer("error_response", payload, str(refused.code), refused.sub_code or "", error=True)


def result_answer(method: str, result: Mapping[str, Any], request_id: str) -> Answer:
    """Return the success envelope around a ``result``, whose ``success`` may be false."""
    return Answer(root_of(method), {"result": dict(result), "request_id": request_id}, str(result["code"]))


def render(answer: Answer, response_format: ResponseFormat, simplify: bool = False) -> tuple[bytes, str]:
    """Return the body of an answer and its content type.

    :param answer: the answer.
    :param response_format: of the body.
    :param simplify: JSON only: without the root element and the inner level of lists.
    """
    if response_format == "xml":
        text = f'<?xml version="1.0" encoding="utf-8" ?>{_xml(answer.root, answer.payload)}'
        return text.encode(), XML_TYPE
    body = _plain(answer.payload, simplify)
    if answer.error or not simplify:
        body = {answer.root: body}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), JSON_TYPE


def java_date(moment: datetime) -> str:
    """Return a (Chinese) time as Java's ``Date.toString()``, the form of the API page's example answer."""
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day} {month} {moment:%d %H:%M:%S} CST {moment.year:04d}"


def _plain(value: Any, simplify: bool) -> Any:
    if isinstance(value, Items):
        if simplify:
            return value.values
        return {value.name: value.values} if value.values else {}
    if isinstance(value, dict):
        # The simplified form omits an empty list; the full form has `{}`.
        return {
            name: _plain(item, simplify)
            for name, item in value.items()
            if not (simplify and isinstance(item, Items) and not item.values)
        }
    return value


def _xml(name: str, value: Any) -> str:
    if isinstance(value, Items):
        inner = "".join(_xml(value.name, item) for item in value.values)
    elif isinstance(value, dict):
        inner = "".join(_xml(key, item) for key, item in value.items())
    elif isinstance(value, bool):
        inner = "true" if value else "false"
    else:
        inner = escape(_NOT_XML.sub("", str(value)))
    return f"<{name}>{inner}</{name}>"
