"""docs/fleet.md: its arithmetic is right, its figures are measured, its files fit their schemas."""

from __future__ import annotations

import ast
import copy
import json
import operator
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_provider_lingyang.audience.parser import RowParser
from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.audience.validation import Validation
from airflow_provider_lingyang.config.options import OPTIONS
from airflow_provider_lingyang.ledger.__main__ import command_line

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
FILES = [("values.yaml", "values.schema.json"), ("pod_template.yaml", "pod.schema.json")]
FREE = {"config", "requests", "limits"}
"""What their schemas take any keys below."""
OPERATORS = {ast.Mult: operator.mul, ast.Div: operator.truediv}


def value_of(expression: str) -> float:
    """What a product of numbers is; 1,000 is a thousand."""

    def of(node: ast.AST) -> float:
        if isinstance(node, ast.BinOp):
            return float(OPERATORS[type(node.op)](of(node.left), of(node.right)))
        assert isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        return float(node.value)

    return of(ast.parse(expression.replace(",", ""), mode="eval").body)


TABLE = re.findall(r"^\| ([^|]+) \| `([^`]+)` \| ([\d.,]+) \|$", PAGE, re.MULTILINE)
PROSE = re.findall(r"(`([\d.,]+(?: [*/] [\d.,]+)+)` = ([\d,]+))", PAGE)


@pytest.mark.parametrize(("what", "arithmetic", "result"), [*TABLE, *PROSE])
def test_arithmetic_gives_what_the_page_says(what: str, arithmetic: str, result: str) -> None:
    decimals = len(result.partition(".")[2])
    assert round(value_of(arithmetic), decimals) == float(result.replace(",", "")), what


def test_the_page_has_its_arithmetic() -> None:
    assert len(TABLE) >= 14
    assert len(PROSE) >= 4
    rows = PAGE.partition("| what | arithmetic | is |\n")[2].partition("\n\n")[0].splitlines()
    assert len(TABLE) == len(rows) - 1


def spooled(characters: int, recipients: int = 20_000) -> float:
    """Return the bytes of a spool for each recipient whose ``biz_id`` has so many characters."""
    parser = RowParser(
        columns={},
        task_defaults={},
        input_params_columns={"name": "customer"},
        output_slots=["intention"],
        channel="call",
        campaign="campaign/1",
        app_secret="secret",
    )
    read = parser.for_columns(["biz_id", "phone_number", "customer", "batch_num"])
    with AudienceStore() as audience:
        validation = Validation(audience)
        validation.read(
            read(number, [f"{number:0{characters}}", str(10**10 + number), "王先生", str(number % 12 + 1)])
            for number in range(1, recipients + 1)
        )
        validation.check(on_invalid="fail", on_duplicate_contact="warn", max_recipients=None)
        assert len(audience) == recipients
        (pages,), (size,) = audience.one("PRAGMA page_count"), audience.one("PRAGMA page_size")
    return pages * size / recipients


def test_a_spool_is_as_large_as_the_page_says() -> None:
    said = re.findall(r"\*\*(\d+) bytes(?: a recipient)?\*\* with (?:a `biz_id`|one) of (\d+)", PAGE)
    assert len(said) == 2
    for size, characters in said:
        assert spooled(int(characters)) == pytest.approx(float(size), rel=0.02)
    used = re.findall(r"spools? \| `[\d,]+ \* (\d+) /", PAGE)
    assert set(used) == {said[0][0]}


def documents(name: str) -> tuple[Any, Any]:
    file, schema = next(pair for pair in FILES if pair[0] == name)
    document = yaml.safe_load((ROOT / "docs" / "fleet" / file).read_text(encoding="utf-8"))
    return document, json.loads((Path(__file__).parent / schema).read_text(encoding="utf-8"))


def keys(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each key whose name a schema knows."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield (*path, name)
            if name not in FREE:
                yield from keys(value, (*path, name))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            yield from keys(value, (*path, position))


@pytest.mark.parametrize("name", [file for file, _ in FILES])
def test_a_file_fits_its_schema_and_a_misspelt_key_does_not(name: str) -> None:
    document, schema = documents(name)
    jsonschema.validate(document, schema)
    found = list(keys(document))
    assert len(found) > 20
    for path in found:
        wrong = copy.deepcopy(document)
        parent = wrong
        for step in path[:-1]:
            parent = parent[step]
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_each_volume_that_is_mounted_is_there_and_is_the_spool() -> None:
    values, pod = documents("values.yaml")[0], documents("pod_template.yaml")[0]["spec"]
    workers = [*values["workers"].values(), values["triggerer"]]
    places = [(worker["extraVolumes"], worker["extraVolumeMounts"]) for worker in workers]
    places.append((pod["volumes"], pod["containers"][0]["volumeMounts"]))
    environments = [values["env"], pod["containers"][0]["env"]]
    folders = {
        variable["value"]
        for each in environments
        for variable in each
        if variable["name"].endswith("__SPOOL_DIR")
    }
    for volumes, mounts in places:
        assert [volume["name"] for volume in volumes] == [mount["name"] for mount in mounts] == ["spool"]
        assert {mount["mountPath"] for mount in mounts} == folders
        assert volumes[0]["emptyDir"].keys() == {"sizeLimit"}


def test_options_commands_and_files_of_the_page_are_there() -> None:
    assert set(re.findall(r"\[lingyang\] (\w+)", PAGE)) <= OPTIONS.keys()
    defaults = re.findall(r"\[lingyang\] (\w+)`(?: seconds)? \(([\d,]+)\)", PAGE)
    assert len(defaults) == 3
    for name, default in defaults:
        assert int(default.replace(",", "")) == OPTIONS[name].default, name
    for script in re.findall(r"python (benchmarks/\w+\.py)", PAGE) + re.findall(r"TESTS=([\w/.]+)", PAGE):
        assert (ROOT / script).is_file(), script
    for target in re.findall(r"\]\(([^)#\s]+)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target
    commands = re.findall(r"^ *airflow lingyang ledger (.*)$", PAGE, re.MULTILINE)
    assert [command_line().parse_args(shlex.split(words)).command for words in commands] == ["stats", "prune"]
