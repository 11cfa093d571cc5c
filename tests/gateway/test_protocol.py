"""Requests as they are signed and sent; answers in every shape they come back in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    CallRefusedError,
    GatewayError,
    LingyangConfigError,
    LingyangError,
    Replay,
    RequestInvalidError,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
)
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, SUBMIT_PARAM, InitiativeBatchTaskRequest
from airflow_provider_lingyang.gateway.protocol import Answer, read_answer, signature_of, signed_form
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt, read_receipt
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.signing import sign

NOON = datetime(2024, 3, 12, 6, 0, 0, tzinfo=UTC)
NOTHING = Scrubber({}, {})
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


def settings(**fields: Any) -> GatewaySettings:
    return GatewaySettings(
        **{"url": "https://gateway.test/router/rest", "app_key": "k", "app_secret": "s"} | fields
    )


def read(body: bytes | str, status: int = 200, content_type: str = "text/javascript", **how: Any) -> Answer:
    raw = body.encode() if isinstance(body, str) else body
    return read_answer(
        status=status, content_type=content_type, body=raw, scrub=how.pop("scrub", NOTHING), **how
    )


def receipt(body: bytes | str) -> SubmitReceipt:
    return read_receipt(read(body))


def text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- requests -------------------------------------------------------------------------------------------------


def form(params: dict[str, str], now: datetime = NOON, **fields: Any) -> dict[str, str]:
    body = signed_form(settings(**fields), "a.method", params, now)
    pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_request_carries_the_system_parameters_and_its_own() -> None:
    found = form({"x": "1", "empty": ""}, session_token="t", sign_method="md5")
    signature = found.pop("sign")
    assert found == {
        "method": "a.method",
        "app_key": "k",
        "session": "t",
        "timestamp": "2024-03-12 14:00:00",
        "format": "json",
        "v": "2.0",
        "sign_method": "md5",
        "x": "1",
    }
    assert signature == sign(found, "s", "md5")


def test_a_request_without_a_session_has_no_field_for_it() -> None:
    assert "session" not in form({})


@pytest.mark.parametrize("session", ["6100e23", "会话 & co+%"])
def test_the_session_is_signed(session: str) -> None:
    found = form({}, session_token=session)
    signature = found.pop("sign")
    assert signature == sign(found, "s", "hmac-sha256")
    assert signature != sign({**found, "session": ""}, "s", "hmac-sha256")


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=8)), timezone(timedelta(hours=-11))])
def test_the_timestamp_is_china_s_whatever_zone_the_clock_is_in(zone: timezone) -> None:
    assert form({}, NOON.astimezone(zone))["timestamp"] == "2024-03-12 14:00:00"


@pytest.mark.parametrize(
    "name", ["method", "app_key", "session", "timestamp", "format", "v", "sign_method", "sign"]
)
def test_a_caller_cannot_replace_what_the_client_sets(name: str) -> None:
    with pytest.raises(LingyangConfigError, match=f"^{name}: set by the client"):
        form({name: "x"})


@pytest.mark.parametrize("name", ["simplify", "partner_id", "target_app_key"])
def test_a_caller_may_add_the_optional_system_parameters(name: str) -> None:
    assert form({name: "true"})[name] == "true"


@pytest.mark.parametrize("params", [{"x": "canary\ud800"}, {"\ud800canary": "x"}])
def test_text_that_is_not_unicode_is_an_error_that_does_not_repeat_it(params: dict[str, str]) -> None:
    with pytest.raises(RequestInvalidError, match="not Unicode") as caught:
        form(params)
    assert "canary" not in str(caught.value)
    assert caught.value.replay is Replay.NEVER


@given(
    params=st.dictionaries(UNICODE, UNICODE, max_size=6),
    token=UNICODE,
    method=st.sampled_from(["md5", "hmac"]),
)
def test_sent_form_is_parsed_to_the_signed_parameters(
    params: dict[str, str], token: str, method: str
) -> None:
    try:
        body = signed_form(settings(session_token=token, sign_method=method), "a.method", params, NOON)
    except LingyangConfigError:
        assert params.keys() & {
            "method",
            "app_key",
            "session",
            "timestamp",
            "format",
            "v",
            "sign_method",
            "sign",
        }
        return
    pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    read_back = dict(pairs)
    assert len(read_back) == len(pairs)
    signature = read_back.pop("sign")
    assert signature == signature_of(body) == sign(read_back, "s", method)
    assert {name: read_back.get(name, "") for name in params} == {
        name: value if name else "" for name, value in params.items()
    }


# --- answers: success -----------------------------------------------------------------------------------------

ECHO = {
    "biz_id": "b1",
    "phone_number": "10000000001",
    "plan_execute_start_time": "Thu Mar 14 15:16:52 CST 2024",
}
ITEM = {"task_id": 2**53 + 1, "task_request": ECHO}
ROOT = SUBMIT_METHOD.replace(".", "_") + "_response"


def xml(name: str, value: Any) -> str:
    """The platform's XML for a JSON value; lists are wrapped already."""
    if isinstance(value, list):
        return "".join(xml(name, item) for item in value)
    if isinstance(value, dict):
        value = "".join(xml(key, item) for key, item in value.items())
    elif isinstance(value, bool):
        value = str(value).lower()
    else:
        value = str(value).replace("&", "&amp;").replace("<", "&lt;")
    return f"<{name}>{value}</{name}>"


