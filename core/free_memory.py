"""The free memory of this machine, within the limits of its container or service."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.cgroups import groups

_UNLIMITED = 2**60
"""Bytes: version 1 of control groups has a number near 2⁶³ where there is no limit."""


@dataclass(frozen=True)
class _Limit:
    """Bytes. `used` omits the pages of files, which the kernel drops before it kills a process."""

    total: int
    used: int


def free_on_machine() -> int | None:
    """Return the memory that can be had without swapping; None if unknown."""
    left = (max(0, limit.total - limit.used) for limit in _limits())
    found = [_available_bytes(), *left]
    return min((size for size in found if size is not None), default=None)


def limit_bytes() -> int | None:
    """Return the lowest memory limit of this process's groups; None without one."""
    return min((limit.total for limit in _limits()), default=None)


def _available_bytes() -> int | None:
    """Return the Linux kernel's estimate of the memory available without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _limits() -> Iterator[_Limit]:
    """Yield every memory limit that applies to this process."""
    for group in groups("memory"):
        with suppress(OSError, ValueError):  # no such group, or "max"
            total = int((group / "memory.max").read_text())
            yield _limit(group, total, "memory.current", "inactive_file")
        with suppress(OSError, ValueError):
            total = int((group / "memory.limit_in_bytes").read_text())
            if total < _UNLIMITED:
                yield _limit(group, total, "memory.usage_in_bytes", "total_inactive_file")


def _limit(group: Path, total: int, used: str, of_files: str) -> _Limit:
    statistics: dict[str, str] = {}
    with suppress(OSError):
        lines = (group / "memory.stat").read_text().splitlines()
        statistics = dict(line.split() for line in lines)
    cached = int(statistics.get(of_files, 0))
    return _Limit(total, int((group / used).read_text()) - cached)
