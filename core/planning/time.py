"""The time of a step on a device whose speed was measured."""

import math

from core.planning.cost import StepCost
from core.spec.calibration import Calibration, ProductSpeed
from core.spec.precision import NumberFormat

SMALL_PRODUCT = 2 * 128 * 256 * 256
LARGE_PRODUCT = 2 * 512 * 768 * 768
"""Operations of the products whose speed is measured (`core/spec/calibration.py`)."""


def step_seconds(cost: StepCost, calibration: Calibration, precision: NumberFormat) -> float:
    """Return the time of a step on a calibrated device."""
    is_fast = precision != "fp32" and (calibration.kind == "cuda" or calibration.native_bf16)
    speed = calibration.bf16 if is_fast else calibration.fp32
    return (
        sum(count * size / product_speed(speed, size) for size, count in cost.products)
        + cost.moved_bytes / calibration.bytes_per_second
        + cost.operations * calibration.operation_seconds
    )


def product_speed(speed: ProductSpeed, operations: float) -> float:
    """Return the speed of a product of this size, between the measured ones by its logarithm."""
    span = math.log(LARGE_PRODUCT / SMALL_PRODUCT)
    share = math.log(max(1.0, operations) / SMALL_PRODUCT) / span
    share = min(1.0, max(-0.5, share))
    return speed.small * math.pow(speed.large / speed.small, share)
