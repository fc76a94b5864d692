"""Which device a process computes on, and in which number format."""

from pathlib import Path
from typing import Literal

import torch

from core.spec.training import Precision

_DTYPES: dict[Literal["bf16", "fp16", "fp32"], torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}

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
    """Return the dtype of the base weights; `auto` is bf16 only where it is native.

    Elsewhere it is fp16 on a CUDA device, and fp32 on a CPU, which has no use for fp16.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if has_native_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def name_of(dtype: torch.dtype) -> Literal["bf16", "fp16", "fp32"]:
    """Return what the dtype of base weights is called in a job."""
    return next(name for name, named in _DTYPES.items() if named == dtype)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return set()
    flags = (line for line in lines if line.lower().startswith(("flags", "features")))
    return set(next(flags, "").partition(":")[2].split())
