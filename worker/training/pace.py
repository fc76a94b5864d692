"""Estimates the remaining time of a run from the steps of this attempt."""

import time
from collections.abc import Sequence

from core.spec.events import StepDone


class Pace:
    """Measures the steps of this attempt; earlier attempts may have had another pace."""

    def __init__(self) -> None:
        self._steps = 0
        self._began_at: float | None = None

    def remaining_seconds(self, steps: Sequence[StepDone]) -> float:
        """Add consecutive steps that have just ended; return the estimated seconds left."""
        last = steps[-1]
        if self._began_at is None:
            self._began_at = time.monotonic() - sum(step.seconds for step in steps)
        self._steps += len(steps)
        seconds_per_step = (time.monotonic() - self._began_at) / self._steps
        return (last.total_steps - last.step) * seconds_per_step
