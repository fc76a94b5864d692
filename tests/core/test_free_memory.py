"""The free memory is that of the machine, or less within a group that has a limit."""

from pathlib import Path

import pytest

from core import cgroups
from core.free_memory import free_on_machine, limit_bytes

MIB = 2**20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a machine's control groups."""
    monkeypatch.setattr(cgroups, "_GROUPS", tmp_path / "fs")
    monkeypatch.setattr(cgroups, "_OWN_GROUPS", tmp_path / "own")
    return tmp_path / "fs"


def belong_to(groups: Path, *lines: str) -> None:
    (groups.parent / "own").write_text("".join(f"{line}\n" for line in lines))


def limit(group: Path, limit: str, used: int, dropped: int = 0) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 4096\ninactive_file {dropped}\n")


def test_a_limit_leaves_what_is_not_used(groups: Path) -> None:
    belong_to(groups, "0::/")
    limit(groups, str(64 * MIB), 24 * MIB)
    assert (limit_bytes(), free_on_machine()) == (64 * MIB, 40 * MIB)


def test_pages_of_files_that_were_read_are_free(groups: Path) -> None:
    belong_to(groups, "0::/")
    limit(groups, str(64 * MIB), 60 * MIB, dropped=50 * MIB)
    assert free_on_machine() == 54 * MIB


def test_the_tightest_group_around_the_process_counts(groups: Path) -> None:
    belong_to(groups, "0::/system.slice/tunesmith.service")
    limit(groups / "system.slice" / "tunesmith.service", str(96 * MIB), 16 * MIB)
    limit(groups / "system.slice", str(128 * MIB), 100 * MIB)
    limit(groups, "max", 4096 * MIB)
    assert (limit_bytes(), free_on_machine()) == (96 * MIB, 28 * MIB)


@pytest.mark.parametrize("folder", ["docker/a1b2", "."], ids=["outside", "inside the container"])
def test_groups_of_the_first_version(groups: Path, folder: str) -> None:
    belong_to(groups, "4:memory:/docker/a1b2", "2:cpu,cpuacct:/docker/a1b2", "0::/")
    group = groups / "memory" / folder
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(f"{64 * MIB}\n")
    (group / "memory.usage_in_bytes").write_text(f"{40 * MIB}\n")
    (group / "memory.stat").write_text(f"total_inactive_file {8 * MIB}\n")
    assert (limit_bytes(), free_on_machine()) == (64 * MIB, 32 * MIB)
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert limit_bytes() is None


def test_without_a_limit_the_machine_counts(groups: Path) -> None:
    belong_to(groups, "0::/")
    limit(groups, "max", 24 * MIB)
    free = free_on_machine()
    assert limit_bytes() is None and free is not None and free > 100 * MIB
    (groups.parent / "own").unlink()
    assert limit_bytes() is None
