"""The device and the number formats of a process."""

from pathlib import Path

import torch

from core.spec.precision import NumberFormat, SixteenBits

_DTYPES: dict[NumberFormat, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}

_NATIVE_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Linux CPU flags: two of x86, and `bf16` of Arm."""


def pick_device() -> torch.device:
    """Return the first CUDA device, or the CPU. Initializes CUDA: call it only after forking."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_native_bf16(device: torch.device) -> bool:
    """Return whether `device` supports bf16 in hardware; emulation does not count."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_cpu_flags() & _NATIVE_BF16_FLAGS)


def dtype_of(name: NumberFormat) -> torch.dtype:
    """Return the dtype of a job's number format."""
    return _DTYPES[name]


def sixteen_bits_of(device: torch.device) -> SixteenBits | None:
    """Return the 16-bit format of `device`, or None.

    A CUDA device that only emulates bf16 uses fp16; a CPU never does.
    """
    if has_native_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else None


def name_of(dtype: torch.dtype) -> NumberFormat:
    """Return a job's number format for a dtype."""
    return next(name for name, named in _DTYPES.items() if named == dtype)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return set()
    flags = (line for line in lines if line.lower().startswith(("flags", "features")))
    return set(next(flags, "").partition(":")[2].split())
