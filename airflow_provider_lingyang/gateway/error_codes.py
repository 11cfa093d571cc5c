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
_SHORT_NUMBER = re.compile(r"-?[0-9]{1,4}", re.ASCII)


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


LOOK_UP = "It may have been executed: look the biz_ids up before sending them again."


def _call(what: str, hint: str) -> Rule:
    return Rule(CallRefusedError, what, hint)


def _request(what: str, hint: str) -> Rule:
    return Rule(RequestRefusedError, what, hint)


_THROTTLED = Rule(
    ThrottledError,
    "the gateway throttles",
    "Not executed; it may be sent again after the ban. A lower max_requests_per_second on the connection avoids it.",
)
_QUOTA = Rule(
    ThrottledError,
    "the app's quota of calls for today is used up",
    "Not executed. The quota starts anew at 24:00 Beijing time; the app's page in the Open Platform console raises it.",
    wait=3600.0,
)
_BUSY = Rule(
    ThrottledError,
    "the platform limits this kind of request",
    "Not executed; come back in a few minutes, with a smaller batch_size or a lower max_requests_per_second.",
    wait=120.0,
)
_BACKEND = Rule(ServiceError, "the platform's backend failed", LOOK_UP)
_BACKEND_AWAY = Rule(
    ServiceError,
    "the platform's backend was busy or could not be reached",
    f"{LOOK_UP} A lower max_requests_per_second on the connection may help.",
)
_BACKEND_BROKEN = Rule(
    ServiceError,
    "the platform's backend failed in a way that a repetition does not cure",
    "Give the request_id to the platform's support; look the biz_ids up before sending them again.",
    Replay.NEVER,
)
_ARGUMENTS = _call(
    "the gateway misses or refuses an argument",
    "Its name stands after the colon of msg: correct it in the operator's columns, task_defaults or use_book_info, "
    "or in the result_query.",
)
_CHANGED = (
    "Something between here and the gateway changes the request: check the proxy and the connection's host."
)

CODES: dict[str, Rule] = {
    **dict.fromkeys(("4", "5", "6", "7", "8"), _THROTTLED),
    "9": _call(
        "the gateway refused the HTTP action",
        "Check the connection's host: it must be the full gateway URL, such as https://eco.taobao.com/router/rest.",
    ),
    "10": Rule(ServiceError, "the gateway is unavailable at the moment", LOOK_UP),
    "11": _call(
        "the app may not call this API",
        "In the Open Platform console, apply for the API's permission package and check the app's IP allow-list.",
    ),
    "12": _call(
        "the user's authorisation does not cover this API",
        "Let the user authorise the app again, and put the new session into the connection's session_token.",
    ),
    "13": _call(
        "the partner may not call this API",
        "Ask the platform's support to give the partner of this App key the permission.",
    ),
    "21": _call("the method name is missing", "Check the result_query's method; otherwise: " + _CHANGED),
    "22": _call(
        "the gateway does not know the method",
        "Check the result_query's method, and that the connection's host is the gateway which has the API.",
    ),
    "23": _call("the gateway refused the format", _CHANGED),
    "24": _call("the signature is missing", _CHANGED),
    "25": _call(
        "the signature is wrong",
        "Check the App secret (connection's password) against the app's page in the Open Platform console, the "
        "connection's sign_method, and that no proxy changes the request.",
    ),
    "26": _call("the session is missing", "Put the user's session into the connection's session_token."),
    "27": _call(
        "the session is invalid or expired",
        "Let the user authorise the app again, and put the new session into the connection's session_token.",
    ),
    "28": _call("the app key is missing", "Put the App key into the connection's login."),
    "29": _call(
        "the gateway does not know the app key",
        "Check the App key (connection's login) against the app's page in the Open Platform console, and that the "
        "connection's host is the right gateway (production or sandbox).",
    ),
    "30": _call("the timestamp is missing", _CHANGED),
    "31": _call(
        "the timestamp is more than 10 minutes off",
        "Set the clock of the machine the task runs on (NTP); its time zone does not matter.",
    ),
    **dict.fromkeys(
        ("32", "33", "34"),
        _call(
            "the gateway refused the protocol version",
            "Check that the connection's host is a gateway of v2.0.",
        ),
    ),
    **dict.fromkeys(("40", "41", "42", "43", "44"), _ARGUMENTS),
    "47": _call("the gateway could not read the request's encoding", _CHANGED),
    "53": _call(
        "the gateway refused the call", "Check the app's state on its page in the Open Platform console."
    ),
}
"""Codes that decide by themselves. All others leave the decision to the sub_code."""

FINER: tuple[tuple[str, Rule], ...] = (
    ("accesscontrol.limited-by-app-access-count", _QUOTA),
    ("accesscontrol.limited-by-*", _THROTTLED),
    ("isv.BUSINESS_LIMIT_CONTROL*", _BUSY),
    ("isv.trade-service-rejection*", _BUSY),
    (
        "isv.permission-ip-whitelist-limit*",
        _call(
            "this machine's address is not on the app's IP allow-list",
            "Add the worker's outgoing IP address to the allow-list on the app's page in the Open Platform console.",
        ),
    ),
    (
        "isv.permission-*",
        _call(
            "the app lacks the permission package of this API",
            "Apply for the API's permission package on the app's page in the Open Platform console.",
        ),
    ),
)
"""Patterns of sub_codes that decide whatever the code is."""

