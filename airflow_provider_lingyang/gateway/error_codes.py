"""The platform's table of errors, as data: what each code means, whether to retry, and how to correct it.

A code after which the same request may be retried is a :class:`ThrottledError`.

Each row answers one question: could the work have been done? It says "no" only where a page of the platform documents
the refusal: developer.alibaba.com/docs/doc.htm?articleId=102707 (codes and sub_codes), open.alitrip.com
articleId=108426 (``isv.*`` and ``isp.*``), jaq-doc.alibaba.com articleId=119481 (the newer gateway). All else, and what
contradicts itself, is treated as if the work may have been done.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from airflow_provider_lingyang.gateway.errors import (
    LOOK_UP,
    CallRefusedError,
    GatewayError,
    ReceiverLimitedError,
    Replay,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table."""

    error: type[GatewayError]
    what: str
    hint: str
    replay: Replay | None = None
    """Set where it differs from the class's own."""
    wait: float | None = None
    """Seconds to wait where the answer does not say."""


refused_call = partial(Rule, CallRefusedError)
"""A row for a refusal of the call itself."""
refused_request = partial(Rule, RequestRefusedError)
"""A row for a refusal of the request's content."""
THROTTLED = Rule(
    ThrottledError,
    "the gateway throttles",
    "Not executed; it may be sent again after the ban. A lower max_requests_per_second on the connection avoids it.",
)
QUOTA = Rule(
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
_LIMITED = Rule(
    ReceiverLimitedError,
    "the platform limits how often one receiver is contacted",
    "It does not say whose limit it is. Leave out recipients that were contacted often today, or send them later.",
    wait=120.0,
)
BACKEND = Rule(ServiceError, "the platform's backend failed", LOOK_UP)
FAULT = Rule(ServiceError, "the platform failed while it worked on the request", LOOK_UP)
_ALREADY_EXISTS = Rule(
    ServiceError,
    "the platform has the request, or one of its recipients, already",
    "An earlier attempt may have been executed: look the biz_ids up before sending them again.",
)
CONTRADICTION = Rule(
    ServiceError, "the gateway answered with a code and a sub_code that contradict each other", LOOK_UP
)
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
_ARGUMENTS = refused_call(
    "the gateway misses or refuses an argument",
    "Its name stands after the colon of msg: correct it in the operator's columns, task_defaults or use_book_info, "
    "or in the result_query.",
)
_INVALID_SESSION = refused_call(
    "the session is invalid or expired",
    "Let the user authorise the app again, and put the new session into the connection's session_token.",
)
_CHANGED = (
    "Something between here and the gateway changes the request: check the proxy and the connection's host."
)

CODES: dict[str, Rule] = {
    **dict.fromkeys(("4", "5", "6", "7", "8"), THROTTLED),
    "9": refused_call(
        "the gateway refused the HTTP action",
        "Check the connection's host: it must be the full gateway URL, such as https://eco.taobao.com/router/rest.",
    ),
    "10": Rule(ServiceError, "the gateway is unavailable at the moment", LOOK_UP),
    "11": refused_call(
        "the app may not call this API",
        "In the Open Platform console, apply for the API's permission package and check the app's IP allow-list.",
    ),
    "12": refused_call(
        "the user's authorisation does not cover this API",
        "Let the user authorise the app again, and put the new session into the connection's session_token.",
    ),
    "13": refused_call(
        "the partner may not call this API",
        "Ask the platform's support to give the partner of this App key the permission.",
    ),
    "21": refused_call(
        "the method name is missing", "Check the result_query's method; otherwise: " + _CHANGED
    ),
    "22": refused_call(
        "the gateway does not know the method",
        "Check the result_query's method, and that the connection's host is the gateway which has the API.",
    ),
    "23": refused_call("the gateway refused the format", _CHANGED),
    "24": refused_call("the signature is missing", _CHANGED),
    "25": refused_call(
        "the signature is wrong",
        "Check the App secret (connection's password) against the app's page in the Open Platform console, the "
        "connection's sign_method, and that no proxy changes the request.",
    ),
    "26": refused_call(
        "the session is missing", "Put the user's session into the connection's session_token."
    ),
    "27": _INVALID_SESSION,
    "28": refused_call("the app key is missing", "Put the App key into the connection's login."),
    "29": refused_call(
        "the gateway does not know the app key",
        "Check the App key (connection's login) against the app's page in the Open Platform console, and that the "
        "connection's host is the right gateway (production or sandbox).",
    ),
    "30": refused_call("the timestamp is missing", _CHANGED),
    "31": refused_call(
        "the timestamp is more than 10 minutes off",
        "Set the clock of the machine the task runs on (NTP); its time zone does not matter.",
    ),
    **dict.fromkeys(
        ("32", "33", "34"),
        refused_call(
            "the gateway refused the protocol version",
            "Check that the connection's host is a gateway of v2.0.",
        ),
    ),
    **dict.fromkeys(("40", "41", "42", "43"), _ARGUMENTS),
    # An "isp error" in the gateway's public source of 2008 to 2010.
    "44": BACKEND,
    "47": refused_call("the gateway could not read the request's encoding", _CHANGED),
    "53": refused_call(
        "the app's security level is too low for this call",
        "Raise the app's security level on its page in the Open Platform console, or let the user authorise the app "
        "again and put the new session into the connection's session_token.",
    ),
}
"""Codes that decide by themselves. All others leave the decision to the sub_code."""

FINER: dict[str, Rule] = {
    "accesscontrol.limited-by-app-access-count": QUOTA,
    "accesscontrol.limited-by-*": THROTTLED,
    "isv.access-limited-by-*": THROTTLED,
    # Of one number and period: alibabacloud.com/help/doc-detail/73694 and 116206.
    "isv.BUSINESS_LIMIT_*": _LIMITED,
    "isv.business-limit-*": _LIMITED,
    "BUSINESS_LIMIT_*": _LIMITED,
    "isv.trade-service-rejection*": _BUSY,
    "invalid-sessionkey*": _INVALID_SESSION,
    "isv.invalid-sessionkey*": _INVALID_SESSION,
    "isv.permission-ip-whitelist-limit*": refused_call(
        "this machine's address is not on the app's IP allow-list",
        "Add the worker's outgoing IP address to the allow-list on the app's page in the Open Platform console.",
    ),
    "isv.permission-*": refused_call(
        "the app lacks the permission package of this API",
        "Apply for the API's permission package on the app's page in the Open Platform console.",
    ),
}
"""Patterns of sub_codes that decide whatever the code is, unless code or sub_code speak of the backend."""

DOUBTFUL: dict[str, Rule] = {
    "isp.null-pointer-exception*": _BACKEND_BROKEN,
    "isp.top-parse-error*": _BACKEND_BROKEN,
    "isp.top-mapping-parse-error*": _BACKEND_BROKEN,
    "isp.invalid-parameters*": _BACKEND_BROKEN,
    "isp.*-service-unavailable*": _BACKEND_AWAY,
    "isp.remote-connection-error*": _BACKEND_AWAY,
    "isp.top-remote-connection-error*": _BACKEND_AWAY,
    "isp.call-limited*": _BACKEND_AWAY,
    "isp.system-busy*": _BACKEND_AWAY,
    "isp.*": BACKEND,
    "ism.*": BACKEND,
    "mz.*": BACKEND,
    "isv.system*": FAULT,
    "isv.error*": FAULT,
    "isv.service-error*": FAULT,
    "isv.remote-*": FAULT,
    "isv.*connection-*": FAULT,
    "isv.*gateway-error*": FAULT,
    "isv.*internal*error*": FAULT,
    "isv.*server*error*": FAULT,
    "isv.*unknow*": FAULT,
    "isv.*exception*": FAULT,
    "isv.*time*out*": FAULT,
    "isv.*service-unavailable*": FAULT,
    "isv.*duplicate*": _ALREADY_EXISTS,
    "isv.*repeat*": _ALREADY_EXISTS,
    "isv.*already*": _ALREADY_EXISTS,
}
"""Patterns of sub_codes after which the work may have been done: under any code, in any spelling of case and marks."""

SUB_CODES: dict[str, Rule] = {
    "isv.missing-parameter*": refused_request(
        "the platform misses a field of the request",
        "The field stands after the colon of sub_code: fill it through the operator's columns or task_defaults.",
    ),
    "isv.invalid-parameter*": refused_request(
        "the platform refused a field of the request",
        "Correct the field that sub_code or sub_msg names, in the audience or in task_defaults.",
    ),
    "isv.parameters-mismatch*": refused_request(
        "fields of the request contradict each other",
        "Correct the fields that sub_msg names; check that plan_id and use_book_info belong together.",
    ),
    "isv.invalid-permission*": refused_request(
        "the account may not do this",
        "Check in the Lingyang console that the plan and the account book belong to this app's account.",
    ),
    "isv.*-not-exist*": refused_request(
        "the request names something that the platform does not have",
        "Check plan_id, use_book_info and the ids in the audience against the Lingyang console.",
    ),
    "isv.*-service-error*": refused_request(
        "a business rule of the platform refused the request",
        "sub_msg says which: check the plan's state and the balance of the account book in the Lingyang console.",
    ),
    "isv.*": refused_request("the platform refused the request", "Correct what sub_code and sub_msg name."),
}
"""Patterns of sub_codes, the first that matches decides where the code does not."""

UNKNOWN = Rule(
    ServiceError, "the gateway answered with an error that is not in the platform's tables", LOOK_UP
)