WRAPPED = {
    "result": {"code": "200", "data": {"initiative_task_response": [ITEM]}, "success": True},
    "request_id": "r1",
}
SIMPLE = {"result": {"code": "200", "data": [ITEM], "success": True}, "request_id": "r1"}
SHAPES = {
    "json": text({ROOT: WRAPPED}),
    "json, keys in another order": text({ROOT: dict(reversed(WRAPPED.items()))}),
    "json, another root": text({"something_else_response": WRAPPED}),
    "json, root without _response": text({"something_else": WRAPPED}),
    "json, pretty": json.dumps({ROOT: WRAPPED}, indent=2),
    "json, request_id beside the root": text({ROOT: {"result": WRAPPED["result"]}, "request_id": "r1"}),
    "json, success as text": text({ROOT: WRAPPED}).replace("true", '"true"'),
    "json, ids as text": text({ROOT: WRAPPED}).replace(str(2**53 + 1), f'"{2**53 + 1}"'),
    "json, byte order mark": "\ufeff" + text({ROOT: WRAPPED}),
    "json, one item that is no list": text({ROOT: WRAPPED}).replace("[", "").replace("]", ""),
    "json, simplified": text(SIMPLE),
    "json, simplified under a root": text({ROOT: SIMPLE}),
    "xml": '<?xml version="1.0" encoding="utf-8" ?>' + xml(ROOT, WRAPPED),
    "xml, bare": xml(ROOT, WRAPPED),
    "xml, pretty": "\ufeff\n" + xml(ROOT, WRAPPED).replace("><", ">\n\t<"),
    "xml, list attribute": xml(ROOT, WRAPPED).replace("<data>", '<data list="true">'),
    "xml, cdata": xml(ROOT, WRAPPED).replace("b1", "<![CDATA[b1]]>"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_receipt_is_the_same_in_every_shape_of_the_envelope(shape: str) -> None:
    found = receipt(SHAPES[shape])
    assert found.task_ids == {"b1": 9007199254740993}
    assert found.request_id == "r1"
    (task,) = found.data
    assert task.task_request is not None
    start = task.task_request.plan_execute_start_time
    assert start == datetime(2024, 3, 14, 15, 16, 52, tzinfo=timezone(timedelta(hours=8)))


@pytest.mark.parametrize("echo_date", ["Thu Mar 14 15:16:52 CST 2024", "2024-03-14 15:16:52"])
def test_an_echoed_date_is_read_in_both_forms(echo_date: str) -> None:
    echo = {"biz_id": "b", "plan_execute_start_time": echo_date}
    (task,) = receipt(
        text({"result": {"success": True, "data": [{"task_id": 1, "task_request": echo}]}})
    ).data
    assert task.task_request is not None
    assert str(task.task_request.plan_execute_start_time) == "2024-03-14 15:16:52+08:00"


EMPTY: list[Any] = [None, {}, [], "", {"initiative_task_response": []}, {"initiative_task_response": None}]
EMPTY += [{"initiative_task_response": {}}, {"initiative_task_response": ""}]


@pytest.mark.parametrize("data", EMPTY, ids=str)
def test_success_without_any_echo_is_ambiguous_in_every_spelling_of_an_empty_list(data: Any) -> None:
    with pytest.raises(AnswerUnreadableError, match="says success and echoes no task") as caught:
        receipt(text({ROOT: {"result": {"success": True, "data": data}}}))
    assert caught.value.replay is Replay.AMBIGUOUS


@pytest.mark.parametrize("data", ["", "<data/>", "<data></data>", "<data> \n </data>", '<data list="true"/>'])
def test_success_without_any_echo_is_ambiguous_in_xml(data: str) -> None:
    with pytest.raises(AnswerUnreadableError, match="says success and echoes no task"):
        receipt(f"<{ROOT}><result><success>true</success>{data}</result></{ROOT}>")


def test_success_without_data_is_ambiguous() -> None:
    with pytest.raises(AnswerUnreadableError, match="says success and echoes no task"):
        receipt(text({ROOT: {"result": {"success": True}}}))


def test_task_ids_are_matched_through_the_echo_not_by_position() -> None:
    items = [{"task_id": n, "task_request": {"biz_id": f"b{n}"}} for n in (3, 1, 2)]
    items += [{"task_id": 9}, {"task_id": 8, "task_request": None}, {"task_id": 7, "task_request": {}}]
    assert receipt(text({"result": {"success": True, "data": items}})).task_ids == {"b3": 3, "b1": 1, "b2": 2}


def test_a_task_without_an_id_but_with_an_echo_is_accepted() -> None:
    items = [{"task_request": {"biz_id": "b"}}, {"task_id": None, "task_request": {"biz_id": 5}}]
    assert receipt(text({"result": {"success": True, "data": items}})).task_ids == {"b": None, "5": None}


def test_xml_attributes_are_members_of_their_element() -> None:
    body = (
        '<a_response xmlns:x="urn:x" x:y="z"><result success="true" total="0"><data list="true"/><note>t</note>'
        '<head code="5"/></result></a_response>'
    )
    result = read(body).payload["result"]
    assert result == {"success": "true", "total": "0", "data": None, "note": "t", "head": {"code": "5"}}


@pytest.mark.parametrize(
    "body",
    [
        '<error_response code="25"><code>7</code></error_response>',
        '<a_response><result success="true"><success>false</success></result></a_response>',
        '<a_response><result><success>false</success><message code="SYSTEM_ERROR">x</message></result></a_response>',
    ],
)
def test_an_xml_attribute_that_leaves_open_what_counts_is_ambiguous(body: str) -> None:
    with pytest.raises(LingyangError) as caught:
        receipt(body)
    assert caught.value.replay is Replay.AMBIGUOUS


def test_empty_xml_elements_are_absent_fields() -> None:
    body = (
        f"<{ROOT}><result><success>true</success><message/><data><initiative_task_response><task_id>1</task_id>"
        "<task_request><biz_id>b</biz_id><cms_user_id></cms_user_id><user_name/></task_request>"
        f"</initiative_task_response></data></result></{ROOT}>"
    )
    assert receipt(body).task_ids == {"b": 1}


@pytest.mark.parametrize("mark", [b"\x01", b"\x1f", b"\t", b"\n", b"\x00"])
def test_raw_control_characters_in_strings_are_read(mark: bytes) -> None:
    body = text({ROOT: WRAPPED}).encode().replace(b"200", b"2" + mark + b"0")
    assert receipt(body).task_ids == {"b1": 2**53 + 1}


def test_no_receipt_or_answer_shows_the_echo() -> None:
    found = read(text({ROOT: WRAPPED}))
    assert "10000000001" not in repr(found) + repr(read_receipt(found))


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        ('{"time_get_response":{"time":"t"}}', {"time": "t"}),
        ('{"time_get_response":{}}', {}),
        ('{"time":"t","request_id":"r"}', {"time": "t", "request_id": "r"}),
        ('{"odd":{"time":"t","request_id":"r"}}', {"time": "t", "request_id": "r"}),
        ("<time_get_response><time>t</time></time_get_response>", {"time": "t"}),
    ],
)
def test_any_method_s_answer_is_what_is_below_its_root(body: str, payload: dict[str, Any]) -> None:
    assert read(body).payload == payload


