"""The default limit for the memory of all models."""

import os
from pathlib import Path

import torch

SHARE_OF_A_GPU = 0.9
SHARE_OF_A_MACHINE = 0.75
"""The rest is for adapters, for the tensors of a step, and for other processes."""

_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def model_memory_bytes(device: torch.device) -> int:
    """Return most of the memory of the GPU; without one, of the machine or its container."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * SHARE_OF_A_GPU)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for path in _CONTAINER_LIMITS if (limit := _read(path)) is not None]
    return int(min([machine, *limits]) * SHARE_OF_A_MACHINE)


def _read(path: Path) -> int | None:
    """Return the limit in a cgroup file; None if the file is missing or contains `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
