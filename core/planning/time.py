"""The time of a step on a device whose speed was measured."""

import math

from core.cores import useful_threads
from core.planning.cost import step_cost
from core.planning.run import PlannedRun
from core.spec.calibration import Calibration, ProductSpeed
from core.spec.precision import NumberFormat

SMALL_PRODUCT = 2 * 128 * 256 * 256
LARGE_PRODUCT = 2 * 512 * 768 * 768
"""Operations of the products whose speed is measured (`core/spec/calibration.py`)."""


def step_seconds(
    run: PlannedRun, calibration: Calibration, precision: NumberFormat, *, checkpointed: bool
) -> float:
    """Return the time of an average step on a calibrated device.

    On a CPU, a run with short products uses fewer threads than the device was measured with. What a
    thread gains lies between nothing, if two share a core, and everything: the root is between.
    """
    cost = step_cost(run, precision, calibration.kind, checkpointed=checkpointed)
    is_fast = precision != "fp32" and (calibration.kind == "cuda" or calibration.native_bf16)
    speed = calibration.bf16 if is_fast else calibration.fp32
    share = math.sqrt(_threads(run, calibration) / calibration.threads)
    return (
        sum(count * size / product_speed(speed, size) for size, count in cost.products) / share
        + cost.moved_bytes / (calibration.bytes_per_second * share)
        + cost.operations * calibration.operation_seconds
    )


def _threads(run: PlannedRun, calibration: Calibration) -> int:
    if calibration.kind == "cuda":
        return calibration.threads
    tokens = min(run.tokens_per_step, run.training.micro_batch_tokens)
    return useful_threads(calibration.threads, run.outline.width, tokens)


def product_speed(speed: ProductSpeed, operations: float) -> float:
    """Return the speed of a product of this size, between the measured ones by its logarithm."""
    span = math.log(LARGE_PRODUCT / SMALL_PRODUCT)
    share = math.log(max(1.0, operations) / SMALL_PRODUCT) / span
    share = min(1.0, max(-0.5, share))
    return speed.small * math.pow(speed.large / speed.small, share)
