"""Which adapter each row of a batch runs through."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True)
class Segments:
    """Which adapter the rows of a batch run through, in order; None is the base alone."""

    adapters: tuple[str | None, ...]
    lengths: tuple[int, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each segment begins, and where the last one ends: how many rows there are."""
        return (0, *accumulate(self.lengths))

    def rows(self, group: Sequence[int]) -> list[int]:
        """Return the rows of the batch that these segments, by their number, consist of."""
        starts = self.starts
        return [row for index in group for row in range(starts[index], starts[index + 1])]
