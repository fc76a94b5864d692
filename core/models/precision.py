"""Which device a process computes on, and in which number format."""

from pathlib import Path

import torch

from core.spec.precision import NumberFormat, SixteenBits

_DTYPES: dict[NumberFormat, torch.dtype] = {
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


def dtype_of(name: NumberFormat) -> torch.dtype:
    """Return the dtype of base weights by what a job calls it."""
    return _DTYPES[name]


def sixteen_bits_of(device: torch.device) -> SixteenBits | None:
    """Return the format of 16 bits that `device` computes in; None for one that has none.

    That is fp16 on a CUDA device that only emulates bf16; a CPU has no use for fp16.
    """
    if has_native_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else None


def name_of(dtype: torch.dtype) -> NumberFormat:
    """Return what the dtype of base weights is called in a job."""
    return next(name for name, named in _DTYPES.items() if named == dtype)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return set()
    flags = (line for line in lines if line.lower().startswith(("flags", "features")))
    return set(next(flags, "").partition(":")[2].split())
