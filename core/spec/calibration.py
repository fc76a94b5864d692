"""The speed and memory of a worker's device, measured once per machine."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec

CALIBRATION_VERSION = 3
"""Raise it when the measurement changes; older figures are then measured again."""


class ProductSpeed(Spec):
    """Floating-point operations per second of a matrix product."""

    small: float = Field(gt=0, description="of 128 rows with a 256 x 256 matrix")
    large: float = Field(gt=0, description="of 512 rows with a 768 x 768 matrix")


class Calibration(Spec):
    """What the planner knows of a device."""

    version: int = CALIBRATION_VERSION
    machine: str = Field(description="a random id of this measurement, for figures of dry runs")
    device: str = Field(description="its name")
    kind: Literal["cpu", "cuda"]
    threads: int = Field(ge=1, description="of a training run")
    native_bf16: bool
    fp32: ProductSpeed
    bf16: ProductSpeed
    bytes_per_second: float = Field(gt=0, description="of memory, read and written")
    operation_seconds: float = Field(gt=0, description="of an operation on a few numbers")
    runtime_bytes: int = Field(ge=0, description="of a training child before it loads anything")
    memory_bytes: int = Field(gt=0, description="of the device, or the limit of the container")
    free_bytes: int = Field(ge=0, description="of the same, while the worker was idle")
