"""The connection, and the calls through it."""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.errors import (
    LingyangConfigError,
    RequestInvalidError,
    RequestRefusedError,
)
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest
from airflow_provider_lingyang.hooks import lingyang
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.sandbox.process import SandboxProcess

GOOD: dict[str, Any] = {
    "conn_type": "lingyang",
    "host": "https://eco.taobao.com/router/rest",
    "login": "app-key",
    "password": "CANARY-app-secret",
    "extra": {"session_token": "CANARY-session/token", "result_query": {}},
}
TASK = {
    "biz_id": "B1",
    "phone_number": "10000000001",
    "input_params": {"name": "张三"},
    "output_params": {"a": ""},
}
BATCH = {"task_unique_code": "c1", "batch_num": "1", "plan_id": 123, "task_list": [TASK]}


def connect(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> LingyangHook:
    monkeypatch.setenv("AIRFLOW_CONN_CASE", json.dumps(GOOD | changes))
    return LingyangHook("case")


def test_a_connection_becomes_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "session_token": "s",
        "sign_method": "md5",
        "timeout": "7.5",
        "max_attempts": 2,
        "max_requests_per_second": 3,
    }
    hook = connect(monkeypatch, extra=extra)
    settings = hook.settings
    assert (settings.url, settings.app_key, settings.app_secret) == (
        GOOD["host"],
        "app-key",
        GOOD["password"],
    )
    assert (settings.session_token, settings.sign_method, settings.timeout, settings.max_attempts) == (
        "s",
        "md5",
        7.5,
        2,
    )
    assert hook.max_requests_per_second == 3
    assert hook.result_query is None


def test_defaults_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = connect(monkeypatch, extra={})
    settings = hook.settings
    assert (settings.session_token, settings.sign_method, settings.timeout, settings.max_attempts) == (
        None,
        "hmac-sha256",
        30.0,
        3,
    )
    assert hook.max_requests_per_second is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"host": ""}, "must be a full one"),
        ({"host": "eco.taobao.com"}, "must be a full one"),
        ({"host": "http://eco.taobao.com/router/rest"}, "plain http is allowed to this machine only"),
        ({"host": "http://127.0.0.1.evil.example/x"}, "plain http is allowed to this machine only"),
        ({"host": "https://user:pw@eco.taobao.com/router/rest"}, "no user, password"),
        ({"host": "https://eco\0.taobao.com/"}, "holds a character that cannot be printed|cannot be read"),
        ({"host": "https://\ud800/"}, "holds a character that cannot be printed|cannot be read"),
        ({"password": "\ud800"}, "the app_secret holds half a character|cannot be read"),
        ({"extra": {"session_token": "\ud800"}}, "the session_token holds half a character|cannot be read"),
        ({"login": ""}, "App key is missing"),
        ({"password": ""}, "App secret is missing"),
        ({"port": 443}, "leave port and schema empty"),
        ({"conn_type": "http"}, "of type 'http', not 'lingyang'"),
        ({"extra": {"sign_method": "sha1"}}, "unknown sign_method 'sha1': use one of hmac-sha256, hmac, md5"),
        ({"extra": {"timeout": "soon"}}, "timeout must be a number"),
        ({"extra": {"timeout": 0}}, "timeout must be more than 0"),
        ({"extra": {"timeout": "nan"}}, "timeout must be more than 0"),
        ({"extra": {"max_attempts": True}}, "max_attempts must be a number"),
        ({"extra": {"max_attempts": float("inf")}}, "max_attempts must be a number"),
        ({"extra": {"max_attempts": 2.9}}, "max_attempts must be a number"),
        ({"extra": {"max_attempts": 0}}, "max_attempts must be at least 1"),
        ({"extra": {"sesion_token": "CANARY"}}, "unknown sesion_token; it takes session_token"),
        ({"extra": ["CANARY"]}, "extra must be a JSON object|cannot be read"),
        ({"extra": "{CANARY"}, "extra must be a JSON object|cannot be read"),
        ({"extra": "[" * 100_000}, "extra must be a JSON object|cannot be read"),
    ],
)
def test_invalid_connection_is_an_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(LingyangConfigError) as caught:
        connect(monkeypatch, **changes).get_conn()
    assert re.search(expected, str(caught.value))
    assert "'case'" in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_a_slash_at_the_end_of_the_url_is_not_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect(monkeypatch, host=GOOD["host"] + "/ ").settings.url == GOOD["host"]


@pytest.mark.parametrize("request_", [None, [], "x"])
def test_a_request_that_is_none_is_an_error(request_: Any, sandbox: SandboxProcess) -> None:
    with pytest.raises(RequestInvalidError, match="must be a dict"):
        LingyangHook().submit_batch(request_)


def test_one_id_is_a_list_too(sandbox: SandboxProcess) -> None:
    with pytest.raises(RequestInvalidError, match="biz_ids must be a list"):
        LingyangHook().fetch_results("B1")


@pytest.mark.parametrize("rate", [0, True, -1, "fast", "inf", "nan", 1e-9, 1 / 3601])
def test_invalid_rate_limit_is_an_error(monkeypatch: pytest.MonkeyPatch, rate: Any) -> None:
    with pytest.raises(LingyangConfigError, match="max_requests_per_second must be at least 1/3600"):
        _ = connect(monkeypatch, extra={"max_requests_per_second": rate}).max_requests_per_second


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (
            {"lookup_settle": 0},
            r"lookup_settle \(0\) must be at least timeout \(30\): a request may be under way",
        ),
        ({"lookup_settle": 5, "timeout": 5.5}, r"lookup_settle \(5\) must be at least timeout \(5.5\)"),
        ({"lookup_settle": -1}, "lookup_settle must be a number of seconds up to 86400"),
        ({"lookup_settle": "nan"}, "lookup_settle must be a number"),
    ],
)
def test_lookup_settle_below_the_timeout_is_refused(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], expected: str
) -> None:
    with pytest.raises(LingyangConfigError, match=expected):
        _ = connect(monkeypatch, extra=extra).lookup_settle


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, 60),
        ({"timeout": 5}, 30),
        ({"timeout": 5, "lookup_settle": ""}, 30),
        ({"timeout": 5, "lookup_settle": "5"}, 5),
    ],
)
def test_lookup_settle_defaults_to_30_seconds_or_twice_the_timeout(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], expected: float
) -> None:
    assert connect(monkeypatch, extra=extra).lookup_settle == expected


