"""Counts the bytes that autograd keeps of a forward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.adapters.adapted import AdaptedModel
from core.batching.rows import TrainingRow
from core.objectives.objective import Objective


def saved_bytes(
    adapted: AdaptedModel, objective: Objective[Any], rows: Sequence[TrainingRow]
) -> int:
    """Return the bytes of all memory that the graph of the loss keeps, each once.

    The weights, which exist anyway, do not count.
    """
    own = {_place(tensor) for tensor in adapted.model.parameters()}
    own |= {_place(tensor) for tensor in adapted.model.buffers()}
    own |= {_place(tensor) for tensor in adapted.parameters}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _place(tensor) not in own:
            kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    adapted.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sums = objective.loss(adapted, rows)
    total = sum(kept.values())
    del sums
    return total


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
