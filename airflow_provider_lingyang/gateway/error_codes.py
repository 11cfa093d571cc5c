"""The platform's table of errors, as data: which code means what, may be repeated, and what to do about it.

Sources: developer.alibaba.com/docs/doc.htm?articleId=102707 and open.alitrip.com articleId=108426.
Anything the tables do not know is treated as if the work may have been done.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from airflow_provider_lingyang.gateway.errors import (
    CallRefusedError,
    GatewayError,
    Replay,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
)

_BAN = re.compile(r"ban will last for (\d{1,7}) more second", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one row of the table says."""

    error: type[GatewayError]
    what: str
    hint: str
    replay: Replay | None = None
    """Set where it differs from the class's own."""
    wait: float | None = None
    """Seconds to wait where the answer does not say."""


_THROTTLED = Rule(ThrottledError, "the gateway throttles", "Not executed; it may be sent again after the ban.")
_QUOTA = Rule(
    ThrottledError,
    "the app's quota of calls for today is used up",
    "Not executed. The quota starts anew at 24:00 Beijing time; the app's page in the Open Platform console raises it.",
)
_BACKEND = Rule(
    ServiceError,
    "the platform's backend failed",
    "It may have done the work: look the biz_ids up before sending them again.",
)
_BACKEND_BROKEN = Rule(
    ServiceError,
    "the platform's backend failed in a way that a repetition does not cure",
    "Give the request_id to the platform's support; look the biz_ids up before sending them again.",
    Replay.NEVER,
)
_REFUSED = Rule(RequestRefusedError, "the platform refused the request", "Correct what sub_code and sub_msg name.")
_BUSY = Rule(
    ThrottledError,
    "the platform limits this kind of request",
    "Not executed; come back in a few minutes.",
    wait=120.0,
)


def _call(what: str, hint: str) -> Rule:
    return Rule(CallRefusedError, what, hint)


_ARGUMENTS = _call(
    "the gateway misses or refuses an argument",
    "Its name stands after the colon; check the plan, use_book_info and the result_query.",
)

CODES: dict[str, Rule] = {
    **dict.fromkeys(("4", "5", "6", "7", "8"), _THROTTLED),
    "9": _call("the gateway refused the HTTP action", "Check the connection's host: it must be the full gateway URL."),
    "10": Rule(ServiceError, "the gateway is unavailable at the moment", _BACKEND.hint),
    "11": _call(
        "the app may not call this API",
        "Apply for the API's permission package, and check the IP allow-list, in the Open Platform console.",
    ),
    "12": _call("the user's authorisation does not cover this API", "Authorise again and renew session_token."),
    "13": _call("the partner may not call this API", "Ask the platform for the permission."),
    "21": _call("the method name is missing", "Check the result_query's method."),
    "22": _call("the gateway does not know the method", "Check the result_query's method and the connection's host."),
    "23": _call("the gateway refused the format", "Something between here and the gateway changes the request."),
    "24": _call("the signature is missing", "Something between here and the gateway changes the request."),
    "25": _call(
        "the signature is wrong",
        "Check the App secret (connection password) and sign_method, and that no proxy changes the request.",
    ),
    "26": _call("the session is missing", "Put the session into the connection's session_token."),
    "27": _call("the session is invalid or expired", "Renew the session in the connection's session_token."),
    "28": _call("the app key is missing", "Put the App key into the connection's login."),
    "29": _call(
        "the gateway does not know the app key",
        "Check the connection's login and that host is the right gateway.",
    ),
    "30": _call("the timestamp is missing", "Something between here and the gateway changes the request."),
    "31": _call(
        "the timestamp is more than 10 minutes off",
        "Set this machine's clock (NTP); its time zone does not matter.",
    ),
    **dict.fromkeys(
        ("32", "33", "34"),
        _call("the gateway refused the protocol version", "Check that host is a v2.0 gateway."),
    ),
    **dict.fromkeys(("40", "41", "42", "43", "44"), _ARGUMENTS),
    "47": _call("the gateway could not read the request's encoding", "Something on the way changes the encoding."),
    "53": _call("the gateway refused the call", "Check the app's state in the Open Platform console."),
}
"""Codes that decide by themselves. All others leave the decision to the sub_code."""

SUB_CODES: tuple[tuple[str, Rule], ...] = (
    ("accesscontrol.limited-by-app-access-count", _QUOTA),
    ("accesscontrol.limited-by-*", _THROTTLED),
    ("isv.BUSINESS_LIMIT_CONTROL", _BUSY),
    ("isv.trade-service-rejection", _BUSY),
    ("isv.*", _REFUSED),
    ("isp.null-pointer-exception", _BACKEND_BROKEN),
    ("isp.top-parse-error", _BACKEND_BROKEN),
    ("isp.top-mapping-parse-error", _BACKEND_BROKEN),
    ("isp.invalid-parameters", _BACKEND_BROKEN),
    ("isp.*", _BACKEND),
)
"""Patterns of sub_codes, the first that matches decides."""

_UNKNOWN = Rule(ServiceError, "the gateway answered with an error that is not in the platform's tables", _BACKEND.hint)


def rule_for(code: str | None, sub_code: str | None) -> Rule:
    """Return the row of the table for a gateway's code and sub_code."""
    by_sub_code = next((rule for pattern, rule in SUB_CODES if fnmatchcase(sub_code or "", pattern)), None)
    if by_sub_code and by_sub_code.error is ThrottledError:
        return by_sub_code
    return CODES.get(code or "") or by_sub_code or _UNKNOWN


def ban_seconds(text: str | None) -> float | None:
    """Return how long a throttle lasts, in seconds, from the text that announces it."""
    found = _BAN.search(text or "")
    return float(found[1]) if found else None


def gateway_error(
    *,
    code: str | None,
    sub_code: str | None,
    msg: str | None,
    sub_msg: str | None,
    request_id: str | None,
    scrub: Callable[[str | None], str | None],
) -> GatewayError:
    """Return the typed error for what an ``error_response`` says.

    :param scrub: takes the request's values out of the texts that the error shows. The decision is made
        on the raw ones, so that a customer called "isp" changes nothing.
    """
    rule = rule_for(code, sub_code)
    retry_after = None
    if rule.error is ThrottledError:
        retry_after = ban_seconds(sub_msg) or ban_seconds(msg) or rule.wait
    return rule.error(
        rule.what,
        replay=rule.replay,
        code=scrub(code),
        sub_code=scrub(sub_code),
        msg=scrub(msg),
        sub_msg=scrub(sub_msg),
        request_id=scrub(request_id),
        retry_after=retry_after,
        hint=rule.hint,
    )