SUB_CODES: tuple[tuple[str, Rule], ...] = (
    (
        "isv.missing-parameter*",
        _request(
            "the platform misses a field of the request",
            "The field stands after the colon of sub_code: fill it through the operator's columns or task_defaults.",
        ),
    ),
    (
        "isv.invalid-parameter*",
        _request(
            "the platform refused a field of the request",
            "Correct the field that sub_code or sub_msg names, in the audience or in task_defaults.",
        ),
    ),
    (
        "isv.parameters-mismatch*",
        _request(
            "fields of the request contradict each other",
            "Correct the fields that sub_msg names; check that plan_id and use_book_info belong together.",
        ),
    ),
    (
        "isv.invalid-permission*",
        _request(
            "the account may not do this",
            "Check in the Lingyang console that the plan and the account book belong to this app's account.",
        ),
    ),
    (
        "isv.*-not-exist*",
        _request(
            "the request names something that the platform does not have",
            "Check plan_id, use_book_info and the ids in the audience against the Lingyang console.",
        ),
    ),
    (
        "isv.*-service-error*",
        _request(
            "a business rule of the platform refused the request",
            "sub_msg says which: check the plan's state and the balance of the account book in the Lingyang console.",
        ),
    ),
    (
        "isv.*",
        _request("the platform refused the request", "Correct what sub_code and sub_msg name."),
    ),
    ("isp.null-pointer-exception*", _BACKEND_BROKEN),
    ("isp.top-parse-error*", _BACKEND_BROKEN),
    ("isp.top-mapping-parse-error*", _BACKEND_BROKEN),
    ("isp.invalid-parameters*", _BACKEND_BROKEN),
    ("isp.*-service-unavailable*", _BACKEND_AWAY),
    ("isp.remote-connection-error*", _BACKEND_AWAY),
    ("isp.top-remote-connection-error*", _BACKEND_AWAY),
    ("isp.call-limited*", _BACKEND_AWAY),
    ("isp.system-busy*", _BACKEND_AWAY),
    ("isp.*", _BACKEND),
)
"""Patterns of sub_codes, the first that matches decides where the code does not."""

_UNKNOWN = Rule(
    ServiceError, "the gateway answered with an error that is not in the platform's tables", LOOK_UP
)


def rule_for(code: str | None, sub_code: str | None) -> Rule:
    """Return the row of the table for a gateway's code and sub_code."""
    finer = _first(FINER, sub_code)
    if finer or code in CODES:
        return finer or CODES[code or ""]
    return _first(SUB_CODES, sub_code) or (_BACKEND if code in ("15", "50") else _UNKNOWN)


def _first(table: tuple[tuple[str, Rule], ...], sub_code: str | None) -> Rule | None:
    return next((rule for pattern, rule in table if fnmatchcase(sub_code or "", pattern)), None)


def ban_seconds(text: str | None) -> float | None:
    """Return how long a throttle lasts, in seconds, from the text that announces it."""
    found = _BAN.search(text or "")
    return float(found[1]) if found else None


def shown_code(code: str | None, scrub: Callable[[str | None], str | None]) -> str | None:
    """Return a code as an error shows it: a short number is the platform's, even where a customer's age is the same."""
    return code if code and _SHORT_NUMBER.fullmatch(code) else scrub(code)


def gateway_error(
    *,
    code: str | None,
    sub_code: str | None,
    msg: str | None,
    sub_msg: str | None,
    request_id: str | None,
    scrub: Callable[[str | None], str | None],
    clock_skew: float | None = None,
) -> GatewayError:
    """Return the typed error for what an ``error_response`` says.

    :param scrub: takes the request's values out of the texts that the error shows. The decision is made
        on the raw ones, so that a customer called "isp" changes nothing.
    :param clock_skew: seconds that this machine's clock is ahead of the gateway's, where that was measured.
    """
    rule = rule_for(code, sub_code)
    retry_after = None
    if rule.error is ThrottledError:
        retry_after = ban_seconds(sub_msg) or ban_seconds(msg) or rule.wait
    hint = rule.hint
    if code == "31" and clock_skew is not None:
        side = "behind" if clock_skew < 0 else "ahead of"
        hint = f"This machine's clock is {abs(clock_skew):.0f} s {side} the Date header of the answer. {hint}"
    return rule.error(
        rule.what,
        replay=rule.replay,
        code=shown_code(code, scrub),
        sub_code=scrub(sub_code),
        msg=scrub(msg),
        sub_msg=scrub(sub_msg),
        request_id=scrub(request_id),
        retry_after=retry_after,
        hint=hint,
    )