# --- answers: refusals ----------------------------------------------------------------------------------------

ERROR = {
    "code": 15,
    "msg": "Remote service error",
    "sub_code": "isv.x",
    "sub_msg": "非法参数",
    "request_id": "r9",
}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 302, 100, 201, 400, 403, 408, 429, 499])
@pytest.mark.parametrize(
    "error", [ERROR, {"code": 7, "sub_msg": "This ban will last for 1 more seconds"}, {"code": 25}], ids=str
)
def test_an_error_under_another_status_proves_nothing_and_keeps_its_facts(
    error: dict[str, Any], status: int
) -> None:
    with pytest.raises(ServiceError, match=f"under HTTP {status} proves nothing") as caught:
        read(text({"error_response": error}), status)
    assert caught.value.replay is Replay.AMBIGUOUS
    assert caught.value.code == str(error["code"])
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    "body", [text({"error_response": ERROR}), xml("error_response", ERROR)], ids=["json", "xml"]
)
def test_an_error_keeps_every_fact_in_every_shape(body: str) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        read(body)
    error = caught.value
    assert (error.code, error.sub_code, error.msg) == ("15", "isv.x", "Remote service error")
    assert (error.sub_msg, error.request_id, error.replay) == ("非法参数", "r9", Replay.NEVER)
    for fact in ("15", "isv.x", "非法参数", "r9"):
        assert fact in str(error)


