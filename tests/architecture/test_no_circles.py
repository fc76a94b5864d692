"""No module imports itself by a detour, late imports inside functions counted."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "core", "cli", "migrations")

LOADERS = {"import_module", "set_forkserver_preload"}
"""Calls that import what their arguments name."""

Graph = dict[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, modules: set[str]) -> Iterator[str]:
    """Yield the modules that code imports anywhere, or names for others to import.

    A string counts as an argument of `LOADERS` only. The table of tasks names the modules that run
    them, and imports none.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names = [each.name for each in node.names]
            case ast.ImportFrom(module=str() as module, level=0):
                inside = [f"{module}.{each.name}" for each in node.names]
                names = [each if each in modules else module for each in inside]
            case ast.ImportFrom():
                raise AssertionError("Write imports in full; relative ones are not followed here.")
            case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called)) if (
                called in LOADERS
            ):
                names = list(strings_in(node))
            case _:
                names = []
        yield from (name for name in names if name in modules)


def strings_in(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def import_graph(root: Path, packages: tuple[str, ...] = PACKAGES) -> Graph:
    paths = {
        module_name(path.relative_to(root)): path
        for package in packages
        for path in (root / package).rglob("*.py")
    }
    graph = {}
    for name, path in paths.items():
        graph[name] = set(imports_of(ast.parse(path.read_text()), set(paths))) - {name}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of nodes that reach one another (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = lowest[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == index[node]:
            start = stack.index(node)
            group = sorted(stack[start:])
            del stack[start:]
            if len(group) > 1:
                found.append(group)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def folder_graph(graph: Graph, package: str) -> Graph:
    """Return the graph of a package's folders and files, by what is in them."""

    def folder(module: str) -> str:
        return ".".join(module.split(".")[:2])

    folders: Graph = {}
    for name, imported in graph.items():
        if name.startswith(f"{package}."):
            inside = {folder(each) for each in imported if each.startswith(f"{package}.")}
            folders.setdefault(folder(name), set()).update(inside - {folder(name)})
    return folders


def test_no_module_imports_itself_by_a_detour() -> None:
    assert circles(import_graph(ROOT)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_itself_by_a_detour(package: str) -> None:
    assert circles(folder_graph(import_graph(ROOT), package)) == []


@pytest.mark.parametrize(
    "back",
    [
        "import core.first",
        "from core import first",
        "from core.first import name",
        "def late():\n    import core.first",
        "def late():\n    import importlib\n    importlib.import_module('core.first')",
        "from importlib import import_module\nimport_module('core.first')",
        "context.set_forkserver_preload(['core.first'])",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import core.first",
    ],
)
def test_a_planted_circle_is_found(tmp_path: Path, back: str) -> None:
    assert circles(import_graph(planted(tmp_path, back), ("core",))) == [
        ["core.first", "core.second", "core.third"]
    ]


def test_a_name_that_nobody_loads_is_no_import(tmp_path: Path) -> None:
    assert circles(import_graph(planted(tmp_path, "RUNNER = 'core.first'"), ("core",))) == []


def planted(tmp_path: Path, back: str) -> Path:
    """Write three modules, of which the third holds `back`."""
    folder = tmp_path / "core"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "first.py").write_text("import core.second\nname = 1\n")
    (folder / "second.py").write_text("from core import third\n")
    (folder / "third.py").write_text(back)
    return tmp_path
