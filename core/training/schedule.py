"""The learning rate of every step, by the formulas of transformers' schedulers."""

import math

from core.spec.training import TrainingSpec


def learning_rate(spec: TrainingSpec, step: int, total_steps: int) -> float:
    """Return the rate of `step` (1 for the first): linear warm-up from 0, then the schedule.

    The last step is never one of the warm-up, so that a run of one step trains something.
    """
    done = step - 1
    warmup_steps = min(math.ceil(spec.warmup_ratio * total_steps), total_steps - 1)
    if done < warmup_steps:
        return spec.learning_rate * done / warmup_steps
    progress = (done - warmup_steps) / max(1, total_steps - warmup_steps)
    match spec.schedule:
        case "cosine":
            share = 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            share = 1 - progress
        case "constant":
            share = 1.0
    return spec.learning_rate * share
