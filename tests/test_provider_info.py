"""A wrong provider info breaks ``import airflow`` for everybody in the environment."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook

import airflow_provider_lingyang
from airflow_provider_lingyang.get_provider_info import get_provider_info
from airflow_provider_lingyang.hooks.lingyang import LingyangHook

INFO = get_provider_info()
PACKAGE = Path(airflow_provider_lingyang.__file__).parent
SCHEMAS = [Path(folder, "provider_info.schema.json") for folder in airflow.__path__]


def test_it_fits_airflows_own_schema_and_has_no_key_that_airflow_does_not_know() -> None:
    (schema,) = [json.loads(path.read_text()) for path in SCHEMAS if path.exists()]
    jsonschema.validate(INFO, schema)
    # The schema lets misspelt keys pass. Airflow 2.11's names only what Airflow itself reads.
    assert set(INFO) <= {*schema["properties"], "integrations", "hooks", "operators", "sensors", "transfers"}


def test_the_distribution_is_named_as_its_metadata_says() -> None:
    distribution = importlib.metadata.distribution(INFO["package-name"])
    assert distribution.metadata["Name"] == INFO["package-name"]
    assert distribution.version == airflow_provider_lingyang.__version__
    (entry,) = [e for e in distribution.entry_points if e.group == "apache_airflow_provider"]
    assert entry.load()() == INFO


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "transfers", "triggers"])
def test_every_module_on_disk_is_listed_and_the_other_way_round(kind: str) -> None:
    listed = {
        module
        for item in INFO[kind]
        for module in ([item["python-module"]] if kind == "transfers" else item["python-modules"])
    }
    on_disk = {
        f"airflow_provider_lingyang.{kind}.{path.stem}" for path in (PACKAGE / kind).glob("lingyang*.py")
    }
    assert listed == on_disk
    for module in listed:
        importlib.import_module(module)


def test_task_decorators_are_what_the_modules_on_disk_offer() -> None:
    listed = {}
    for item in INFO["task-decorators"]:
        module, name = item["class-name"].rsplit(".", 1)
        listed[item["name"]] = module
        assert callable(getattr(importlib.import_module(module), name))
    on_disk = {
        f"airflow_provider_lingyang.decorators.{path.stem}"
        for path in (PACKAGE / "decorators").glob("lingyang*.py")
    }
    assert set(listed) == {"lingyang_submit_batch"}
    assert set(listed.values()) == on_disk


def test_transfers_lead_between_integrations_that_there_are() -> None:
    from airflow.providers.common.sql.get_provider_info import get_provider_info as common_sql

    names = {item["integration-name"] for info in (INFO, common_sql()) for item in info["integrations"]}
    for item in INFO["transfers"]:
        assert {item["source-integration-name"], item["target-integration-name"]} <= names


def test_connection_types_name_their_hooks() -> None:
    for item in INFO["connection-types"]:
        module, name = item["hook-class-name"].rsplit(".", 1)
        hook: Any = getattr(importlib.import_module(module), name)
        assert (hook.conn_type, hook.hook_name) == (item["connection-type"], item["hook-name"])


def test_airflow_lists_the_provider_and_finds_the_hook_of_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow.providers_manager import ProvidersManager

    assert INFO["package-name"] in ProvidersManager().providers
    monkeypatch.setenv("AIRFLOW_CONN_L", '{"conn_type": "lingyang", "host": "https://x/"}')
    hook = BaseHook.get_connection("l").get_hook()
    assert isinstance(hook, LingyangHook)
    assert hook.lingyang_conn_id == "l"


def test_the_declared_options_have_the_defaults_that_the_code_falls_back_to() -> None:
    from airflow_provider_lingyang.config import IDS_LIMIT

    assert INFO["config"]["lingyang"]["options"]["xcom_ids_limit"]["default"] == str(IDS_LIMIT)
