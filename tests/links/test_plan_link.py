"""The link to a plan: an address of the connection's, left by the task, and never worth a failure."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator

from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.links import lingyang as links
from airflow_provider_lingyang.links.lingyang import LingyangPlanLink
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.transfers.lingyang_to_sql import LingyangToSqlOperator
from tests.conftest import Run

PEOPLE = [{"biz_id": "A1", "phone_number": "10000000001", "input_params": {}, "output_params": {}}]


def submit() -> LingyangSubmitBatchOperator:
    return LingyangSubmitBatchOperator(task_id="submit", plan_id=123, audience=PEOPLE)


def connect(
    monkeypatch: pytest.MonkeyPatch, console_url: object, sandbox: SandboxProcess | None = None
) -> None:
    base: Mapping[str, Any] = {
        "conn_type": "lingyang",
        "host": "https://x/",
        "login": "a",
        "password": "b",
        "extra": {},
    }
    conn = sandbox.connection() if sandbox else base
    conn = {**conn, "extra": {**conn["extra"], "console_url": console_url}}
    monkeypatch.setenv("AIRFLOW_CONN_LINGYANG_DEFAULT", json.dumps(conn))


@pytest.mark.parametrize(
    ("template", "url"),
    [
        (None, None),
        ("", None),
        (" https://console.example/plans/{plan_id} ", "https://console.example/plans/123"),
        (
            "http://127.0.0.1:8080/#/plan?id={plan_id}&of={plan_id}",
            "http://127.0.0.1:8080/#/plan?id=123&of=123",
        ),
        ("https://console.example/", "https://console.example/"),
        ("https://console.example/{{x}}/{plan_id}", "https://console.example/{x}/123"),
    ],
)
def test_the_address_is_the_connections_with_the_plan_in_its_place(
    monkeypatch: pytest.MonkeyPatch, template: object, url: str | None
) -> None:
    connect(monkeypatch, template)
    assert LingyangHook().plan_url(123) == url


@pytest.mark.parametrize(
    "template",
    [
        "javascript:alert({plan_id})",
        "ftp://console.example/{plan_id}",
        "console.example/{plan_id}",
        "https:///plans/{plan_id}",
        "https://[::1/{plan_id}",
        "https://user:CANARY@console.example/{plan_id}",
        "https://console.example/{plan}",
        "https://console.example/{}",
        "https://console.example/{0}",
        "https://console.example/{plan_id",
        "https://console.example/plan_id}",
        "https://console.example/{plan_id.__class__}",
        "https://console.example/{plan_id!r}",
        "https://console.example/{plan_id:>1000000}",
        "https://console.example/ {plan_id}",
        "https://console.example/\n{plan_id}",
        5,
        ["https://console.example"],
    ],
)  # fmt: skip
def test_wrong_console_url_is_an_error_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, template: object
) -> None:
    connect(monkeypatch, template)
    with pytest.raises(
        LingyangConfigError, match="'lingyang_default': console_url must be an address such as"
    ) as caught:
        LingyangHook().plan_url(123)
    assert "CANARY" not in str(caught.value)


def test_address_is_pushed_before_sending(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "https://console.example/{plan_id}", sandbox)
    sandbox.add_fault(kind="error", code="25", msg="Invalid signature", sub_code=None)
    run.fails(submit())
    assert run.xcom["submit", "plan_url"] == run.manifest()["plan_url"] == "https://console.example/123"


@pytest.mark.parametrize("template", [None, "javascript:x"])
def test_wrong_or_missing_address_does_not_stop_sending(
    sandbox: SandboxProcess,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    template: object,
) -> None:
    connect(monkeypatch, template, sandbox)
    with caplog.at_level(logging.WARNING):
        assert run.execute(submit())["counts"]["accepted"] == 1
    assert ("submit", "plan_url") not in run.xcom
    assert ("no link to the plan" in caplog.text) is (template is not None)


def test_link_that_cannot_be_pushed_does_not_stop_sending(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "https://console.example/{plan_id}", sandbox)
    context = run.context("submit")
    push = context["ti"].xcom_push

    def failing(key: str, value: Any) -> None:
        if key == LingyangPlanLink.key:
            raise OSError
        push(key, value)

    context["ti"].xcom_push = failing
    assert submit().execute(context)["counts"]["accepted"] == 1


class Stored:
    """What Airflow keeps: a value, or an exception that reading it raises."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def get_value(self, *, key: str, ti_key: Any) -> Any:
        assert (key, ti_key) == ("plan_url", "the instance")
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "link"), [("https://x/1", "https://x/1"), (None, ""), ("", ""), (RuntimeError("away"), "")]
)
def test_link_reads_the_pushed_address_only(monkeypatch: pytest.MonkeyPatch, found: Any, link: str) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the connection was read")

    monkeypatch.setattr(BaseHook, "get_connection", never)
    monkeypatch.setattr(links, "XCom", Stored(found))
    one = LingyangPlanLink()
    assert one.get_link(BaseOperator(task_id="t"), ti_key="the instance") == link
    # On the worker, where to read an XCom that is not there is an error in the log.
    assert one.get_link(LingyangResultSensor(task_id="w", biz_ids=["1"]), ti_key=None) == ""
    # Where Airflow 3's API server reads it.
    assert one.xcom_key == one.key


def test_all_operators_have_the_link() -> None:
    for kind in (LingyangSubmitBatchOperator, LingyangResultSensor, LingyangToSqlOperator):
        assert [type(link) for link in kind.operator_extra_links] == [LingyangPlanLink]
