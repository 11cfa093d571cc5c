"""The connection form: one description for both ways in which Airflow asks for it, and what it sends."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TypedDict

import airflow
import jsonschema
import pytest

from airflow_provider_lingyang.config.connection import EXTRA_FIELDS
from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.signing import SIGN_METHODS
from airflow_provider_lingyang.get_provider_info import get_provider_info
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY
from tests.versions import AIRFLOW

(CONNECTION_TYPE,) = get_provider_info()["connection-types"]
ROOT = Path(__file__).parents[1]
declared = pytest.mark.skipif(AIRFLOW < (3, 2), reason="Airflow reads the form from the metadata since 3.2")
# Of Airflow 2, tests/airflow_2/connection_form.py looks at the pages.
mocked = pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow does without WTForms since 3.1")


@declared
def test_the_metadata_describes_the_form_as_airflows_schema_for_it_wants() -> None:
    # The schema of what Airflow reads lets anything pass there; this is the one that its own providers must fit.
    (path,) = [
        path for folder in airflow.__path__ if (path := Path(folder, "provider.yaml.schema.json")).exists()
    ]
    schema = json.loads(path.read_text())["properties"]["connection-types"]
    jsonschema.validate([CONNECTION_TYPE], schema)
    newer = set() if AIRFLOW >= (3, 3) else {"hook-name"}
    assert set(CONNECTION_TYPE) - newer <= set(schema["items"]["properties"])


def test_no_field_is_mandatory_because_airflow_would_insist_on_it() -> None:
    assert all("null" in field["schema"]["type"] for field in CONNECTION_TYPE["conn-fields"].values())


def test_every_sign_method_can_be_chosen_and_the_default_is_preset() -> None:
    schema = CONNECTION_TYPE["conn-fields"]["sign_method"]["schema"]
    assert tuple(schema["enum"]) == SIGN_METHODS
    assert schema["default"] == SIGN_METHODS[0]


def test_reading_the_metadata_imports_nothing_that_airflow_would_wait_for() -> None:
    code = "import sys; from airflow_provider_lingyang.get_provider_info import get_provider_info as get; get(); print([*sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    imported = {name.partition(".")[0] for name in ast.literal_eval(ran.stdout)}
    # Airflow 3, and the command line of Airflow 2, have imported pydantic by then.
    assert imported.isdisjoint({"airflow", "requests", "aiohttp", "wtforms", "flask_appbuilder"})
    assert "airflow_provider_lingyang" in imported


class FormField(TypedDict):
    value: object
    description: str | None
    schema: dict[str, object]


@pytest.fixture
def fields_of_airflow_3_1(monkeypatch: pytest.MonkeyPatch) -> dict[str, FormField]:
    """What Airflow 3.1 makes of the hook's widgets: it has no WTForms, and puts these classes into its place."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService as Meta

    wtforms, validators, fab, widgets = (
        ModuleType(name)
        for name in ("wtforms", "wtforms.validators", "flask_appbuilder", "flask_appbuilder.fieldwidgets")
    )
    for kind in ("String", "Integer", "Password", "Boolean"):
        setattr(wtforms, f"{kind}Field", getattr(Meta, f"Mock{kind}Field"))
    for kind in ("Text", "TextArea", "Password"):
        setattr(widgets, f"BS3{kind}FieldWidget", Meta.MockAnyWidget)
    vars(validators).update(Optional=Meta.MockOptional, any_of=Meta.MockEnum, ValidationError=ValueError)
    for module in (wtforms, validators, fab, widgets):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return {name: widget.param.dump() for name, widget in LingyangHook.get_connection_form_widgets().items()}


