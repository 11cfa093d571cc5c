"""Answers that say two things: what became of the request is unknown, and no refusal is read out of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.answer_values import SUCCESS_WORDS
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    CallRefusedError,
    LingyangError,
    ReceiverLimitedError,
    Replay,
    RequestRefusedError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.protocol import read_answer
from airflow_provider_lingyang.gateway.receipt import read_receipt
from airflow_provider_lingyang.gateway.scrub import Scrubber

ROOT = "a_response"
OK = {
    "result": {"success": True, "data": [{"task_id": 1, "task_request": {"biz_id": "b1"}}]},
    "request_id": "r",
}
NO = {"result": {"success": False, "code": "400", "message": "m"}, "request_id": "r"}
REFUSED = {"code": 25, "msg": "Invalid Signature"}
FLAT = {"code": "ApiCallLimit", "type": "ISV", "message": "m", "request_id": "r"}


def no(**fields: Any) -> dict[str, Any]:
    return {ROOT: {**NO, "result": {**NO["result"], **fields}}}  # type: ignore[dict-item]


CONTRADICTIONS: dict[str, Any] = {
    "error beside a flag": {"success": True, "error_response": REFUSED},
    "error beside a flag in another spelling": {"isSuccess": "true", "error_response": REFUSED},
    "flag inside an error": {"error_response": {**REFUSED, "success": True}},
    "error beside a refusal": {ROOT: NO, "error_response": REFUSED},
    "error beside a flat success": {**OK, "error_response": REFUSED},
    "answer beside a flat answer": {ROOT: NO, "result": OK["result"]},
    "two answers": {ROOT: NO, "b_response": OK},
    "flat error with a flag": {**FLAT, "success": True},
    "flat error with data": {**FLAT, "data": [1]},
    "flat error with a code of success": {**FLAT, "code": "0"},
    "wrapped error of the service": {"error_response": {"code": 7, "type": "SYSTEM", "message": "m"}},
    "error with a list as sub_code": {"error_response": {**REFUSED, "sub_code": ["isp.x"]}},
    "refusal with echoes": no(data=OK["result"]["data"]),  # type: ignore[index]
    "refusal with echoes under another name": no(tasks=OK["result"]["data"]),  # type: ignore[index]
    "refusal with echoes above": {ROOT: {**NO, "data": OK["result"]["data"]}},  # type: ignore[index]
    "refusal with another flag": no(is_success=True),
    "refusal with a flag beside the root": {ROOT: NO, "success": True},
    "refusal with echoes beside the root": {ROOT: NO, "data": OK["result"]["data"]},  # type: ignore[index]
    "refusal with a flag above": {ROOT: {**NO, "success": "true"}},
    "refusal with a code of the service": no(code="isp.unknown-error"),
    "refusal with a code of a fault": no(code="isv.SYSTEM_ERROR"),
    "refusal with an error_code of the service": no(error_code="ISP.timeout"),
    "refusal that is in place already": no(code="isv.data-duplicate-error"),
    "refusal with a fault's code above": {ROOT: {**NO, "error_code": "SYSTEM_ERROR"}},
    "refusal with a fault's code beside the root": {ROOT: NO, "errCode": "isp.timeout"},
    "refusal with a fault's code in another field": no(errCode="ServiceUnavailable"),
    **{
        f"refusal with code {code}": no(code=code)
        for code in (
            "500",
            503,
            "SYSTEM_ERROR",
            "INTERNAL_ERROR",
            "TIMEOUT",
            "RequestTimeOut",
            "DUPLICATE_REQUEST",
        )
    },
    **{
        f"refusal that says {text}": no(message=text)
        for text in (
            "系统异常，请稍后重试",
            "接口超时",
            "请勿重复提交",
            "Read timed out",
            "internal error",
            "System Error",
        )
    },
    **{
        f"refusal that says so as its {name}": no(**{name: "服务不可用"})
        for name in ("sub_msg", "errMsg", "desc", "description", "detail", "returnMsg")
    },
    "refusal with a flag of a time-out": no(timeout=True),
    **{
        f"refusal with word of a success, {word}": no(code=word)
        for word in ("SUCCESS", "OK", "true", "PROCESSING", "202", "PARTIAL_SUCCESS")
    },
    **{
        f"refusal that says {text}": no(message=text)
        for text in ("操作成功", "处理中", "部分成功", "success", "request is processing")
    },
    **{
        f"success is {value!r}": no(success=value)
        for value in ("false ", " false", 0, "0", "no", None, "", [])
    },
}


REFUSALS: dict[str, Any] = {
    "no code": {ROOT: {"result": {"success": False}}},
    "a number": no(code=400),
    "a word": no(code="PLAN_NOT_FOUND", message="计划不存在"),
    "a field that is wrong": no(code="isv.invalid-parameter:phone", message="参数错误"),
    "a parameter's error": no(code="PARAM_ERROR", sub_msg="phone_number error"),
    "a business rule": no(code="isv.balance-not-enough", message="账户余额不足"),
    "a number of five digits": no(code=15001, message="计划状态不正确"),
    "a negative number": no(code="-500001", message="plan is not published"),
    "a flag of a time-out that is false": no(timeout=False),
    **{
        f"the text {text}": no(message=text)
        for text in (
            "提交不成功",
            "操作未成功",
            "unsuccessful",
            "号码重复",
            "参数错误，请检查后重试",
            "plan already ended",
            "计划不存在",
            "not success",
        )
    },
    "flags that agree": {ROOT: {**NO, "is_success": "0"}},
}


def read(body: str) -> None:
    scrub = Scrubber({}, {})
    read_receipt(read_answer(status=200, content_type="", body=body.encode(), scrub=scrub))


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradiction_is_ambiguous(name: str) -> None:
    with pytest.raises(LingyangError) as caught:
        read(json.dumps(CONTRADICTIONS[name]))
    assert caught.value.replay is Replay.AMBIGUOUS


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ApiCallLimit", ThrottledError),
        ("accesscontrol.limited-by-api-access-count", ThrottledError),
        ("accesscontrol.limited-by-app-access-count", ThrottledError),
        ("isv.access-limited-by-x", ThrottledError),
        ("isv.BUSINESS_LIMIT_CONTROL", ReceiverLimitedError),
        ("BUSINESS_LIMIT_CONTROL", ReceiverLimitedError),
        ("invalid-sessionkey", CallRefusedError),
        ("isv.permission-api-package-empty", CallRefusedError),
    ],
)
@pytest.mark.parametrize("field", ["code", "error_code", "sub_code"])
def test_refusal_with_a_code_of_the_table_is_what_the_table_says(
    code: str, error: type[LingyangError], field: str
) -> None:
    with pytest.raises(error) as caught:
        read(json.dumps(no(**{field: code})))
    assert code in (caught.value.code, caught.value.sub_code)


@pytest.mark.parametrize("word", sorted(SUCCESS_WORDS))
@pytest.mark.parametrize("field", ["code", "error_code", "sub_code"])
def test_refusal_with_a_success_word_for_a_code_contradicts_itself(word: str, field: str) -> None:
    with pytest.raises(AnswerUnreadableError, match="contradicts itself"):
        read(json.dumps(no(**{field: word.upper()})))


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_that_says_nothing_else_is_one(name: str) -> None:
    with pytest.raises(RequestRefusedError):
        read(json.dumps(REFUSALS[name]))


@pytest.mark.parametrize(
    "body",
    [
        '{"result":{"success":false,"success":true}}',
        '{"result":{"success" :true,"success" :false}}',
        '{"result":{"success":true,"succes\\u0073":false}}',
        '{"result":{"message":"a\x01","success":true,"success":false}}',
        '{"a_response":{"result":{"success":true}},"a_response":{"result":{"success":false}}}',
        '{"result":{"success":true},"result":{"success":false}}',
        '{"error_response":{"code":15},"error_response":{"code":25}}',
        '{"error_response":{"code":15,"code":7}}',
        '{"error_response":{"code":25,"sub_code":"isp.x","sub_code":"isv.x"}}',
        "<error_response><code>15</code><code>7</code></error_response>",
        "<error_response><code>25</code><sub_code>isp.x</sub_code><sub_code>isv.x</sub_code></error_response>",
        "<a_response><result><success>true</success><success>false</success></result></a_response>",
        "<a_response><result><success>true</success></result><result><success>false</success></result></a_response>",
    ],
)
def test_name_twice_with_different_values_is_ambiguous(body: str) -> None:
    with pytest.raises(LingyangError) as caught:
        read(body)
    assert caught.value.replay is Replay.AMBIGUOUS


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"{}," * 300_000 + b"{}]",
        b"[" * 300_000,
        b'{"a":' * 300_000,
        b"<a>" + b"<b/>" * 600_000 + b"</a>",
    ],
    ids=["objects", "lists", "depth", "elements"],
)
def test_answer_with_too_many_brackets_is_not_parsed(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def parser(_: bytes) -> None:
        raise AssertionError("the parser was asked")

    for name in ("_parse_json", "_parse_xml"):
        monkeypatch.setattr(f"airflow_provider_lingyang.gateway.answer_parser.{name}", parser)
    with pytest.raises(LingyangError) as caught:
        read_answer(status=200, content_type="", body=body, scrub=Scrubber({}, {}))
    assert caught.value.replay is Replay.AMBIGUOUS
