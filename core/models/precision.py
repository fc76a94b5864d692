"""Which device a process computes on, and in which number format."""

from pathlib import Path

import torch

from core.spec.precision import NumberFormat, SixteenBits
from core.spec.training import Precision

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


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype of the base weights by the device alone; `auto` is bf16 where it is native.

    Elsewhere it is fp16 on a CUDA device, and fp32 on a CPU, which has no use for fp16. What 16
    bits cost a base is for `PrecisionChooser` to weigh.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if has_native_bf16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def dtype_of(name: NumberFormat) -> torch.dtype:
    """Return the dtype of base weights by what a job calls it."""
    return _DTYPES[name]


def sixteen_bits_of(device: torch.device) -> SixteenBits | None:
    """Return the format of 16 bits that `device` computes in; None for one that has none."""
    name = name_of(resolve_precision("auto", device))
    return None if name == "fp32" else name


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
