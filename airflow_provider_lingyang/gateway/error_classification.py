"""Which error a code, a sub_code or a text of the gateway means, by the table in ``error_codes.py``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from airflow_provider_lingyang.gateway.answer_values import SUCCESS_WORDS
from airflow_provider_lingyang.gateway.error_codes import (
    BACKEND,
    CODES,
    CONTRADICTION,
    DOUBTFUL,
    FINER,
    QUOTA,
    SUB_CODES,
    THROTTLED,
    UNKNOWN,
    Rule,
    refused_call,
    refused_request,
)
from airflow_provider_lingyang.gateway.errors import LOOK_UP, GatewayError, ServiceError, ThrottledError

_BAN = re.compile(r"ban will last for (\d{1,7}) more second", re.IGNORECASE)
_SHORT_BAN = 600.0
"""Seconds. A shorter ban for the app's count of calls is no quota of the day: it counts them by the second, too."""
_SHORT_NUMBER = re.compile(r"-?[0-9]{1,4}", re.ASCII)


def rule_for(code: str | None, sub_code: str | None) -> Rule:
    """Return the row of the table for a gateway's code and sub_code."""
    code, sub_code = (code or "").strip(), (sub_code or "").strip()
    if doubtful := _doubtful(sub_code):
        return doubtful
    finer = _first(FINER, sub_code)
    refused = CODES.get(code)
    if refused is not None and refused.error is ServiceError:
        return CONTRADICTION if finer else refused
    if refused is THROTTLED and sub_code and (finer is None or not issubclass(finer.error, ThrottledError)):
        # A throttle says so, or says nothing.
        return CONTRADICTION
    if refused is not None and finer is None and sub_code and not sub_code.startswith("isv."):
        # The platform names refusals isv.*; a word of another family may be a fault.
        return CONTRADICTION
    return finer or refused or _first(SUB_CODES, sub_code) or (BACKEND if code in ("15", "50") else UNKNOWN)


def _doubtful(sub_code: str) -> Rule | None:
    # The platform writes isv.SYSTEM_ERROR and isv.system-error; a dot ends the family, a colon begins the field.
    sub_code = sub_code.partition(":")[0]
    family, dot, name = re.sub(r"[\s_-]+", "-", sub_code.lower()).partition(".")
    if not dot and (found := re.match(r"(isp|ism|mz|isv)-(.*)", family)):
        family, name = found[1], found[2]
    spelled = f"{family.strip('-')}.{name}"
    if any(fnmatchcase(spelled, pattern) for pattern in _REFUSALS):
        return None
    if spelled == "isv.":
        return BACKEND
    return _first(DOUBTFUL, spelled)


_REFUSALS = ("isv.invalid-*", "isv.missing-*", "isv.permission-*", "isv.*-not-exist*")
"""Documented, whatever else their names hold."""


def is_fault_code(word: str) -> bool:
    """Whether a code says that the work may have been done, as an answer with ``success=false`` may hold it.

    :param word: a code or sub_code, also without its family (``SYSTEM_ERROR``, ``ServiceUnavailable``), or an HTTP
        status.
    """
    word = word.strip()
    return bool(_FAULT_CODE.search(_words(word)) or _doubtful(word) or _doubtful(f"isv.{_words(word)}"))


def is_fault_text(text: str) -> bool:
    """Whether a message says that the work may have been done: the system failed, or had the request already."""
    return _FAULT_TEXT.search(_words(text).casefold()) is not None or (
        " " not in text.strip() and is_fault_code(text)
    )


_FAULT_CODE = re.compile(
    r"(?:^|[^0-9])5[0-9][0-9]$|^(?:201|202|429)$"
    rf"|^(?:{'|'.join(sorted(SUCCESS_WORDS))}|true|processing|pending|running|accepted|partial\w*)$"
    r"|(?:^|[\W_])(?:sys|system|rpc|db|database|sql|network|net|io|remote|service|server|internal|unknown|unexpected"
    r"|backend|gateway|hsf|dubbo)[\W_]?(?:err|error|exception|fail|failed|failure|fault|busy)(?:[\W_]|$)",
    re.ASCII | re.IGNORECASE,
)
_FAULT_TEXT = re.compile(
    r"time[ds]?[ _-]?out|(?:internal|system|sys|server|service|unknown|unexpected)[ _-]?"
    "(?:error|exception|failure|fault|busy)"
    "|unavailable|null[ _-]?pointer|duplicate|(?:try|retry)(?: again)? later"
    "|already (?:exist|submitted|sent|processed|executed|received|in progress)"
    "|超时|(?:系统|服务|服务器|服务端|内部|后台|网络|未知|接口)[ ]?(?:内部)?(?:错误|异常|繁忙|故障|出错|不可用|开小差)"
    "|稍后|请勿重复|重复(?:提交|请求|操作|发送|任务|外呼|执行)|已存在|已提交|处理中|进行中|部分成功"
    "|(?<![不未没])成功|(?<!un)(?<!not )success|processing|in progress|pending"
)


