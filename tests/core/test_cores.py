"""The cores of a process, within the quotas of the groups around it."""

import os
from pathlib import Path

import pytest

from core import cgroups
from core.cores import usable_cores

MANY = set(range(32))


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a machine's cgroups; its process may run on 32 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: MANY)
    monkeypatch.setattr(cgroups, "_GROUPS", tmp_path / "fs")
    monkeypatch.setattr(cgroups, "_OWN_GROUPS", tmp_path / "own")
    return tmp_path / "fs"


def belong_to(groups: Path, *lines: str) -> None:
    (groups.parent / "own").write_text("".join(f"{line}\n" for line in lines))


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_this_process_may_use_a_core():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_without_groups_all_cores_are_usable(groups):
    assert usable_cores() == 32
    belong_to(groups, "0::/")
    assert usable_cores() == 32


@pytest.mark.parametrize(
    ("quota", "usable"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("6400000 100000", 32),
        ("max 100000", 32),
        ("", 32),
    ],
)
def test_the_quota_of_a_container(groups, quota, usable):
    belong_to(groups, "0::/")
    write(groups / "cpu.max", f"{quota}\n")
    assert usable_cores() == usable


def test_the_smallest_quota_around_the_process_applies(groups):
    belong_to(groups, "0::/pods/pod/container")
    write(groups / "pods" / "pod" / "container" / "cpu.max", "max 100000\n")
    write(groups / "pods" / "pod" / "cpu.max", "300000 100000\n")
    write(groups / "pods" / "cpu.max", "800000 100000\n")
    assert usable_cores() == 3


@pytest.mark.parametrize("folder", ["docker/a1b2", "."], ids=["outside", "inside the container"])
def test_groups_of_the_first_version(groups, folder):
    belong_to(groups, "4:memory:/docker/a1b2", "2:cpu,cpuacct:/docker/a1b2", "0::/")
    group = groups / "cpu,cpuacct" / folder
    write(group / "cpu.cfs_quota_us", "400000\n")
    write(group / "cpu.cfs_period_us", "100000\n")
    assert usable_cores() == 4
    write(group / "cpu.cfs_quota_us", "-1\n")
    assert usable_cores() == 32


def test_a_group_that_others_may_not_read_is_no_quota(groups):
    belong_to(groups, "0::/")
    (groups / "cpu.max").mkdir(parents=True)
    assert usable_cores() == 32
