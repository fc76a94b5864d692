"""What every objective offers to the recipe."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from core.adapters.adapted import AdaptedModel
from core.batching.rows import TrainingRow
from core.datasets.formats import Example
from core.models.heads import LossSums

RowType = TypeVar("RowType", bound=TrainingRow)


class Objective(Protocol[RowType]):
    """Turns examples into rows, and rows into a loss."""

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[RowType]:
        """Return a row per (line, example), in order; InvalidRow for the first that is none."""

    def prepare(self, adapted: AdaptedModel, rows: Sequence[RowType], budget_tokens: int) -> None:
        """Look at the untrained model once, before the first step. Most have no need to."""

    def loss(self, adapted: AdaptedModel, rows: Sequence[RowType]) -> LossSums:
        """Run one micro-batch and return its sums; the loss carries the gradient."""
