"""The free memory of this machine, within the limit of its container."""

from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def free_on_machine() -> int | None:
    """Return the memory that can be had without swapping; None if unknown."""
    found = [_available_bytes(), _left_of_limit_bytes()]
    return min((size for size in found if size is not None), default=None)


def limit_bytes() -> int | None:
    """Return the memory limit of the container; None without one."""
    try:
        limit = (_GROUP / "memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if limit == "max" else int(limit)


def _available_bytes() -> int | None:
    """Return the Linux kernel's estimate of the memory available without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _left_of_limit_bytes() -> int | None:
    """Return the rest of the container's memory limit, if it has one."""
    limit = limit_bytes()
    if limit is None:
        return None
    used = int((_GROUP / "memory.current").read_text(encoding="utf-8"))
    return max(0, limit - used)