@pytest.mark.parametrize("code", [40, "40", 40.0, " 40", None, "isv.word", [], {}, True])
def test_a_code_of_any_type_is_kept_as_text(code: Any) -> None:
    with pytest.raises(GatewayError) as caught:
        read(text({"error_response": {"code": code, "msg": "Missing required arguments:x"}}))
    assert caught.value.code == (None if code is None or isinstance(code, (list, dict)) else str(code))
    assert caught.value.sub_code is caught.value.sub_msg is caught.value.request_id is None


def test_an_error_without_anything_is_still_one_and_ambiguous() -> None:
    with pytest.raises(GatewayError) as caught:
        read('{"error_response":{}}')
    assert caught.value.replay is Replay.AMBIGUOUS


E7 = {"code": 7, "msg": "App Call Limited"}
DONE = {"success": True, "data": [ITEM]}
ECHO = json.dumps(ITEM)
CONTRADICTIONS = {
    "an error beside a success": text({ROOT: WRAPPED, "error_response": E7}),
    "an error before a success": text({"error_response": E7, ROOT: WRAPPED}),
    "an error beside a simplified success": text({"error_response": E7, "result": DONE}),
    "an error beside an empty error": text({"error_response": E7, "other_response": {"error_response": {}}}),
    "an error inside a success": text({ROOT: {"result": DONE, "error_response": E7}}),
    "a success inside an error": text({"error_response": {**E7, "result": DONE}}),
    "echoes inside an error": text({"error_response": {**E7, "data": [ITEM]}}),
    "two answers": text({ROOT: {"result": DONE}, "other_response": {"result": {"success": False}}}),
    "a flat error beside a success": text({"code": "X", "type": "ISV", "message": "m", "data": [ITEM]}),
    "success twice": f'{{"{ROOT}":{{"result":{{"success":true,"success":false,"data":[{ECHO}]}}}}}}',
    "success twice, the other way round": f'{{"{ROOT}":{{"result":{{"success":false,"success":true,"data":[{ECHO}]}}}}}}',
    "success twice, of two types": f'{{"{ROOT}":{{"result":{{"success":1,"success":true,"data":[{ECHO}]}}}}}}',
    "data twice": f'{{"{ROOT}":{{"result":{{"success":true,"data":[{ECHO}],"data":[]}}}}}}',
    "result twice": f'{{"{ROOT}":{{"result":{{"success":true,"data":[{ECHO}]}},"result":{{"success":false}}}}}}',
    "root twice": f'{{"{ROOT}":{{"result":{{"success":false}}}},"{ROOT}":{{"result":{{"success":true,"data":[{ECHO}]}}}}}}',
    "error twice": '{"error_response":{"code":7},"error_response":{"code":15}}',
    "code twice": '{"error_response":{"code":15,"code":7}}',
    "an id twice": f'{{"{ROOT}":{{"result":{{"success":true,"data":[{{"task_id":1,"task_request":{{"biz_id":"a","biz_id":"b"}}}}]}}}}}}',
    "twice, with blanks and escapes": f'{{"{ROOT}":{{"result":{{"message":"a\\\\", "success" :false,"success":true,"data":[{ECHO}]}}}}}}',
    "twice, where text looks like a name": f'{{"{ROOT}":{{"result":{{"message":"x\\":1","success":false,"success":true,"data":[{ECHO}]}}}}}}',
    "success twice in XML": f"<{ROOT}><result><success>true</success><success>false</success></result></{ROOT}>",
    "result twice in XML": f"<{ROOT}><result><success>true</success></result><result/></{ROOT}>",
    "refused with echoes": text({ROOT: {"result": {**DONE, "success": False}}}),
    "refused with echoes, as text": text({"result": {"success": "False", "data": {"initiative_task_response": [ITEM]}}}),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_ambiguous(case: str) -> None:
    with pytest.raises(LingyangError) as caught:
        receipt(CONTRADICTIONS[case])
    assert isinstance(caught.value, AnswerUnreadableError)
    assert caught.value.replay is Replay.AMBIGUOUS


@pytest.mark.parametrize(
    "body",
    [
        f'{{"{ROOT}":{{"result":{{"success":true,"success":true,"data":[{ECHO}]}}}}}}',
        f'{{"{ROOT}":{{"result":{{"success" : true,"data":[{ECHO}],"message":"a\\":b\\\\"}}}}}}',
        f'{{"{ROOT}":{{"result":{{"success":true,"data":[{ECHO}]}}}},"trace_id":"t","request_id":"r"}}',
    ],
)
def test_a_name_twice_with_one_value_is_no_contradiction(body: str) -> None:
    assert len(receipt(body).accepted) == 1


@pytest.mark.parametrize("success", [False, "false", "False"])
def test_success_decides_not_the_code(success: Any) -> None:
    result = {"success": success, "code": "200", "message": "参数错误"}
    with pytest.raises(RequestRefusedError, match="参数错误") as caught:
        receipt(text({ROOT: {"result": result, "request_id": "r1"}}))
    assert (caught.value.code, caught.value.request_id, caught.value.replay) == ("200", "r1", Replay.NEVER)
    accepted = {**result, "success": True, "code": "400", "data": [ITEM]}
    assert receipt(text({ROOT: {"result": accepted}})) is not None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "ApiCallLimit", "type": "ISV"}, ThrottledError),
        ({"code": "AppCallLimit", "type": "isv"}, ThrottledError),
        ({"code": "IncompleteSignature", "type": "ISV"}, CallRefusedError),
        ({"code": "IllegalAccessToken", "type": "ISV"}, CallRefusedError),
        ({"code": "InvalidParameter", "type": "ISV"}, RequestRefusedError),
        ({"code": "SystemError", "type": "ISV"}, ServiceError),
        ({"code": "SUCCESS", "type": "ISV"}, ServiceError),
        ({"code": "Succeeded", "type": "ISV"}, ServiceError),
        ({"code": "ServiceTimeout", "type": "ISV"}, ServiceError),
        ({"code": "ApiCallLimit", "type": "ISP"}, ServiceError),
        ({"code": "ServiceUnavailable", "type": "SYSTEM"}, ServiceError),
        ({"code": "IncompleteSignature", "type": "SYSTEM"}, ServiceError),
    ],
)
def test_flat_errors_of_the_newer_gateway_keep_code_and_message(
    error: dict[str, Any], expected: type[GatewayError]
) -> None:
    with pytest.raises(GatewayError) as caught:
        read(text({**error, "message": "说明", "request_id": "r7"}))
    assert type(caught.value) is expected
    assert (caught.value.code, caught.value.msg, caught.value.request_id) == (error["code"], "说明", "r7")
    if expected is ServiceError:
        assert caught.value.replay is Replay.AMBIGUOUS


