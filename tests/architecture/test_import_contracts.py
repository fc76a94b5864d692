"""The import contracts of pyproject.toml hold, and each one breaks on a planted violation."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "core", "cli", "migrations")

CONTRACTS = {
    contract["name"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
}

PLANTS = {
    # contract: (file, code appended to it, import that the report must name)
    "Processes sit above core and never import each other": (
        "api/planted.py",
        "import cli.main",
        "api.planted -> cli.main",
    ),
    "The API is layered, and what resources share knows none of them": (
        "api/app_state.py",
        "def late():\n    from api.speed import schemas",
        "api.app_state -> api.speed.schemas",
    ),
    "Core is layered": (
        "core/jobs/planted.py",
        "def late():\n    from core.records import tables",
        "core.jobs.planted -> core.records.tables",
    ),
    "Training and inference never touch the database, the broker or HTTP": (
        "core/batching/planted.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlalchemy",
        "core.batching.planted -> sqlalchemy",
    ),
    "API, command line and torch-free core never reach torch": (
        "core/datasets/planted.py",
        "def late():\n    import torch",
        "core.datasets.planted -> torch",
    ),
    "The worker holds no model; its child does": (
        "worker/training/supervise.py",
        "import worker.child.main",
        "worker.training.supervise -> worker.child.main",
    ),
    "Migrations know the tables and nothing else": (
        "migrations/planted.py",
        "import core.records.jobs",
        "migrations.planted -> core.records.jobs",
    ),
    "core/__init__.py stays empty": (
        "core/__init__.py",
        "from core.errors import NotFound",
        "core -> core.errors",
    ),
    "Engine policy is plain Python": (
        "core/engine/policy/scheduler.py",
        "import numpy",
        "core.engine.policy.scheduler -> numpy",
    ),
    "The engine is layered": (
        "core/engine/text/planted.py",
        "def late():\n    import core.engine.device.sampler",
        "core.engine.text.planted -> core.engine.device.sampler",
    ),
    "No circles, not even by a late import": (
        "core/spec/base.py",
        "def late():\n    import core.spec.job",
        ".base -> .job",
    ),
}


def lint(folder: Path) -> str:
    """The report of import-linter on the tree in `folder`."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def copy_of_the_tree(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=lambda _, names: _not_code(names)
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _not_code(names: list[str]) -> list[str]:
    return [name for name in names if "." in name and not name.endswith(".py")] + ["__pycache__"]


def test_contracts_hold() -> None:
    report = lint(ROOT)
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in report, report


def test_every_contract_breaks_on_a_planted_violation(copy_of_the_tree: Path) -> None:
    assert set(PLANTS) == set(CONTRACTS)
    for path, code, _ in PLANTS.values():
        with (copy_of_the_tree / path).open("a") as file:
            file.write(f"\n{code}\n")
    report = lint(copy_of_the_tree)
    assert f"Contracts: 0 kept, {len(CONTRACTS)} broken." in report, report
    for contract, (_, _, named) in PLANTS.items():
        # A report's section is its contract's name, underlined, up to the next one.
        section = re.search(
            rf"^{re.escape(contract)}\n-+\n(.*?)(?=^-{{3,}}$|\Z)", report, re.M | re.S
        )
        assert section is not None and named in section[1], f"{contract}: {named}\n{report}"


def test_new_folder_of_core_must_find_its_layer(copy_of_the_tree: Path) -> None:
    (copy_of_the_tree / "core" / "planted").mkdir()
    (copy_of_the_tree / "core" / "planted" / "__init__.py").touch()
    assert "core.planted" in lint(copy_of_the_tree)


def test_new_resource_of_the_api_must_find_its_layer(copy_of_the_tree: Path) -> None:
    (copy_of_the_tree / "api" / "planted").mkdir()
    (copy_of_the_tree / "api" / "planted" / "__init__.py").touch()
    assert "api.planted" in lint(copy_of_the_tree)


def test_new_room_of_the_worker_must_take_a_side() -> None:
    """A room or file that the contract does not list may import torch."""
    rooms = {
        f"worker.{path.stem}"
        for path in (ROOT / "worker").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    without_torch = set(CONTRACTS["The worker holds no model; its child does"]["source_modules"])
    with_torch = {
        "worker.child",
        "worker.engine",
        "worker.engine_face",
        "worker.vllm",
    }
    assert rooms - {"worker.__init__"} == without_torch | with_torch
