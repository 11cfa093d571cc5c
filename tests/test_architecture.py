"""ARCHITECTURE.md and the documents beside it name what there is: files, bans on imports, where each behaviour is."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Found without an import: in the clone or in an installed wheel.
SPEC = find_spec("airflow_provider_lingyang")
assert SPEC
assert SPEC.origin
PACKAGE = Path(SPEC.origin).parent
FACE = {"operators", "sensors", "triggers", "transfers", "decorators"}
"""What no room with a list of bans imports."""
DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "docs/glossary.md", "docs/compatibility.md")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of all tables whose head begins so, without their heads."""
    tables = text.split(f"\n| {head} |")[1:]
    assert tables, f"no table {head!r}"
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for table in tables
        for line in table.partition("\n\n")[0].splitlines()[2:]
    ]


def quoted(text: str) -> list[str]:
    """What stands between backticks, but for blocks of code."""
    return re.findall("`([^`]+)`", re.sub(r"(?ms)^```.*?^```$", "", text))


def file_of(name: str) -> Path:
    """A test is below the project, all else below the package."""
    return ROOT / name if name.startswith("tests/") else PACKAGE / name


BEHAVIOURS = rows(ARCHITECTURE, "behaviour")


@pytest.mark.parametrize("row", BEHAVIOURS, ids=[row[0] for row in BEHAVIOURS])
def test_a_behaviour_is_found_by_its_term(row: list[str]) -> None:
    _, term, modules, tests = row
    (term,) = quoted(term)
    assert quoted(modules)
    assert quoted(tests)
    for name in (*quoted(modules), *quoted(tests)):
        path = file_of(name)
        assert path.is_file(), f"{name} is not there: correct the table in ARCHITECTURE.md"
        found = term.lower() in path.read_text(encoding="utf-8").lower()
        assert found, f"{name} does not hold {term!r}"


def test_each_behaviour_stands_once() -> None:
    assert len({row[0] for row in BEHAVIOURS}) == len(BEHAVIOURS) >= 20


def test_the_bans_are_those_of_ruff() -> None:
    told = {quoted(room)[0]: set(quoted(bans)) for room, bans in rows(ARCHITECTURE, "room | never imports")}
    kept = {}
    for path in PACKAGE.glob("*/ruff.toml"):
        bans = tomllib.loads(path.read_text(encoding="utf-8"))["lint"]["flake8-tidy-imports"]["banned-api"]
        rooms = {name.rpartition(".")[2] for name in bans if name.startswith("airflow_provider_lingyang.")}
        assert rooms >= FACE, path
        kept[path.parent.name] = rooms - FACE
    assert told == kept


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    folders = "|".join(sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()))
    named = {name for name in quoted(text) if re.fullmatch(rf"(?:{folders}|tests)/[\w/.]*", name)}
    assert [name for name in sorted(named) if not file_of(name).exists()] == []


def members() -> set[str]:
    """``Class.name`` of all methods and fields of the package."""
    found = set()
    for module in PACKAGE.rglob("*.py"):
        for kind in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(kind, ast.ClassDef):
                names = [node.id for node in ast.walk(kind) if isinstance(node, ast.Name)]
                names += [node.attr for node in ast.walk(kind) if isinstance(node, ast.Attribute)]
                names += [
                    node.name
                    for node in kind.body
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                ]
                found |= {kind.name} | {f"{kind.name}.{name}" for name in names}
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_classes_and_methods_that_a_document_names_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = {
        name
        for name in quoted(text)
        if re.fullmatch(r"[A-Z]\w*[a-z]\w*\.\w+", name) and not name.endswith(".md")
    }
    assert sorted(named - members()) == []


def test_chinese_terms_are_those_of_the_readme() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    terms = [term for row in rows(glossary, "term") for term in re.split("、", row[1]) if term != "–"]
    assert len(terms) > 20
    assert [term for term in terms if term.strip("`") not in readme] == []