@pytest.mark.parametrize(
    "error", [{"code": "X", "message": "m"}, {"code": "X", "type": "OTHER"}, {"type": "ISV"}]
)
def test_incomplete_flat_error_is_unreadable(error: dict[str, Any]) -> None:
    with pytest.raises(AnswerUnreadableError):
        read(text(error))


@pytest.mark.parametrize(
    "body", ["[" + "{}," * 1_000_001 + "{}]", "<a>" + "<b/>" * 2_000_001 + "</a>"], ids=len
)
def test_an_answer_of_countless_parts_is_refused_before_it_is_parsed(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr("airflow_provider_lingyang.gateway.answer_parser._parse_json", never)
    monkeypatch.setattr("airflow_provider_lingyang.gateway.answer_parser._parse_xml", never)
    with pytest.raises(AnswerUnreadableError):
        read(body)


@pytest.mark.parametrize("code", [400, "400", None])
def test_a_refusal_s_code_may_be_a_number_or_absent(code: Any) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        receipt(text({"result": {"success": False, "code": code}}))
    assert caught.value.code == (None if code is None else "400")


# --- answers: clock -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s ahead of"), (754, "754 s ahead of"), (-86400, "86400 s behind")],
)
def test_refused_timestamp_reports_the_clock_offset(seconds: int, words: str) -> None:
    here = NOON + timedelta(seconds=seconds)
    with pytest.raises(CallRefusedError) as caught:
        read('{"error_response":{"code":31}}', date="Tue, 12 Mar 2024 06:00:00 GMT", now=here)
    assert f"This machine's clock is {words} the Date header" in str(caught.value)
    assert "NTP" in str(caught.value)


