"""Which device a process computes on, and in which number format."""

from pathlib import Path

import torch

from core.spec.training import Precision

_NATIVE_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""CPU flags of Linux: two of x86, and `bf16` of Arm."""


def pick_device() -> torch.device:
    """Return the first CUDA device, or the CPU. Initialises CUDA: call it after any fork."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_native_bf16(device: torch.device) -> bool:
    """Say whether `device` multiplies bf16 in hardware; emulation does not count."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_cpu_flags() & _NATIVE_BF16_FLAGS)


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype of the base weights; `auto` is bf16 only where it is native."""
    if precision == "auto":
        return torch.bfloat16 if has_native_bf16(device) else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return set()
    flags = (line for line in lines if line.lower().startswith(("flags", "features")))
    return set(next(flags, "").partition(":")[2].split())
