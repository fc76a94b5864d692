"""The adapters of a batch's rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate


@dataclass(frozen=True)
class Segments:
    """The adapters of a batch's rows, in order; None is the base alone."""

    adapters: tuple[str | None, ...]
    lengths: tuple[int, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first row of each segment, and the number of rows at the end."""
        return (0, *accumulate(self.lengths))

    def rows(self, group: Sequence[int]) -> list[int]:
        """Return the rows of the segments with these indices."""
        starts = self.starts
        return [row for index in group for row in range(starts[index], starts[index + 1])]
