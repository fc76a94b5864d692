"""The rows of every optimizer step, and what follows it: a function of the spec."""

import math
from dataclasses import dataclass
from functools import lru_cache

from core.batching.order import steps_of_epoch
from core.spec.job import JobSpec

ROUNDING = 1e-6
"""Of a share times the steps: three tenths of ten steps are three."""


@dataclass(frozen=True)
class PlannedStep:
    """One optimizer step; `epoch` counts from 1."""

    number: int
    epoch: int
    rows: tuple[int, ...]
    """Indices of the rows."""
    ends_epoch: bool
    is_checkpointed: bool
    """Whether evaluation and checkpoint follow."""


@dataclass(frozen=True)
class StepPlan:
    """All steps of a run over a number of rows; a resumed run uses the remaining steps."""

    spec: JobSpec
    rows: int

    @property
    def total_steps(self) -> int:
        hyper = self.spec.training
        return hyper.max_steps or hyper.epochs * self._steps_per_epoch

    def rung_step(self, share: float | None) -> int | None:
        """Return the step, at least 1, that completes `share` of the run; None for its end."""
        if share is None:
            return None
        step = max(1, math.ceil(share * self.total_steps - ROUNDING))
        return step if step < self.total_steps else None

    def step(self, number: int) -> PlannedStep:
        """Return step `number`, 1 for the first. The last step ends its epoch, complete or not."""
        epoch, index = divmod(number - 1, self._steps_per_epoch)
        batch_size = self.spec.training.batch_size
        steps = _steps_of_epoch(self.spec.seed, epoch + 1, self.rows, batch_size)
        is_last = number == self.total_steps
        ends_epoch = is_last or index == len(steps) - 1
        every_steps = self.spec.evaluation.every_steps
        return PlannedStep(
            number=number,
            epoch=epoch + 1,
            rows=tuple(steps[index]),
            ends_epoch=ends_epoch,
            is_checkpointed=is_last or (number % every_steps == 0 if every_steps else ends_epoch),
        )

    def tokens_per_pass(self, tokens: int) -> float:
        """Return about the tokens of one forward pass if an epoch has `tokens` tokens."""
        return min(tokens / self._steps_per_epoch, self.spec.training.micro_batch_tokens)

    @property
    def _steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.spec.training.batch_size)


# every step needs the order of its epoch
_steps_of_epoch = lru_cache(maxsize=2)(steps_of_epoch)
