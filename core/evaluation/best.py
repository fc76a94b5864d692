"""Which evaluation of a run was the best, and whether better ones are still to be expected."""

from collections.abc import Sequence

from core.artifacts.metrics import StepMetrics


def best_step(curve: Sequence[StepMetrics]) -> StepMetrics | None:
    """Return the entry with the lowest held-out loss, the first of equal ones; None without any."""
    evaluated = [entry for entry in curve if entry.valid_loss is not None]
    return min(evaluated, key=lambda entry: entry.valid_loss or 0.0, default=None)


def is_out_of_patience(curve: Sequence[StepMetrics], patience: int | None) -> bool:
    """Say whether the last `patience` evaluations were all no better than one before them."""
    evaluated = [entry for entry in curve if entry.valid_loss is not None]
    best = best_step(evaluated)
    if best is None or patience is None:
        return False
    return len(evaluated) - 1 - evaluated.index(best) >= patience