@mocked
def test_both_ways_to_describe_the_form_say_the_same(fields_of_airflow_3_1: dict[str, FormField]) -> None:
    assert list(fields_of_airflow_3_1) == list(CONNECTION_TYPE["conn-fields"]) == list(EXTRA_FIELDS)
    for name, new in CONNECTION_TYPE["conn-fields"].items():
        old = fields_of_airflow_3_1[name]
        schema, wanted = old["schema"], new["schema"]
        assert (schema["title"], old["description"]) == (new["label"], new["description"])
        assert old["value"] == wanted.get("default")
        assert (schema.get("format"), schema.get("enum")) == (wanted.get("format"), wanted.get("enum"))
        assert schema["type"] == wanted["type"] or (schema["type"], new["schema"]["type"][0]) == (
            ["string", "null"],
            "number",
        )


def test_both_ways_to_describe_what_airflow_has_itself_say_the_same() -> None:
    old, new = LingyangHook.get_ui_field_behaviour(), CONNECTION_TYPE["ui-field-behaviour"]
    assert {key.replace("_", "-"): value for key, value in old.items()} == new
    assert (old["hidden_fields"], old["relabeling"]["host"]) == (["schema", "port"], "Gateway URL")


@mocked
def test_airflow_shows_the_form() -> None:
    # In a process of its own, as the API server is: Airflow 3.1 stands in for its form library before it reads a hook.
    code = (
        "from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService\n"
        "for meta in HookMetaService.hook_meta_data():\n"
        "    if meta.connection_type == 'lingyang': print(meta.model_dump_json())"
    )
    ran = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    (shown,) = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert shown["standard_fields"]["login"]["title"] == "App key"
    assert tuple(shown["extra_fields"]) == EXTRA_FIELDS
    assert shown["extra_fields"]["session_token"]["schema"]["format"] == "password"
    assert shown["extra_fields"]["result_query"]["schema"]["type"] == ["object", "null"]


def connect(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> LingyangHook:
    connection = {
        "conn_type": "lingyang",
        "host": "https://eco.taobao.com/router/rest",
        "login": "app-key",
        "password": "app-secret",
        "port": 0,
        "schema": "",
        "extra": extra,
    }
    monkeypatch.setenv("AIRFLOW_CONN_CASE", json.dumps(connection))
    return LingyangHook("case")


@pytest.mark.parametrize(
    "extra",
    [
        {},
        dict.fromkeys(EXTRA_FIELDS),
        dict.fromkeys(EXTRA_FIELDS, ""),
        # What Airflow 3.3 shows of a field that takes an object.
        dict.fromkeys(EXTRA_FIELDS) | {"result_query": {}},
        dict.fromkeys(EXTRA_FIELDS) | {"result_query": [], "dedupes_by_code": False},
    ],
)
def test_empty_form_fields_mean_the_defaults(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> None:
    hook = connect(monkeypatch, extra)
    settings = hook.settings
    assert (settings.sign_method, settings.timeout, settings.max_attempts) == (SIGN_METHODS[0], 30.0, 3)
    assert settings.session_token is None
    assert (hook.max_requests_per_second, hook.lookup_settle, hook.result_query) == (None, 60.0, None)
    assert not hook.read("dedupes_by_code").dedupes_by_code


def test_text_in_a_form_field_equals_a_number_or_an_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = connect(
        monkeypatch,
        {
            "sign_method": "hmac",
            "timeout": "7.5",
            "max_attempts": "2",
            "max_requests_per_second": "0.5",
            "lookup_settle": "45",
            "dedupes_by_code": "true",
            "result_query": json.dumps(RESULT_QUERY, indent=2),
        },
    )
    settings = hook.settings
    assert (settings.sign_method, settings.timeout, settings.max_attempts) == ("hmac", 7.5, 2)
    assert (hook.max_requests_per_second, hook.lookup_settle) == (0.5, 45.0)
    assert hook.read("dedupes_by_code").dedupes_by_code is True
    assert hook.result_query is not None
    assert hook.result_query.method == RESULT_QUERY["method"]


def test_json_error_of_a_field_names_its_position(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LingyangConfigError, match=r"result_query: it is not JSON \(line 2, column 16\)"):
        _ = connect(monkeypatch, {"result_query": '{\n "method": "m",,}'}).result_query