@pytest.mark.parametrize(
    "date", [None, "", "yesterday", "Tue, 99 Mar 2024 06:00:00 GMT", "Tue, 12 Mar 2024 06:00:00 -0000"]
)
def test_a_date_header_that_cannot_be_read_is_not_needed(date: str | None) -> None:
    with pytest.raises(CallRefusedError, match="NTP") as caught:
        read('{"error_response":{"code":31}}', date=date, now=NOON)
    assert "Date header" not in str(caught.value)


def test_other_errors_do_not_mention_the_clock() -> None:
    with pytest.raises(CallRefusedError) as caught:
        read('{"error_response":{"code":25}}', date="Tue, 12 Mar 2019 06:00:00 GMT", now=NOON)
    assert "clock" not in str(caught.value)


# --- answers: none --------------------------------------------------------------------------------------------

CANARY = "31337"
DEEP_XML = "<a>" * 100 + CANARY + "</a>" * 100
ENTITIES = '<!DOCTYPE r [<!ENTITY e "31337">]><error_response><code>7</code><msg>&e;</msg></error_response>'
UNREADABLE: list[tuple[str, bytes | str, str, str]] = [
    ("nothing", "", "", "empty"),
    ("blank", " \n", "", "empty"),
    ("page", f"<html><body>{CANARY}</body></html>", "text/html", "HTML"),
    ("doctype page", f"<!DOCTYPE html><p>{CANARY}", "text/html; charset=gbk", "HTML"),
    ("page by its type", f"oops {CANARY}", "Text/HTML", "HTML"),
    ("half of it", text({ROOT: WRAPPED, "x": CANARY})[:-9], "", "JSON that is damaged"),
    ("list", f'["{CANARY}"]', "", "JSON that is damaged or of another shape"),
    ("text", f'"{CANARY}"', "", "neither JSON nor XML"),
    ("number", CANARY, "", "neither JSON nor XML"),
    ("null", "null", "", "neither"),
    ("not a number", '{"a_response": NaN}', "", "another shape"),
    ("words", f"Bad Gateway {CANARY}", "text/plain", "neither JSON nor XML"),
    ("empty object", "{}", "", "another shape"),
    ("somebody's JSON", f'{{"message":"Forbidden {CANARY}"}}', "application/json", "another shape"),
    ("somebody's JSON error", f'{{"error":{{"code":7,"message":"{CANARY}"}}}}', "", "another shape"),
    ("root that is text", f'{{"a_response":"{CANARY}"}}', "", "another shape"),
    ("root that is a list", '{"a_response":[]}', "", "another shape"),
    ("root that is null", '{"a_response":null}', "", "another shape"),
    ("error that is text", f'{{"error_response":"{CANARY}"}}', "", "another shape"),
    ("error that is a list", '{"error_response":[{"code":7}]}', "", "another shape"),
    (
        "error that is text beside a success",
        text({ROOT: WRAPPED, "error_response": CANARY}),
        "",
        "another shape",
    ),
    ("gbk", text({ROOT: {"result": CANARY + "张三"}}).encode("gbk"), "", "not in UTF-8"),
    ("binary", b"\x1f\x8b\x08\xff\xfe" + CANARY.encode(), "", "not in UTF-8"),
    ("endless list", "[" * 100_000, "", "JSON that is damaged"),
    ("endless object", '{"a":' * 100_000, "", "JSON that is damaged"),
    (
        "number of a million digits",
        '{"a_response":{"n":' + "9" * 1_000_000 + "}}",
        "",
        "JSON that is damaged",
    ),
    ("half of the XML", xml(ROOT, WRAPPED)[:-9], "text/xml", "XML that is damaged"),
    ("deep XML", DEEP_XML, "text/xml", "XML that is damaged or of another shape"),
    (
        "deep XML answer",
        "<a_response>" + "<a>" * 50_000 + "</a>" * 50_000 + "</a_response>",
        "text/xml",
        "XML",
    ),
    ("XML of somebody else", f"<note>{CANARY}</note>", "text/xml", "XML that is damaged or of another shape"),
    ("XML root that is text", f"<error_response>{CANARY}</error_response>", "text/xml", "XML"),
    ("XML with entities", ENTITIES, "text/xml", "XML"),
    ("XML with a doctype", '<!DOCTYPE r SYSTEM "file:///etc/passwd"><r/>', "text/xml", "XML"),
    ("XML with unknown entities", "<error_response><msg>&nbsp;</msg></error_response>", "text/xml", "XML"),
    (
        "XML in an unknown encoding",
        '<?xml version="1.0" encoding="x-none"?><error_response/>',
        "text/xml",
        "XML",
    ),
    ("XML in GBK", '<?xml version="1.0" encoding="gbk"?><error_response/>', "text/xml", "XML"),
]


