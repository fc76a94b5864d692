"""The total and free memory of a device."""

import os
from pathlib import Path

import torch

from core.free_memory import free_on_machine, limit_bytes

USABLE_SHARE = 0.8
"""Of the free memory; the rest covers what estimates omit."""


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of the device; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_on_machine()


def total_bytes(device: torch.device) -> int:
    """Return the total memory of the device; on a CPU that of the machine or the container."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = limit_bytes()
    return machine if limit is None else min(machine, limit)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that this process has had: resident, or on a GPU reserved there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024
