"""The best evaluation of a run, and early stopping."""

from collections.abc import Sequence

from core.artifacts.metrics import StepMetrics


def best_step(curve: Sequence[StepMetrics]) -> StepMetrics | None:
    """Return the first entry with the lowest held-out loss; None without evaluations."""
    return min(_evaluated(curve), key=_loss, default=None)


def is_out_of_patience(curve: Sequence[StepMetrics], patience: int | None) -> bool:
    """Whether the last `patience` evaluations were no better than an earlier one.

    False if the last step was not evaluated.
    """
    if patience is None or not curve or curve[-1].valid_loss is None:
        return False
    evaluated = _evaluated(curve)
    best = min(evaluated, key=_loss)
    return len(evaluated) - 1 - evaluated.index(best) >= patience


def _evaluated(curve: Sequence[StepMetrics]) -> list[StepMetrics]:
    return [entry for entry in curve if entry.valid_loss is not None]


def _loss(entry: StepMetrics) -> float:
    assert entry.valid_loss is not None
    return entry.valid_loss
