"""The platform's checks before any work, with their codes."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlencode

import pytest

from airflow_provider_lingyang.sandbox.checks import _unquote
from tests.sandbox.client import Client, Gateway

Params = dict[str, str]


def without(name: str) -> Callable[[Client], Params]:
    return lambda g: g.signed(g.params(**{name: None}))


def using(**more: str) -> Callable[[Client], Params]:
    return lambda g: g.signed(g.params(**more))


def at(skew: float) -> Callable[[Client], Params]:
    return lambda g: g.signed(g.params(timestamp=g.timestamp(skew)))


def unsigned_change(**more: str) -> Callable[[Client], Params]:
    return lambda g: {**g.signed(g.params()), **more}


CHECKS: list[tuple[str, Callable[[Client], Params], str]] = [
    ("method missing", without("method"), "21"),
    ("method empty is method missing", using(method=""), "21"),
    ("method unknown", using(method="taobao.user.get"), "22"),
    ("format unknown", using(format="yaml"), "23"),
    ("sign missing", lambda g: g.params(), "24"),
    ("app_key missing", without("app_key"), "28"),
    ("app_key unknown", using(app_key="unknown"), "29"),
    ("timestamp missing", without("timestamp"), "30"),
    ("timestamp not a date", using(timestamp="yesterday"), "31"),
    ("timestamp in ISO form", using(timestamp="2027-01-15T16:00:00"), "31"),
    ("timestamp in UTC", at(-8 * 3600), "31"),
    ("timestamp 601 s behind", at(-601), "31"),
    ("timestamp 601 s ahead", at(601), "31"),
    ("v missing", without("v"), "32"),
    ("v old", using(v="1.0"), "33"),
    ("sign_method missing", without("sign_method"), "25"),
    ("sign_method unknown", using(sign_method="sha256"), "25"),
    ("sign wrong", unsigned_change(sign="0" * 64), "25"),
    ("sign in lower case", lambda g: {**g.params(), "sign": g.signed(g.params())["sign"].lower()}, "25"),
    ("sign not ASCII", unsigned_change(sign="签名"), "25"),
    ("parameter changed after signing", unsigned_change(partner_id="later"), "25"),
    ("session added after signing", unsigned_change(session="sandbox-session"), "25"),
    ("session unknown", using(session="expired"), "27"),
    ("parameter unknown", using(nonsense="1"), "41"),
    ("simplify no boolean", using(simplify="yes"), "41"),
]


@pytest.mark.parametrize("response_format", ["json", None])
@pytest.mark.parametrize(("make", "code"), [case[1:] for case in CHECKS], ids=[case[0] for case in CHECKS])
def test_each_check_answers_its_code(
    gateway: Gateway, make: Callable[[Client], Params], code: str, response_format: str | None
) -> None:
    gateway.response_format = response_format
    reply = gateway.send(make(gateway))
    assert (reply.status, reply.code) == (200, code)
    in_json = response_format == "json" and code != "23"
    assert reply.body.startswith(b'{"error_response":' if in_json else b"<?xml")
    last = gateway.last_request()
    assert (last["outcome"], last["executed"], last["code"]) == ("refused", False, code)
    assert last["request_id"].encode() in reply.body


@pytest.mark.parametrize("sign_method", ["md5", "hmac", "hmac-sha256"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"session": "sandbox-session"},
        {"partner_id": "p-1"},
        {"target_app_key": "t"},
        {"simplify": "false"},
    ],
)
def test_a_correct_request_is_accepted(gateway: Gateway, sign_method: str, more: Params) -> None:
    assert "time_get_response" in gateway.call(sign_method=sign_method, **more).json


def test_a_timestamp_may_be_ten_minutes_off(gateway: Gateway) -> None:
    for skew in (-600, 600):
        assert "time_get_response" in gateway.send(at(skew)(gateway)).json


def test_empty_values_are_not_part_of_the_signature(gateway: Gateway) -> None:
    params = gateway.signed(gateway.params())
    assert "time_get_response" in gateway.send({**params, "session": ""}).json


def test_chinese_values_are_signed_as_utf8(gateway: Gateway) -> None:
    assert "time_get_response" in gateway.call(partner_id="张三+ &=%é").json


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_only_post_is_allowed(gateway: Gateway, method: str) -> None:
    body = urlencode(gateway.signed(gateway.params())).encode()
    reply = gateway.http(body, method=method)
    assert (reply.status, reply.code) == (200, "9")


def test_parameters_in_the_url_count_like_those_in_the_body(gateway: Gateway) -> None:
    params = gateway.signed(gateway.params())
    query = urlencode({name: params.pop(name) for name in ("sign", "timestamp", "method")})
    assert "time_get_response" in gateway.send(params, path=f"/router/rest?{query}").json
    assert gateway.send(gateway.signed(gateway.params()), path="/router/rest?added=1").code == "25"


@pytest.mark.parametrize(
    ("tail", "content_type"),
    [
        (
            b"&partner_id=" + quote_from_bytes("张三".encode("gbk")).encode(),
            "application/x-www-form-urlencoded",
        ),
        (b"&partner_id=\xff", "application/x-www-form-urlencoded"),
        (b"", "application/x-www-form-urlencoded; charset=GBK"),
    ],
    ids=["escaped GBK", "raw bytes", "declared GBK"],
)
def test_a_body_that_is_not_utf8_is_refused(gateway: Gateway, tail: bytes, content_type: str) -> None:
    body = urlencode(gateway.signed(gateway.params())).encode() + tail
    assert gateway.http(body, Content_Type=content_type).code == "47"


def test_unquotes_like_the_standard_library() -> None:
    chance = random.Random(1)
    pieces = [
        b"%",
        b"=",
        b"+",
        b" ",
        b"\r",
        b"\n",
        b"&",
        b"a",
        b"F",
        b"0",
        b"%E5%BC%A0",
        b"%3D",
        b"\xff",
        b".",
    ]
    for _ in range(5000):
        text = b"".join(chance.choices(pieces, k=6))
        assert _unquote(text) == unquote_to_bytes(text.replace(b"+", b" "))


def test_a_body_that_is_no_form_has_no_parameters(gateway: Gateway) -> None:
    body = json.dumps(gateway.signed(gateway.params())).encode()
    assert gateway.http(body, Content_Type="application/json").code == "21"


@pytest.mark.parametrize("value", ["2.0", "1.0"])
def test_a_field_sent_twice_is_refused(gateway: Gateway, value: str) -> None:
    body = urlencode(gateway.signed(gateway.params())).encode() + b"&v=" + value.encode()
    reply = gateway.http(body)
    assert reply.json["error_response"]["msg"] == "Invalid arguments:v"
    assert reply.code == "41"


def test_the_missing_or_invalid_parameter_is_named_in_msg(gateway: Gateway) -> None:
    submit = "alibaba.lingyang.utouch.submit.initiative.batch.task"
    error = gateway.call(submit).json["error_response"]
    assert (error["code"], error["msg"]) == (40, "Missing required arguments:initiative_batch_task_request")
    assert "sub_code" not in error
    for text in (
        "not json",
        "[]",
        '"x"',
        "{",
        '{"a":NaN}',
        '{"a":1,"a":1}',
        '{"a":"\\ud800"}',
        "[" * 100_000,
    ):
        error = gateway.call(submit, initiative_batch_task_request=text).json["error_response"]
        assert (error["code"], error["msg"]) == (41, "Invalid arguments:initiative_batch_task_request")


def test_a_session_can_be_required(gateway: Gateway) -> None:
    gateway.add_fault(kind="session_required")
    assert gateway.call().code == "26"
    assert "time_get_response" in gateway.call(session="sandbox-session").json


def test_time_get_answers_in_every_format(gateway: Gateway) -> None:
    gateway.moment = 1_710_230_756.0
    assert gateway.call().json["time_get_response"]["time"] == "2024-03-12 16:05:56"
    assert gateway.call(simplify="true").json["time"] == "2024-03-12 16:05:56"
    reply = gateway.call(format=None)
    assert reply.headers["Content-Type"] == "text/xml;charset=UTF-8"
    assert b"<time_get_response><time>2024-03-12 16:05:56</time><request_id>" in reply.body


@pytest.mark.parametrize(
    ("accepts", "zipped"),
    [("gzip, deflate", True), ("br;q=1, GZIP ;q=0.5", True), ("gzip;q=0", False), ("identity", False)],
)
def test_gzips_answers_by_accept_encoding(gateway: Gateway, accepts: str, zipped: bool) -> None:
    reply = gateway.send(gateway.signed(gateway.params()), Accept_Encoding=accepts)
    assert reply.headers.get("Content-Encoding") == ("gzip" if zipped else None)
    assert "time_get_response" in json.loads(gzip.decompress(reply.body) if zipped else reply.body)
