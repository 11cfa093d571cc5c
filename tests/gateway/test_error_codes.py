"""The platform's error table, row by row: class, replay, hint. Written from the platform's pages, not from ours."""

from __future__ import annotations

import re

import pytest

from airflow_provider_lingyang.gateway.error_classification import ban_seconds, gateway_error, rule_for
from airflow_provider_lingyang.gateway.error_codes import CODES, DOUBTFUL, FINER, SUB_CODES
from airflow_provider_lingyang.gateway.errors import (
    CallRefusedError,
    GatewayError,
    LingyangError,
    ReceiverLimitedError,
    Replay,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.scrub import Scrubber

SAFE, AMBIGUOUS, NEVER = Replay.SAFE, Replay.AMBIGUOUS, Replay.NEVER
CALL, REQUEST, SERVICE, THROTTLED = CallRefusedError, RequestRefusedError, ServiceError, ThrottledError
ACCESS = "accesscontrol.limited-by-"

# code, sub_code, class, replay, a word that the hint must have: the setting, the console page or the clock.
TABLE: list[tuple[str | None, str | None, type[LingyangError], Replay, str]] = [
    *((code, None, THROTTLED, SAFE, "ban") for code in ("4", "5", "6", "7", "8")),
    ("7", ACCESS + "api-access-count", THROTTLED, SAFE, "max_requests_per_second"),
    ("7", ACCESS + "app-api-access-count", THROTTLED, SAFE, "ban"),
    ("7", ACCESS + "app-access-count", THROTTLED, SAFE, "24:00 Beijing"),
    ("7", ACCESS + "dynamic-access-count", THROTTLED, SAFE, "ban"),
    ("15", ACCESS + "api-access-count", THROTTLED, SAFE, "ban"),
    (None, ACCESS + "api-access-count", THROTTLED, SAFE, "ban"),
    ("10", None, SERVICE, AMBIGUOUS, "look the biz_ids up"),
    ("9", None, CALL, NEVER, "host"),
    ("11", None, CALL, NEVER, "permission package"),
    ("11", "isv.permission-api-package-limit", CALL, NEVER, "permission package"),
    ("11", "isv.permission-ip-whitelist-limit", CALL, NEVER, "IP address"),
    ("12", None, CALL, NEVER, "session_token"),
    ("13", None, CALL, NEVER, "support"),
    ("21", None, CALL, NEVER, "method"),
    ("22", None, CALL, NEVER, "method"),
    ("23", None, CALL, NEVER, "proxy"),
    ("24", None, CALL, NEVER, "proxy"),
    ("25", None, CALL, NEVER, "App secret"),
    ("25", "isv.invalid-signature", CALL, NEVER, "sign_method"),
    ("26", None, CALL, NEVER, "session_token"),
    ("27", None, CALL, NEVER, "session_token"),
    ("28", None, CALL, NEVER, "login"),
    ("29", None, CALL, NEVER, "login"),
    ("30", None, CALL, NEVER, "proxy"),
    ("31", None, CALL, NEVER, "clock"),
    *((code, None, CALL, NEVER, "v2.0") for code in ("32", "33", "34")),
    *((code, None, CALL, NEVER, "after the colon") for code in ("40", "41", "42", "43")),
    ("44", None, SERVICE, AMBIGUOUS, "look the biz_ids up"),
    ("44", "isv.permission-api-package-limit", SERVICE, AMBIGUOUS, "look the biz_ids up"),
    ("10", "isv.permission-ip-whitelist-limit", SERVICE, AMBIGUOUS, "look the biz_ids up"),
    ("40", "isv.missing-parameter:x", CALL, NEVER, "after the colon"),
    ("47", None, CALL, NEVER, "proxy"),
    ("53", None, CALL, NEVER, "security level"),
    # The backend speaks, whatever the code is.
    *(
        (code, sub_code, SERVICE, AMBIGUOUS, "look the biz_ids up")
        for code in ("7", "11", "15", "25", "40", "44", "53", " 15 ", None)
        for sub_code in (
            "isp.unknown-error",
            "ISP.UNKNOWN_ERROR",
            "Isp.something-new",
            "isp_remote_service_error",
            "isp.redirect-error",
            "isp.runtime-max-limit",
            "isp.top-remote-connection-control-error",
            "ism.demo",
            "ISM.x",
            "mz.emptybody",
            "MZ.EmptyBody",
            "isv.SYSTEM_ERROR",
            "isv.SYSTEM_ERROR:x",
            "isv.system-error",
            "isv.systemError",
            "ISV.System Error",
            "isv.internal-error",
            "isv.internal-server-error",
            "isv.unknown-error",
            "isv.service-timeout",
            "isv.NullPointerException",
            "isv.data-duplicate-error",
            "isv.DATA_DUPLICATE_ERROR:biz_id",
            "isv.duplicate-request",
            "isv.task-repeat-submit",
            "isv.already-exist",
        )
    ),
    # A throttle whose sub_code is none.
    *((code, "isv.something", SERVICE, AMBIGUOUS, "look the biz_ids up") for code in ("4", "7", "8")),
    ("7", "isv.permission-api-package-limit", SERVICE, AMBIGUOUS, "look the biz_ids up"),
    ("7", "isv.access-limited-by-app", THROTTLED, SAFE, "ban"),
    ("15", "isv.access-limited-by-api-access-count", THROTTLED, SAFE, "ban"),
    *(
        (code, sub_code, CALL, NEVER, word)
        for code in ("11", "15", "27", None)
        for sub_code, word in (
            ("isv.permission-api-package-empty", "permission package"),
            ("isv.permission-api-package-not-allowed", "permission package"),
            ("isv.permission-api-widget-only-limit", "permission package"),
            ("invalid-sessionkey", "session_token"),
            ("isv.invalid-sessionkey", "session_token"),
        )
    ),
    # The word stands in what the refusal is about.
    ("15", "isv.missing-parameter:repeat_times", REQUEST, NEVER, "columns"),
    ("15", "isv.invalid-parameter:timeout", REQUEST, NEVER, "audience"),
    *(
        (code, sub_code, SERVICE, AMBIGUOUS, "look the biz_ids up")
        for code in ("15", "50", "500", "550", None, "word")
        for sub_code in (
            "isp.remote-service-error",
            "isp.remote-service-timeout",
            "isp.top-remote-connection-timeout",
            "isp.unknown-error",
            "isp.service-error",
            "isp.http-connection-timeout",
            "isp.item-service-unavailable",
            "isp.top-remote-service-unavailable",
            "isp.remote-connection-error",
            "isp.top-remote-connection-error",
            "isp.call-limited",
            "isp.system-busy",
            "isp.something-new",
        )
    ),
    *(
        (code, sub_code, SERVICE, NEVER, "support")
        for code in ("15", "50")
        for sub_code in (
            "isp.null-pointer-exception",
            "isp.top-parse-error",
            "isp.top-mapping-parse-error",
            "isp.invalid-parameters",
        )
    ),
    *(
        (code, sub_code, REQUEST, NEVER, word)
        for code in ("15", "50", "530", None)
        for sub_code, word in (
            ("isv.missing-parameter", "task_defaults"),
            ("isv.missing-parameter:phone_number", "columns"),
            ("isv.invalid-parameter", "audience"),
            ("isv.invalid-parameter:plan_id", "audience"),
            ("isv.invalid-parameters", "audience"),
            ("isv.invalid-permission", "console"),
            ("isv.plan-not-exist", "plan_id"),
            ("isv.user-not-exist:invalid-nick", "plan_id"),
            ("isv.parameters-mismatch", "sub_msg"),
            ("isv.parameters-mismatch:a-and-b", "sub_msg"),
            ("isv.trade-service-error", "plan's state"),
            ("isv.user-service-error:x", "plan's state"),
            ("isv.something-new", "sub_msg"),
        )
    ),
    *(
        (code, sub_code, ReceiverLimitedError, AMBIGUOUS, "send them later")
        for code in ("15", "50", None)
        for sub_code in (
            "isv.BUSINESS_LIMIT_CONTROL",
            "isv.BUSINESS_LIMIT_CONTROL:x",
            "isv.business-limit-control",
            "isv.BUSINESS_LIMIT_HOUR",
            "BUSINESS_LIMIT_CONTROL_MINUTE",
        )
    ),
    # A refusal of the call names it isv.*; a word of another family may be a fault.
    *(
        (code, sub_code, SERVICE, AMBIGUOUS, "look the biz_ids up")
        for code in ("11", "25", "40", "53")
        for sub_code in (
            "aop.ACQ.SYSTEM_ERROR",
            "SYSTEM_ERROR",
            "unknown-error",
            "sys.timeout",
            "top.remote-service-error",
            "isv.SystemErr",
            "isv.unknow-error",
            "isv.system_busy",
            "isv.error",
            "isv.service-error",
            "isv.timed-out",
            "isv.gateway-error",
            "isv.remote-service-error",
            "isv",
        )
    ),
    *(
        (code, None, SERVICE, AMBIGUOUS, "look the biz_ids up")
        for code in ("7.0", "-7", "25.0", "015", "seven", "7 7")
    ),
    ("15", "isv.invalid-timeout", REQUEST, NEVER, "sub_msg"),
    ("15", "isv.exceptional-user-not-exist", REQUEST, NEVER, "plan_id"),
    ("50", "isv.trade-service-rejection", THROTTLED, SAFE, "a few minutes"),
    ("15", "isv.trade-service-rejection:x", THROTTLED, SAFE, "a few minutes"),
    ("15", "isv.permission-api-package-limit", CALL, NEVER, "permission package"),
    # What nobody has seen before may have been executed.
    *(
        (code, sub_code, SERVICE, AMBIGUOUS, "look the biz_ids up")
        for code in (
            "0",
            "1",
            "14",
            "15",
            "16",
            "50",
            "54",
            "99",
            "100",
            "500",
            "-1",
            "word",
            "",
            None,
            "15.0",
            "07",
        )
        for sub_code in (None, "", "xyz", "ISV.upper", "isvx", "xisv.x", "isp", "accesscontrol.other")
    ),
]


def error_for(code: str | None, sub_code: str | None, **texts: str | None) -> GatewayError:
    given = {"msg": None, "sub_msg": None, "request_id": "r1"} | texts
    return gateway_error(code=code, sub_code=sub_code, scrub=lambda text: text, **given)


@pytest.mark.parametrize(
    ("code", "sub_code", "error", "replay", "word"), TABLE, ids=[f"{row[0]} {row[1]}" for row in TABLE]
)
def test_every_row_of_the_table(
    code: str | None, sub_code: str | None, error: type[LingyangError], replay: Replay, word: str
) -> None:
    found = error_for(code, sub_code)
    assert type(found) is error
    assert found.replay is replay
    assert word in (found.hint or "")
    assert (found.code, found.sub_code, found.request_id) == (code, sub_code, "r1")


@pytest.mark.parametrize(
    "rule",
    [*CODES.values(), *(FINER | DOUBTFUL | SUB_CODES).values()],
    ids=lambda rule: rule.what,
)
def test_every_rule_has_one_sentence_of_what_and_advice(rule: object) -> None:
    what, hint = getattr(rule, "what", ""), getattr(rule, "hint", "")
    assert re.fullmatch(r"(the|this|a|an|fields) [^.]+", what)
    assert re.fullmatch(r"[A-Z].{20,}\.|sub_msg says which: .+\.", hint)


def test_codes_21_to_34_and_40_to_44_are_all_there() -> None:
    listed = {9, 10, 11, 12, 13, 47, 53, *range(4, 9), *range(21, 35), *range(40, 45)}
    assert {int(code) for code in CODES} == listed


def test_error_code_rows_are_distinguishable() -> None:
    assert rule_for("11", "isv.permission-ip-whitelist-limit") != rule_for(
        "11", "isv.permission-api-package-limit"
    )
    assert rule_for("15", "isp.system-busy").what != rule_for("15", "isp.unknown-error").what


@pytest.mark.parametrize(
    ("msg", "sub_msg", "seconds"),
    [
        (None, "This ban will last for 1 more seconds", 1.0),
        (None, "This ban will last for 31062 more seconds", 31062.0),
        (None, "this BAN WILL LAST FOR 60 more second", 60.0),
        ("App Call Limited. This ban will last for 5 more seconds", None, 5.0),
        ("This ban will last for 9 more seconds", "This ban will last for 5 more seconds", 5.0),
        (None, "This ban will last for a while", None),
        (None, "This ban will last for 99999999999999999999 more seconds", None),
        (None, "请求过于频繁", None),
        (None, "", None),
        (None, None, None),
    ],
)
def test_how_long_a_ban_lasts_is_read_from_its_text(
    msg: str | None, sub_msg: str | None, seconds: float | None
) -> None:
    assert error_for("7", None, msg=msg, sub_msg=sub_msg).retry_after == seconds


@pytest.mark.parametrize(
    ("sub_code", "least"),
    [
        ("isv.BUSINESS_LIMIT_CONTROL", 61),
        ("isv.trade-service-rejection", 61),
        (ACCESS + "app-access-count", 61),
    ],
)
def test_a_throttle_of_minutes_never_counts_as_a_short_one(sub_code: str, least: float) -> None:
    assert (error_for("15", sub_code).retry_after or 0) >= least
    assert error_for("7", sub_code, sub_msg="This ban will last for 7 more seconds").retry_after == 7.0


@pytest.mark.parametrize(
    ("seconds", "word"), [(1, "after the ban"), (599, "after the ban"), (31062, "24:00 Beijing")]
)
def test_short_ban_of_the_app_is_no_daily_quota(seconds: int, word: str) -> None:
    found = error_for(
        "7", ACCESS + "app-access-count", sub_msg=f"This ban will last for {seconds} more seconds"
    )
    assert found.retry_after == seconds
    assert word in (found.hint or "")


def test_only_throttles_have_a_time() -> None:
    assert error_for("15", "isv.x", sub_msg="This ban will last for 7 more seconds").retry_after is None


@pytest.mark.parametrize("text", [None, "", "ban", "This ban will last for -1 more seconds"])
def test_a_text_without_seconds_has_none(text: str | None) -> None:
    assert ban_seconds(text) is None


def test_error_class_depends_on_the_received_code_not_the_scrubbed_one() -> None:
    scrub = Scrubber(
        {"p": '{"a": "isv.invalid-parameter", "b": "more seconds", "age": "77", "long": "12345"}'}, {}
    )
    found = gateway_error(
        code="15",
        sub_code="isv.invalid-parameter",
        msg=None,
        sub_msg="77 more seconds",
        request_id="12345",
        scrub=scrub,
    )
    assert isinstance(found, RequestRefusedError)
    assert (found.code, found.sub_code, found.sub_msg, found.request_id) == (
        "15",
        "<a>",
        "<age> <b>",
        "<long>",
    )
    throttled = gateway_error(
        code="7",
        sub_code=None,
        msg=None,
        sub_msg="ban will last for 77 more seconds",
        request_id=None,
        scrub=scrub,
    )
    assert (throttled.retry_after, throttled.code) == (77.0, "7")


@pytest.mark.parametrize(
    ("code", "shown"), [("15", "15"), ("-1", "-1"), ("9999", "9999"), ("10000", "<n>"), ("word", "<w>")]
)
def test_a_short_code_is_shown_even_where_a_value_is_the_same(code: str, shown: str) -> None:
    values = '{"a": "15", "b": "-1", "c": "9999", "n": "10000", "w": "word"}'
    found = gateway_error(
        code=code, sub_code=None, msg=None, sub_msg=None, request_id=None, scrub=Scrubber({"p": values}, {})
    )
    assert found.code == shown
