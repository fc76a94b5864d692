"""Static contracts cannot see through third-party packages; a fresh interpreter can."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")


def modules_of(*packages: str) -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in packages
        for path in sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]


def worker_parents() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [parents] = (
        contract["source_modules"]
        for contract in contracts["contracts"]
        if contract["name"].startswith("The worker holds no model")
    )
    folders = [each for each in parents if (ROOT / each.replace(".", "/")).is_dir()]
    return [*sorted(set(parents) - set(folders)), *modules_of(*folders)]


PROCESSES = {
    "api": modules_of("api"),
    "cli": modules_of("cli"),
    "core": [
        "core.errors",
        *modules_of(
            "core.spec", "core.tasks", "core.jobs", "core.records", "core.storage", "core.datasets",
            "core.catalog", "core.sandbox",
        ),
    ],
    "worker": worker_parents(),
}  # fmt: skip


@pytest.mark.parametrize("process", PROCESSES)
def test_process_imports_nothing_heavy(process: str) -> None:
    assert PROCESSES[process]
    code = (
        "import importlib, sys\n"
        f"for module in {PROCESSES[process]}:\n"
        "    importlib.import_module(module)\n"
        f"    heavy = [name for name in {HEAVY} if name in sys.modules]\n"
        "    assert not heavy, f'{module} brings {heavy}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
