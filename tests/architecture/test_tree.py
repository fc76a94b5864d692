"""Rules of the tree that no linter holds."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

CODE = ("api", "worker", "core", "cli", "migrations", "bench", "examples", "tests")
LONGER = {"migrations", "tests"}
SERVICE = ("api", "worker", "core", "cli", "migrations")

MAX_LINES = 300
MAX_LINES_OF_TESTS = 400
MAX_MEDIAN_LINES = 80
MAX_FUNCTION_LINES = 40
MAX_SHARE_OF_LONG_FUNCTIONS = 0.005

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"}

TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".ipynb", ".sh", ".mako", ".css",
        ".js", ".html", ""}  # fmt: skip
HIDDEN = {".ci", ".devcontainer", ".github", ".pre-commit-config.yaml"}
IGNORED = {"__pycache__", "node_modules", "build", "dist", "data", "runs"}

MACHINE_PATH = re.compile(r"(?<![\w./}-])/(?:work|root|home|Users|mnt)/\w")
REGISTRY = re.compile(
    r"(?:index-url|indexUrl|registry)\s*[=:]\s*\S*https?://|/artifactory/|/nexus/"
)


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            if not is_ignored(path):
                yield path


def text_files() -> Iterator[Path]:
    for top in ROOT.iterdir():
        if top.name in IGNORED or (top.name.startswith(".") and top.name not in HIDDEN):
            continue
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and path.suffix in TEXT and not is_ignored(path):
                yield path


def is_ignored(path: Path) -> bool:
    """Only by its folders in the tree: a checkout may be in a folder called `build`."""
    return not IGNORED.isdisjoint(path.relative_to(ROOT).parts)


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_too_long_to_be_read() -> None:
    lines = {where(path): len(path.read_text().splitlines()) for path in python_files(*CODE)}
    too_long = {
        path: count
        for path, count in lines.items()
        if count > (MAX_LINES_OF_TESTS if path.startswith("tests/") else MAX_LINES)
        and not path.startswith("migrations/versions/")
    }
    assert len(lines) > 100 and not too_long


def test_files_and_functions_are_short() -> None:
    files = [path for path in python_files(*CODE) if where(path).split("/")[0] not in LONGER]
    lines = [len(path.read_text().splitlines()) for path in files]
    assert statistics.median(lines) <= MAX_MEDIAN_LINES
    functions = {
        f"{where(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    long = [name for name, count in functions.items() if count > MAX_FUNCTION_LINES]
    assert len(functions) > 1000 and len(long) <= MAX_SHARE_OF_LONG_FUNCTIONS * len(functions), long


def test_every_name_says_what_is_inside() -> None:
    empty = [
        where(path)
        for path in python_files(*CODE)
        for part in path.relative_to(ROOT).with_suffix("").parts
        if EMPTY_NAMES & set(part.lower().split("_"))
    ]
    assert not empty


def test_only_settings_read_the_environment() -> None:
    readers = {
        where(path)
        for path in python_files(*SERVICE)
        if re.search(r"\bos\.(environ|getenv)|from os import .*(environ|getenv)", path.read_text())
    }
    assert {path for path in readers if not path.endswith("settings.py")} == set()


def test_core_has_no_front_door() -> None:
    assert (ROOT / "core" / "__init__.py").read_text() == ""


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = [
        f"{where(path)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line) or REGISTRY.search(line)
    ]
    assert not found


def test_no_file_has_the_marks_of_a_merge() -> None:
    mark = re.compile(r"^(<{7}|={7}|>{7})( .*)?$", re.MULTILINE)
    assert not [
        where(path) for path in text_files() if mark.search(path.read_text(errors="replace"))
    ]


def test_migrations_have_one_line_of_descent() -> None:
    versions = sorted((ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    revisions = [
        re.findall(r"^(?:down_)?revision = (.*)$", path.read_text(), re.M) for path in versions
    ]
    expected = [f'"{number:04d}"' for number in range(1, len(versions) + 1)]
    assert [own for own, _ in revisions] == expected
    assert [before for _, before in revisions] == ["None", *expected[:-1]]
