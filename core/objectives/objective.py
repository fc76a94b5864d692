"""What every objective offers to the recipe."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from core.adapters.adapted import AdaptedModel
from core.batching.rows import InvalidRow, TrainingRow
from core.datasets.formats import Example
from core.models.heads import LossSums

RowType = TypeVar("RowType", bound=TrainingRow)
ExampleType = TypeVar("ExampleType", bound=Example)


class Objective(ABC, Generic[RowType]):
    """Turns examples into rows, and rows into a loss."""

    @abstractmethod
    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[RowType]:
        """Return the rows of every (line, example), in order; mostly one each.

        Raises InvalidRow for the first example that is no row of this objective.
        """

    def prepare(self, adapted: AdaptedModel, rows: Sequence[RowType], budget_tokens: int) -> None:
        """Look at the untrained model once, before the first step, with all rows of the run."""

    def begin_step(
        self, adapted: AdaptedModel, rows: Sequence[RowType], budget_tokens: int
    ) -> None:
        """Prepare for the rows of an optimizer step or of an evaluation, before their loss.

        May leave the model in training or evaluation mode. Raises OutOfMemory or TrainingFailed if
        memory runs out.
        """

    @abstractmethod
    def loss(self, adapted: AdaptedModel, rows: Sequence[RowType]) -> LossSums:
        """Run one micro-batch and return its sums; the loss carries the gradient."""


def only(
    kind: type[ExampleType] | tuple[type[ExampleType], ...],
    examples: Sequence[tuple[int, Example]],
    wanted: str,
) -> list[tuple[int, ExampleType]]:
    """Return the examples if they are all of a kind; InvalidRow says that `wanted` is needed."""
    accepted: list[tuple[int, ExampleType]] = []
    for line, example in examples:
        if not isinstance(example, kind):
            raise InvalidRow(line, f"this objective needs {wanted}, and the row is something else")
        accepted.append((line, example))
    return accepted
