"""Calibrations of devices that tests pretend to have."""

from typing import Any

from core.spec.calibration import Calibration, ProductSpeed

GIB = 2**30


def device(gib: float = 24, **changes: Any) -> Calibration:
    """Return a CPU with two cores, of which nearly all memory is free."""
    values = {
        "machine": "machine-1",
        "device": "cpu",
        "kind": "cpu",
        "threads": 2,
        "native_bf16": True,
        "fp32": ProductSpeed(small=60e9, large=140e9),
        "bf16": ProductSpeed(small=100e9, large=390e9),
        "bytes_per_second": 12e9,
        "operation_seconds": 2e-6,
        "runtime_bytes": GIB // 2,
        "memory_bytes": int(gib * GIB),
        "free_bytes": int(gib * GIB * 0.9),
    }
    return Calibration.model_validate(values | changes)
