"""The learning rate of every step, with the formulas of transformers' schedulers."""

import math
from typing import assert_never

from core.spec.training import TrainingSpec

POLYNOMIAL_END = 1e-7
"""The final rate of the polynomial schedule (of degree 1)."""
INVERSE_SQRT_STEPS = 10_000
"""Without warm-up, the steps until the inverse square root reaches 1 / √2."""


def learning_rate(spec: TrainingSpec, step: int, total_steps: int) -> float:
    """Return the rate of `step` (1 for the first): linear warm-up from 0, then the schedule.

    The last step is never part of the warm-up, so that a run of one step trains.
    """
    peak = peak_rate(spec)
    done = step - 1
    warmup_steps = min(math.ceil(spec.warmup_ratio * total_steps), total_steps - 1)
    if done < warmup_steps:
        return peak * done / warmup_steps
    progress = (done - warmup_steps) / max(1, total_steps - warmup_steps)
    match spec.schedule:
        case "cosine":
            share = 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            share = 1 - progress
        case "constant":
            share = 1.0
        case "polynomial":
            end = min(1.0, POLYNOMIAL_END / peak)
            share = (1 - end) * (1 - progress) + end
        case "inverse_sqrt":
            timescale = warmup_steps or INVERSE_SQRT_STEPS
            share = math.sqrt(timescale / (done + timescale - warmup_steps))
        case _:
            assert_never(spec.schedule)
    return peak * share


def peak_rate(spec: TrainingSpec) -> float:
    """Return the peak rate; ValueError while it is still `"auto"`."""
    if isinstance(spec.learning_rate, str):
        raise ValueError(
            "training.learning_rate is still 'auto'; `core.training.learning_rate.settled` "
            "resolves it once the base and the steps are known"
        )
    return spec.learning_rate
