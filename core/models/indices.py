"""Indices into a dimension of a tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor


def as_index(numbers: Sequence[int], device: torch.device) -> slice | Tensor:
    """Return the numbers as an index; a slice, which copies nothing, when they follow one another.

    There must be at least one.
    """
    first, end = numbers[0], numbers[0] + len(numbers)
    if list(numbers) == list(range(first, end)):
        return slice(first, end)
    return torch.tensor(numbers, device=device)
