"""How much memory the engine fills with models, where no setting says so."""

import os
from pathlib import Path

import torch

SHARE_OF_A_GPU = 0.9
SHARE_OF_A_MACHINE = 0.75
"""The rest is for adapters, for what a step computes, and for others on the machine."""

_CONTAINER_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def model_memory_bytes(device: torch.device) -> int:
    """Return most of the memory of a GPU, or of the machine, or of the container we run in."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * SHARE_OF_A_GPU)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for path in _CONTAINER_LIMITS if (limit := _read(path)) is not None]
    return int(min([machine, *limits]) * SHARE_OF_A_MACHINE)


def _read(path: Path) -> int | None:
    """Return the limit in a file of cgroups; None when there is no file, or `max` in it."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