@pytest.mark.parametrize(
    ("body", "content_type", "kind"), [row[1:] for row in UNREADABLE], ids=[r[0] for r in UNREADABLE]
)
def test_unreadable_answer_is_reported_by_kind_and_size_only(
    body: bytes | str, content_type: str, kind: str
) -> None:
    with pytest.raises(AnswerUnreadableError) as caught:
        read(body, content_type=content_type)
    size = len(body.encode() if isinstance(body, str) else body)
    assert "HTTP 200, " in str(caught.value)
    assert kind in str(caught.value)
    assert f"{size} bytes" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.replay is Replay.AMBIGUOUS
    assert "look the biz_ids up" in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_entities_are_never_expanded_not_even_a_billion_of_them() -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    body = f'<!DOCTYPE r [<!ENTITY l0 "ha">{levels}]><error_response><msg>&l11;</msg></error_response>'
    with pytest.raises(AnswerUnreadableError):
        read(body)
    with pytest.raises(AnswerUnreadableError):
        read(body.encode("utf-16"))


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (301, "Redirects are not followed"),
        (302, "Redirects are not followed"),
        (403, "proxy or login page"),
        (404, "host is the gateway"),
        (413, "lower batch_size"),
        (429, "max_requests_per_second"),
        (500, "in trouble"),
        (502, "in trouble"),
        (503, "in trouble"),
    ],
)
@pytest.mark.parametrize(
    "body", ["", "<html></html>", text({ROOT: WRAPPED})], ids=["empty", "HTML", "a success"]
)
def test_another_status_is_ambiguous_even_over_a_success(status: int, advice: str, body: str) -> None:
    with pytest.raises(AnswerUnreadableError, match=f"HTTP {status}") as caught:
        read(body, status)
    assert advice in str(caught.value)
    assert caught.value.replay is Replay.AMBIGUOUS


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"result": None},
        {"result": {}},
        {"result": CANARY},
        {"result": [CANARY]},
        {"result": {"success": None}},
        {"result": {"success": "yes"}},
        {"result": {"success": 1}},
        {"result": {"success": []}},
        {"result": {"success": {"x": CANARY}}},
        {"time": CANARY},
        {CANARY: CANARY},
        {"success": True},
        {"result": {"success": True, "data": CANARY}},
        {"result": {"success": True, "data": [CANARY]}},
        {"result": {"success": True, "data": [[{"task_id": 1}]]}},
        {"result": {"success": True, "data": [{"task_id": f"T-{CANARY}"}]}},
        {"result": {"success": True, "data": [{"task_id": 1, "task_request": CANARY}]}},
        {"result": {"success": True, "data": [{"task_id": 1, "task_request": {"biz_id": [CANARY]}}]}},
        {"result": {"success": True, "data": [{"task_id": 1, "task_request": {"biz_id": True}}]}},
    ],
    ids=str,
)
def test_a_receipt_that_does_not_say_what_happened_is_ambiguous(payload: dict[str, Any]) -> None:
    with pytest.raises(AnswerUnreadableError) as caught:
        read_receipt(Answer(payload, "r1", NOTHING))
    assert caught.value.replay is Replay.AMBIGUOUS
    assert caught.value.request_id == "r1"
    assert CANARY not in str(caught.value)


def test_values_of_the_request_never_come_back_in_a_refusal() -> None:
    request = InitiativeBatchTaskRequest.model_validate(
        {
            "task_unique_code": "c",
            "plan_id": 1,
            "task_list": [
                {"phone_number": "10000000001", "input_params": {"n": "张三"}, "output_params": {}}
            ],
        }
    )
    scrub = Scrubber({SUBMIT_PARAM: request.to_json()}, {})
    shown = []
    for body in (
        {"error_response": {"code": 15, "sub_msg": "10000000001 张三", "request_id": "10000000001"}},
        {"error_response": {"code": "10000000001", "sub_code": "isv.10000000001", "msg": "张三"}},
        {"result": {"success": False, "code": "10000000001", "message": "张三"}, "request_id": "10000000001"},
        {"result": {"10000000001": 1}, "request_id": "10000000001"},
        {"10000000001": {}, "request_id": "10000000001"},
    ):
        with pytest.raises(LingyangError) as caught:
            read_receipt(read(text(body), scrub=scrub))
        shown.append(str(caught.value) + repr(vars(caught.value)))
    assert "10000000001" not in "".join(shown)
    assert "张三" not in "".join(shown)
    assert "<phone_number> <n>" in shown[0]
