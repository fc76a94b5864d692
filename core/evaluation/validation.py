"""Loss and token accuracy over held-out rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from core.batching.packing import PackedBatch, collate, pack
from core.batching.rows import Row
from core.models.heads import LossSums


@dataclass(frozen=True)
class Validation:
    """Mean nats per labelled token, and the share of them predicted exactly."""

    loss: float
    token_accuracy: float


@torch.no_grad()
def validate(
    model: PreTrainedModel,
    rows: Sequence[Row],
    budget_tokens: int,
    loss_of: Callable[[PackedBatch], LossSums],
    stop: Callable[[], bool],
) -> Validation | None:
    """Evaluate `rows` in micro-batches of `budget_tokens`; None when `stop` turned true.

    `loss_of` is the objective, already bound to `model`, which is left in evaluation mode.
    """
    loss, correct, weight = 0.0, 0, 0
    model.eval()
    for micro_batch in pack(rows, budget_tokens):
        if stop():
            return None
        sums = loss_of(collate(micro_batch, model.device))
        loss += sums.loss.item()
        correct += int(sums.correct)
        weight += sums.weight
    return Validation(loss / weight, correct / weight)
