"""Each way that Airflow has to be told a connection ends in the same settings."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.sandbox import APP_KEY, APP_SECRET
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from tests.conftest import AirflowCli

EXTRA = {"sign_method": "md5", "timeout": 7, "lookup_settle": 9, "dedupes_by_code": True}


def as_uri(sandbox: SandboxProcess) -> str:
    """As the README writes it: the gateway's URL quoted, since Airflow takes what follows a slash for a schema."""
    query = EXTRA | {"dedupes_by_code": "true", "result_query": json.dumps(RESULT_QUERY)}
    return f"lingyang://{APP_KEY}:{APP_SECRET}@{quote(sandbox.url, safe='')}?{urlencode(query)}"


def as_json(sandbox: SandboxProcess) -> str:
    return json.dumps(sandbox.connection(**EXTRA))


def as_airflow_writes_it(sandbox: SandboxProcess) -> str:
    from airflow.models.connection import Connection

    return Connection.from_json(as_json(sandbox), conn_id="case").get_uri()


def means_the_same(sandbox: SandboxProcess) -> None:
    hook = LingyangHook("case")
    settings = hook.settings
    assert (settings.url, settings.app_key, settings.app_secret) == (sandbox.url, APP_KEY, APP_SECRET)
    assert (settings.sign_method, settings.timeout) == ("md5", 7.0)
    assert (hook.lookup_settle, hook.read("dedupes_by_code").dedupes_by_code) == (9.0, True)
    assert hook.result_query is not None
    assert hook.result_query.model_dump(mode="json", exclude_unset=True) == RESULT_QUERY


@pytest.mark.parametrize("shape", [as_uri, as_json, as_airflow_writes_it])
def test_a_variable_of_the_environment_may_be_a_uri_or_json(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, shape: Any
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CASE", shape(sandbox))
    means_the_same(sandbox)
    works, sentence = LingyangHook("case").test_connection()
    assert works
    assert sentence.startswith("The gateway accepts the App key and the signature")


def test_a_url_that_a_uri_took_apart_is_an_error_that_says_how_to_write_it(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CASE", "lingyang://https://key:secret@eco.taobao.com/router/rest")
    works, sentence = LingyangHook("case").test_connection()
    assert not works
    assert "leave port and schema empty (in a URI, write its / as %2F and its : as %3A)" in sentence


def test_the_command_line_stores_a_connection_from_a_uri_or_from_json_and_tests_it(
    sandbox: SandboxProcess, airflow_cli: AirflowCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_cli.env["AIRFLOW__CORE__TEST_CONNECTION"] = "Enabled"
    exported = airflow_cli.home / "connections.json"
    for command in (
        ["add", "from_uri", "--conn-uri", as_uri(sandbox)],
        ["add", "from_json", "--conn-json", as_json(sandbox)],
        ["export", str(exported)],
    ):
        ran = airflow_cli("connections", *command)
        assert ran.returncode == 0, ran.stdout[-3000:]
    stored = json.loads(exported.read_text())
    for name in ("from_uri", "from_json"):
        monkeypatch.setenv("AIRFLOW_CONN_CASE", json.dumps(stored[name]))
        means_the_same(sandbox)

    asked = airflow_cli("connections", "test", "from_uri")
    assert "Connection success!" in asked.stdout, asked.stdout[-3000:]
    assert APP_SECRET not in asked.stdout
    assert [request["method"] for request in sandbox.record()["requests"]] == ["taobao.time.get"]