def _first(table: Mapping[str, Rule], sub_code: str) -> Rule | None:
    return next((rule for pattern, rule in table.items() if fnmatchcase(sub_code, pattern)), None)


def ban_seconds(text: str | None) -> float | None:
    """Return how long a throttle lasts, in seconds, from the text that announces it."""
    found = _BAN.search(text or "")
    return float(found[1]) if found else None


def shown_code(code: str | None, scrub: Callable[[str | None], str | None]) -> str | None:
    """Return a code as an error shows it: a short number is the platform's, even where it equals a recipient's age."""
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
    status: int = 200,
    kind: str | None = None,
) -> GatewayError:
    """Return the typed error of an ``error_response``.

    :param scrub: takes the request's values out of the texts that the error shows. The decision is made
        on the raw ones, so that a recipient called "isp" changes nothing.
    :param clock_skew: seconds that this machine's clock is ahead of the gateway's, where that was measured.
    :param status: HTTP status. The gateway answers errors with 200; under another one something before it may have
        repeated or replaced them, so they prove nothing.
    :param kind: the ``type`` of a flat error; None: it is an ``error_response``.
    """
    rule = rule_for(code, sub_code) if kind is None else flat_rule(code or "", kind)
    if status != 200:
        rule = Rule(ServiceError, f"an error of the gateway under HTTP {status} proves nothing", LOOK_UP)
    retry_after = None
    if issubclass(rule.error, ThrottledError):
        ban = ban_seconds(sub_msg) or ban_seconds(msg)
        if rule is QUOTA and ban is not None and ban < _SHORT_BAN:
            rule = THROTTLED
        retry_after = ban or rule.wait
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


def refusal_of(word: str, **facts: Any) -> GatewayError | None:
    """Return the error for a code of the table that stands in another place: a throttle, a limit, a refused call.

    :param facts: further arguments of :func:`gateway_error`.
    """
    if _first(FINER, word) is not None:
        return gateway_error(code=None, sub_code=word, **facts)
    if _FLAT_THROTTLES.fullmatch(word):
        return gateway_error(code=word, sub_code=None, kind="ISV", **facts)
    return None


_FLAT_THROTTLES = re.compile(r"(app|api|isp)?-?call-?limit(ed)?|.*throttl.*|.*qps.*limit.*", re.IGNORECASE)
_FLAT_CALLS = re.compile(
    r"(in(complete|valid|correct)|missing|illegal|expired|unsupported|wrong)-?"
    r"(signature|sign|app-?key|access-?token|session|timestamp|api|api-?path|method|sign-?method|version|format)",
    re.IGNORECASE,
)


def flat_rule(code: str, kind: str) -> Rule:
    """Return the row for a flat error of the newer gateway (jaq-doc.alibaba.com articleId=119481).

    :param code: a word, such as ``ApiCallLimit``.
    :param kind: ``ISV``, the caller's fault; ``ISP`` or ``SYSTEM``, theirs.
    """
    if kind.strip().upper() != "ISV":
        return BACKEND
    if _FLAT_THROTTLES.fullmatch(code):
        return THROTTLED
    if _FLAT_CALLS.fullmatch(code):
        return refused_call(
            "the gateway refused the call",
            "code names what it refused: check the App key, the App secret, the session_token and the host of the "
            "connection, and this machine's clock.",
        )
    if code.strip().casefold() in SUCCESS_WORDS | {"0", "200"}:
        return CONTRADICTION
    return _doubtful(f"isv.{_words(code)}") or refused_request(
        "the platform refused the request", "Correct what code and message name."
    )


def _words(code: str) -> str:
    """Return a word in camel case with hyphens between its parts."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", code)
