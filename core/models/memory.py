"""The total and free memory of a device."""

import os
from pathlib import Path

import torch

USABLE_SHARE = 0.8
"""Of the free memory; the rest covers what estimates omit."""

_GROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of the device; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_available_bytes(), _left_of_limit_bytes()]
    return min((size for size in found if size is not None), default=None)


def total_bytes(device: torch.device) -> int:
    """Return the total memory of the device; on a CPU that of the machine or the container."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _limit_bytes()
    return machine if limit is None else min(machine, limit)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has had: resident, or on a GPU reserved there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024


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
    limit = _limit_bytes()
    if limit is None:
        return None
    used = int((_GROUP / "memory.current").read_text(encoding="utf-8"))
    return max(0, limit - used)


def _limit_bytes() -> int | None:
    try:
        limit = (_GROUP / "memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return None if limit == "max" else int(limit)
