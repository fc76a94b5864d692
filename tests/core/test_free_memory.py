"""The free memory is that of the machine, or less in a container with a limit."""

from pathlib import Path

import pytest

from core import free_memory
from core.free_memory import free_on_machine, limit_bytes

MIB = 2**20


def group(folder: Path, limit: str, used: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    return folder


def test_a_limit_leaves_what_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_GROUP", group(tmp_path, str(64 * MIB), 24 * MIB))
    assert (limit_bytes(), free_on_machine()) == (64 * MIB, 40 * MIB)


def test_without_a_limit_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_memory, "_GROUP", group(tmp_path, "max", 24 * MIB))
    free = free_on_machine()
    assert limit_bytes() is None and free is not None and free > 100 * MIB
    monkeypatch.setattr(free_memory, "_GROUP", tmp_path / "none")
    assert limit_bytes() is None
