"""Loss and token accuracy over held-out rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import within_memory
from core.batching.packing import pack
from core.batching.rows import TrainingRow
from core.objectives.objective import Objective


@dataclass(frozen=True)
class Validation:
    """Mean loss in nats per target, and the share of correctly predicted targets."""

    loss: float
    accuracy: float


@torch.no_grad()
def validate(
    adapted: AdaptedModel,
    objective: Objective[Any],
    rows: Sequence[TrainingRow],
    budget_tokens: int,
    stop: Callable[[], bool],
) -> Validation | None:
    """Evaluate `rows` in micro-batches of `budget_tokens`; None if `stop` returned True.

    Leaves the model in evaluation mode. Raises OutOfMemory if a micro-batch does not fit.
    """
    loss, correct, weight = 0.0, 0, 0
    if not objective.begin_step(adapted, rows, budget_tokens, stop):
        return None
    adapted.model.eval()
    for micro_batch in pack(rows, budget_tokens):
        if stop():
            return None
        with within_memory(micro_batch):
            sums = objective.loss(adapted, micro_batch)
        loss += sums.loss.item()
        correct += int(sums.correct)
        weight += sums.targets
    return Validation(loss / weight, correct / weight)
