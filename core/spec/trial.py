"""The trials of a sweep: their results, and how they end."""

from enum import StrEnum

from core.spec.base import Spec

WHOLE_RUN = 1.0
"""The share of a complete run."""


class TrialOutcome(StrEnum):
    """How a trial ended. Until then it has none."""

    WON = "won"
    LOST = "lost"
    """It was worse than others at a rung or at the end."""
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrialResult(Spec):
    """Held-out loss and accuracy of a trial after `step`, where it had reached `share`.

    At the end of the run they are those of the weights of the final model.
    """

    share: float
    step: int
    loss: float | None
    accuracy: float | None
