"""No module imports itself through others. Imports for type checkers and inside functions count, too."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

# Found without an import: in the clone or in an installed wheel.
SPEC = find_spec("airflow_provider_lingyang")
assert SPEC
assert SPEC.origin
PACKAGE = Path(SPEC.origin).parent
Graph = dict[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """The package's modules that a file names in its imports, without the packages around them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(name if name in modules else node.module for name in names)
    return found & modules


def import_graph() -> Graph:
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    return {name: imports_of(path, set(paths)) for name, path in paths.items()}


def reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    pending = [start]
    while pending:
        new = graph[pending.pop()] - found
        found |= new
        pending += new
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Sets of modules that import one another, directly or not."""
    reached = {name: reachable(graph, name) for name in graph}
    found = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    return sorted(sorted(circle) for circle in found)


def room_of(module: str) -> str:
    """The folder of a module below the package, or ``.`` for modules beside the folders."""
    folder = module.split(".")[1:2]
    return folder[0] if folder and (PACKAGE / folder[0]).is_dir() else "."


GRAPH = import_graph()
KNOWN_CIRCLES: dict[str, str] = {}
"""Room → the circles that it still has. The mark is strict: delete the entry with the circle."""


ROOMS = [
    pytest.param(
        room,
        marks=[pytest.mark.xfail(strict=True, reason=KNOWN_CIRCLES[room])] if room in KNOWN_CIRCLES else [],
    )
    for room in sorted(set(map(room_of, GRAPH)))
]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_in_no_import_circle(room: str) -> None:
    assert [circle for circle in circles(GRAPH) if room in map(room_of, circle)] == []


def test_finds_circles() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": {"a"}}
    assert circles(graph) == [["b", "c"], ["d"]]


def test_reads_imports_for_type_checkers_and_inside_functions(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "import os, p.a\n"
        "from p import b\n"
        "if TYPE_CHECKING:\n    from p.c import Name\n"
        "def f():\n    from p import d, Other\n"
    )
    assert imports_of(source, {"p", "p.a", "p.b", "p.c", "p.d"}) == {"p", "p.a", "p.b", "p.c", "p.d"}
