"""The interface between the recipe and every objective."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
        """Return the rows of every (line, example), in order; usually one each.

        Raises InvalidRow for the first example that this objective cannot use.
        """

    def prepare(self, adapted: AdaptedModel, rows: Sequence[RowType], budget_tokens: int) -> None:
        """Prepare with the untrained model and all rows of the run, once before the first step."""

    def begin_step(
        self,
        adapted: AdaptedModel,
        rows: Sequence[RowType],
        budget_tokens: int,
        stop: Callable[[], bool],
    ) -> bool:
        """Prepare for the rows of an optimizer step or of an evaluation, before their loss.

        Returns False, unprepared, if `stop` returned True; it is called before every micro-batch.
        May leave the model in training or evaluation mode. Raises OutOfMemory or TrainingFailed if
        memory runs out.
        """
        return True

    @abstractmethod
    def loss(self, adapted: AdaptedModel, rows: Sequence[RowType]) -> LossSums:
        """Run one micro-batch and return its sums; the loss has the gradient."""


def only(
    kind: type[ExampleType] | tuple[type[ExampleType], ...],
    examples: Sequence[tuple[int, Example]],
    wanted: str,
) -> list[tuple[int, ExampleType]]:
    """Return the examples if all are of the kind `wanted`; otherwise raise InvalidRow."""
    accepted: list[tuple[int, ExampleType]] = []
    for line, example in examples:
        if not isinstance(example, kind):
            raise InvalidRow(line, f"this objective needs {wanted}, but the row is different")
        accepted.append((line, example))
    return accepted
