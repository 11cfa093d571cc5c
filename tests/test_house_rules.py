"""Rules of the house that no linter checks: types of fixtures, sizes, words."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_lingyang import pytest_plugin

TESTS = Path(__file__).parent
PACKAGE = Path(pytest_plugin.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PYTESTS_OWN = {"caplog", "capsys", "monkeypatch", "pytestconfig", "request", "tmp_path", "tmp_path_factory"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(module: Path) -> list[Function]:
    nodes = ast.walk(ast.parse(module.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, Function)]


def decorators(function: Function) -> str:
    return "\n".join(ast.unparse(decorator) for decorator in function.decorator_list)


def is_fixture(function: Function) -> bool:
    return "pytest.fixture" in decorators(function)


FUNCTIONS = [(path, function) for path in sorted(TESTS.rglob("*.py")) for function in functions(path)]
MADE = [function for _, function in FUNCTIONS if is_fixture(function)]
MADE += [function for function in functions(Path(pytest_plugin.__file__)) if is_fixture(function)]
FIXTURES = PYTESTS_OWN.union(
    *({function.name, *re.findall(r"name='(\w+)'", decorators(function))} for function in MADE)
)


def annotated(function: Function) -> Iterator[tuple[str, ast.expr | None]]:
    """What a fixture returns and takes, or what a test takes from fixtures."""
    if is_fixture(function):
        yield "return", function.returns
    for parameter in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]:
        name = parameter.arg
        # A name in a decorator is a parameter of the test's own.
        of_fixture = name in FIXTURES and not re.search(rf"\b{name}\b", decorators(function))
        if is_fixture(function) or (function.name.startswith("test_") and of_fixture):
            yield name, parameter.annotation


def test_fixtures_have_types_other_than_any() -> None:
    loose = [
        f"{path.relative_to(TESTS)}:{function.lineno} {function.name}, {name}"
        for path, function in FUNCTIONS
        for name, annotation in annotated(function)
        if annotation is None or re.search(r"\bAny\b", ast.unparse(annotation))
    ]
    assert loose == []


def test_fixtures_are_found_by_function_by_name_and_in_the_plugin() -> None:
    assert {"sandbox", "counts", "lingyang_connection"} < FIXTURES
    assert len(FIXTURES) > 80


def lines(*modules: Path) -> int:
    return sum(len(module.read_text(encoding="utf-8").splitlines()) for module in modules)


def test_modules_and_rooms_keep_their_size() -> None:
    faces = {"operators", "sensors", "triggers", "transfers", "decorators"}
    sizes = {module: lines(module) for module in MODULES}
    assert [
        module for module, size in sizes.items() if size > (350 if module.parent.name in faces else 400)
    ] == []
    rooms = [room for room in PACKAGE.iterdir() if room.is_dir()]
    assert [room for room in rooms if lines(*room.rglob("*.py")) > 0.2 * sum(sizes.values())] == []


WORDS = re.compile(r"\b(somebody|nobody|everybody|whoever|whom|told)\b", re.IGNORECASE)
"""Of no docstring, comment or message: a recipient, a row, a request has a name."""
PARTS = {
    "told",
    "courier",
    "couriers",
    "door",
    "hear",
    "heard",
    "wanted",
    "here",
    "nobody",
    "somebody",
    "everybody",
}
"""Of no name."""


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(PACKAGE)))
def test_words_and_names_are_plain(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    assert WORDS.findall(text) == []
    names = {
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.NAME
    }
    parts = {part.lower() for name in names for part in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    assert parts & PARTS == set()
    assert [name for name in names if "flight" in name and name != "max_in_flight"] == []


PRIVATE = {
    "app_secret",
    "body",
    "contact",
    "form",
    "key",
    "params",
    "session",
    "struct",
    "task_list",
    "token",
}
"""Names of fields that hold a credential, a contact or a form."""


def test_no_representation_shows_a_private_field() -> None:
    """Airflow and its error reporters may show local variables."""
    shown, seen = [], 0
    for module in MODULES:
        if "sandbox" in module.parts or module.stem in ("__init__", "__main__"):
            continue
        dotted = ".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts)
        for name, kind in vars(importlib.import_module(dotted)).items():
            if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == dotted:
                seen += 1
                fields = {field.name for field in dataclasses.fields(kind) if field.repr}
                if kind.__dataclass_params__.repr and fields & PRIVATE:  # type: ignore[attr-defined]
                    shown.append(f"{dotted}.{name}: {sorted(fields & PRIVATE)}")
    assert shown == []
    assert seen > 40
