"""The text that ships with Python: standard-library sources and the language reference."""

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Not wanted: tests, programs that ship beside the library, bundled third-party code, and
# character tables, which are long and say nothing.
SKIPPED_FOLDERS = {
    "__pycache__", "dist-packages", "encodings", "ensurepip", "idlelib", "lib-dynload",
    "pydoc_data", "site-packages", "test", "tests",
}  # fmt: skip

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class SourceFile:
    """One standard-library source: its path below the library's root, and its text."""

    path: str
    text: str


def source_files() -> Iterator[SourceFile]:
    """Every standard-library source worth reading, in path order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        path = file.relative_to(root)
        if SKIPPED_FOLDERS.isdisjoint(path.parts):
            try:
                yield SourceFile(path.as_posix(), file.read_text(encoding="utf-8"))
            except UnicodeDecodeError:  # a handful of old Latin-1 sources
                continue


def language_reference() -> dict[str, str]:
    """The topics of `help()`: topic name to its page of the language reference."""
    from pydoc_data.topics import topics

    return dict(topics)


def definitions(tree: ast.AST) -> Iterator[Definition]:
    """Every function, method and class below `tree`, outermost first."""
    for node in ast.walk(tree):
        if isinstance(node, Definition):
            yield node


def docstring_node(node: Definition | ast.Module) -> ast.Expr | None:
    """The statement that holds the docstring of `node`, if it has one."""
    if ast.get_docstring(node, clean=False) is None:
        return None
    statement = node.body[0]
    assert isinstance(statement, ast.Expr)
    return statement


def one_line(text: str) -> str:
    """`text` with every run of white space as one space: the form in which texts are compared."""
    return " ".join(text.split())
