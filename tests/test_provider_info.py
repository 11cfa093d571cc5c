"""A wrong provider info breaks ``import airflow`` for everybody in the environment."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperatorLink

import airflow_provider_lingyang
from airflow_provider_lingyang.get_provider_info import get_provider_info
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from tests.conftest import AirflowCli

INFO = get_provider_info()
PACKAGE = Path(airflow_provider_lingyang.__file__).parent
SCHEMAS = [Path(folder, "provider_info.schema.json") for folder in airflow.__path__]


def test_provider_info_fits_airflows_schema_without_unknown_keys() -> None:
    (schema,) = [json.loads(path.read_text()) for path in SCHEMAS if path.exists()]
    jsonschema.validate(INFO, schema)
    # The schema lets misspelt keys pass. Airflow 2.11's names only some of what Airflow itself reads.
    unnamed = {
        "integrations",
        "hooks",
        "operators",
        "sensors",
        "transfers",
        "asset-uris",
        "dataset-uris",
        "cli",
    }
    assert set(INFO) <= {*schema["properties"], *unnamed}


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


def test_every_link_on_disk_is_listed_and_the_other_way_round() -> None:
    on_disk = {
        f"airflow_provider_lingyang.links.{path.stem}.{name}"
        for path in (PACKAGE / "links").glob("lingyang*.py")
        for name, found in vars(
            importlib.import_module(f"airflow_provider_lingyang.links.{path.stem}")
        ).items()
        if isinstance(found, type) and issubclass(found, BaseOperatorLink) and found is not BaseOperatorLink
    }
    assert set(INFO["extra-links"]) == on_disk != set()


def test_asset_uris_are_handled_by_what_there_is_under_both_of_airflows_names_for_them() -> None:
    assert INFO["asset-uris"] == INFO["dataset-uris"]
    for item in INFO["asset-uris"]:
        module, name = item["handler"].rsplit(".", 1)
        assert callable(getattr(importlib.import_module(module), name))


def test_provider_info_lists_each_part_that_airflow_knows() -> None:
    told = {"hooks", "operators", "sensors", "triggers", "transfers", "links", "assets", "decorators", "cli"}
    keys = {"links": "extra-links", "assets": "asset-uris", "decorators": "task-decorators"}
    there = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} & told
    assert {keys.get(part, part) for part in there} <= set(INFO)


@pytest.mark.proof  # it starts an Airflow
def test_airflows_command_line_shows_what_is_provided(tmp_path: Path) -> None:
    commands = [["get", INFO["package-name"], "--full"], ["hooks"], ["triggers"], ["links"]]
    # One process for all of them: each takes seconds to start.
    code = (
        "import sys; from airflow.__main__ import main\n"
        f"for what in {commands!r}:\n"
        "    sys.argv = ['airflow', 'providers', *what, '--output', 'json']\n"
        "    main()\n"
        "    print()\n"
    )
    cli = AirflowCli(tmp_path)
    ran = cli.command([cli.python, "-c", code], cli.env)
    shown = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("[{")]
    assert len(shown) == len(commands), ran.stdout[-5000:]
    (full,), hooks, triggers, links = shown
    assert set(INFO) <= set(full)
    assert [full[key] for key in ("package-name", "name")] == [INFO["package-name"], INFO["name"]]
    (hook,) = [hook for hook in hooks if hook["connection_type"] == "lingyang"]
    assert hook["class"] == INFO["connection-types"][0]["hook-class-name"]
    assert hook["conn_id_attribute_name"] == LingyangHook.conn_name_attr
    assert hook["hook_name"] == LingyangHook.hook_name
    assert INFO["triggers"][0]["python-modules"][0] in str(triggers)
    assert {link["extra_link_class_name"] for link in links} >= set(INFO["extra-links"])


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


def test_an_option_that_is_not_set_has_its_default() -> None:
    from airflow_provider_lingyang.config import options

    for name, option in INFO["config"]["lingyang"]["options"].items():
        assert str(getattr(options, name)()) == option["default"]


def test_the_metadata_names_each_python_that_is_promised_and_no_address_that_is_not_there() -> None:
    metadata = importlib.metadata.metadata(INFO["package-name"])
    classifiers = metadata.get_all("Classifier") or []
    assert {"Framework :: Apache Airflow", "Framework :: Apache Airflow :: Provider", "Typing :: Typed"} <= {
        *classifiers
    }
    least = tuple(map(int, metadata["Requires-Python"].removeprefix(">=").split(".")))
    named = [c.rpartition(" ")[2] for c in classifiers if re.search(r"Python :: 3\.\d+$", c)]
    assert tuple(map(int, named[0].split("."))) == least
    assert [minor for _, minor in (tuple(map(int, one.split("."))) for one in named)] == list(
        range(least[1], least[1] + len(named))
    )
    assert (PACKAGE / "py.typed").exists()
    for url in metadata.get_all("Project-URL") or []:
        assert url.partition(", ")[2].startswith("https://")
