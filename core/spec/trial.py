"""The trials of a sweep: their results, and how they end."""

from enum import StrEnum

from pydantic import Field

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
    """What a trial reached on held-out rows after `step`, the end of `share` of its steps.

    At the end of the run it is what the final model reached.
    """

    share: float
    step: int
    loss: float | None
    accuracy: float | None
    score: float | None = Field(
        None,
        description="mean of the sweep's grader; None without one, or if it scored less than half "
        "of the rows",
    )
