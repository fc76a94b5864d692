"""mypy is strict wherever there is no torch."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
STRICT = next(
    set(override["module"])
    for override in PYPROJECT["tool"]["mypy"]["overrides"]
    if override.get("disallow_untyped_defs")
)


def test_every_package_without_torch_is_strict() -> None:
    without_torch = {
        module
        for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
        if {"torch", "transformers"} <= set(contract.get("forbidden_modules", ()))
        for module in contract["source_modules"]
    }
    without_torch.remove("core")  # its __init__.py is empty
    assert {"api", "core.parity", "core.engine.policy"} <= without_torch
    strict = {name.removesuffix(".*") for name in STRICT}
    assert {name for name in without_torch if not _is_within(name, strict)} == set()


def _is_within(module: str, packages: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in packages for length in range(1, len(parts) + 1))