def test_a_missing_connection_is_an_error_that_says_how_to_make_one() -> None:
    with pytest.raises(
        LingyangConfigError, match="'nowhere' is not defined, or cannot be read: create it with type lingyang"
    ):
        LingyangHook("nowhere").get_conn()


def test_a_misspelt_key_of_the_result_query_is_named_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = {"method": "m", "biz_ids_field": "ids", "items_path": "x", "biz_id_feld": "biz_id"}
    with pytest.raises(
        LingyangConfigError, match=r"'biz_id_feld' is no key of it .did you mean 'biz_id_field'\?"
    ):
        _ = connect(monkeypatch, extra={"result_query": query}).result_query


def test_every_credential_is_masked_also_as_it_stands_in_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []
    monkeypatch.setattr(lingyang, "mask_secret", masked.append)
    hook = connect(monkeypatch)
    hook.get_conn()
    assert {"CANARY-app-secret", "CANARY-session/token", "CANARY-session%2Ftoken"} <= set(masked)
    assert "CANARY" not in repr(hook.settings)


def test_hook_reads_no_connection_before_the_first_call() -> None:
    LingyangHook("nowhere")


def test_submit_and_look_up(sandbox: SandboxProcess) -> None:
    hook = LingyangHook()
    receipt = hook.submit_batch(BATCH)
    assert set(receipt.task_ids) == {"B1"}
    found = hook.fetch_results(["B1", "nobody"])
    assert set(found) == {"B1"}
    assert set(found["B1"].output_params) == {"a"}
    assert found["B1"].task_id == str(receipt.task_ids["B1"])
    hook.close()
    assert sandbox.record()["executions"]["by_biz_id"] == {"B1": 1}


def test_a_task_that_returns_a_receipt_stores_ids_and_nobodys_contact(sandbox: SandboxProcess) -> None:
    try:
        serde = importlib.import_module("airflow.sdk.serde")
    except ImportError:  # where it was
        serde = importlib.import_module("airflow.serialization.serde")
    receipt = LingyangHook().submit_batch(BATCH)
    stored = receipt.serialize()
    assert stored == {"task_ids": receipt.task_ids, "request_id": receipt.request_id}
    assert receipt.request_id
    for told in (repr(receipt), json.dumps(serde.serialize(receipt))):
        assert BATCH["task_list"][0]["phone_number"] not in told


def test_a_model_is_submitted_as_well_as_a_dict(sandbox: SandboxProcess) -> None:
    model = InitiativeBatchTaskRequest.model_validate(BATCH)
    assert set(LingyangHook().submit_batch(model).task_ids) == {"B1"}


def test_an_invalid_request_names_its_fields_and_is_not_sent(sandbox: SandboxProcess) -> None:
    with pytest.raises(RequestInvalidError) as caught:
        LingyangHook().submit_batch({**BATCH, "task_list": [TASK | {"phone_number": "CANARY"}], "plan": 1})
    assert "task_list.0.phone_number is not a phone number" in str(caught.value)
    assert "plan is not a field" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert sandbox.record()["requests"] == []


def test_a_refusal_keeps_the_platforms_facts_and_loses_the_customers_data(sandbox: SandboxProcess) -> None:
    sandbox.add_fault(kind="echo_values", times=None)
    with pytest.raises(RequestRefusedError) as caught:
        LingyangHook().submit_batch(BATCH)
    error = caught.value
    assert error.request_id
    assert error.sub_code
    assert "<phone_number>" in str(error)
    assert TASK["phone_number"] not in str(error)


@pytest.mark.parametrize("sign_method", ["hmac-sha256", "hmac", "md5"])
def test_any_method_can_be_called_with_every_sign_method(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, sign_method: str
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(sandbox.connection(sign_method=sign_method))
    )
    hook = LingyangHook()
    assert hook.call("taobao.time.get")["time"]
    struct = BATCH | {
        "task_list": [TASK | {name: json.dumps(TASK[name]) for name in ("input_params", "output_params")}]
    }
    answer = hook.call(
        "alibaba.lingyang.utouch.submit.initiative.batch.task", {"initiative_batch_task_request": struct}
    )
    assert answer["result"]["success"] is True


@pytest.mark.parametrize(
    ("method", "params"), [(None, {}), (3, {}), ("taobao.time.get", ["x"]), ("taobao.time.get", {1: "x"})]
)
def test_invalid_call_is_refused_before_sending(method: Any, params: Any) -> None:
    with pytest.raises(RequestInvalidError, match="call takes"):
        LingyangHook().call(method, params)


def test_a_parameter_that_cannot_be_written_is_an_error_and_not_sent(sandbox: SandboxProcess) -> None:
    with pytest.raises(RequestInvalidError, match="holds a value that JSON cannot hold"):
        LingyangHook().call("taobao.time.get", {"x": {"a": b"CANARY"}})
    assert sandbox.record()["requests"] == []


def test_without_a_result_query_a_look_up_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LingyangConfigError, match="describes no result_query"):
        connect(monkeypatch, extra={}).fetch_results(["1"])
