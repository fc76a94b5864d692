"""Forward and backward of one optimizer step, in micro-batches within the budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import within_memory
from core.batching.order import derived_seed
from core.batching.packing import pack
from core.batching.rows import TrainingRow
from core.objectives.objective import Objective


@dataclass(frozen=True)
class StepSums:
    """The sums over the rows of one step."""

    loss: float
    """In nats, over all targets."""
    correct: int
    targets: int
    tokens: int
    row_losses: Tensor
    """(rows,): the sum over the targets of each row in nats, on the CPU."""


def accumulate_gradients(
    adapted: AdaptedModel,
    objective: Objective[Any],
    rows: Sequence[TrainingRow],
    budget_tokens: int,
    seed: int,
    stop: Callable[[], bool],
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> StepSums | None:
    """Add the gradient of the mean loss per target of `rows`; return None if asked to stop.

    The mean is over the whole step, so the split into micro-batches does not change it. Dropout is
    seeded with (seed, micro-batch); pass a seed that depends on the step. The differentiated loss
    is multiplied by `scale`. After OutOfMemory, the gradients are incomplete.
    """
    targets = sum(row.targets for row in rows)
    loss, correct = 0.0, 0
    row_losses = torch.empty(len(rows))
    index_of = {id(row): index for index, row in enumerate(rows)}
    if not objective.begin_step(adapted, rows, budget_tokens, stop):
        return None
    adapted.model.train()
    for index, micro_batch in enumerate(pack(rows, budget_tokens)):
        if stop():
            return None
        torch.manual_seed(derived_seed(seed, index))
        with within_memory(micro_batch):
            sums = objective.loss(adapted, micro_batch)
            scale(sums.loss / targets).backward()
        loss += sums.loss.item()
        correct += int(sums.correct)
        row_losses[[index_of[id(row)] for row in micro_batch]] = sums.row_losses.float().cpu()
    return StepSums(loss, correct, targets, sum(row.length for row in rows), row_losses)
