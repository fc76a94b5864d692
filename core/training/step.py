"""Forward and backward of one optimiser step, in as many micro-batches as the budget asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from core.batching.order import derived_seed
from core.batching.packing import collate, pack
from core.batching.rows import Row
from core.objectives.supervised import supervised_loss


@dataclass(frozen=True)
class StepSums:
    """What the rows of one step add up to."""

    loss: float
    """Nats over all labelled tokens."""
    correct: int
    labelled_tokens: int
    tokens: int


def accumulate_gradients(
    model: PreTrainedModel,
    rows: Sequence[Row],
    budget_tokens: int,
    seed: int,
    stop: Callable[[], bool],
) -> StepSums | None:
    """Add the gradient of the mean loss per labelled token of `rows`; None when told to stop.

    The mean is over the whole step, so the split into micro-batches does not change it. Dropout
    draws from (seed, micro-batch); pass a seed that depends on the step.
    """
    labelled_tokens = sum(row.labelled_tokens for row in rows)
    loss, correct = 0.0, 0
    model.train()
    for index, micro_batch in enumerate(pack(rows, budget_tokens)):
        if stop():
            return None
        torch.manual_seed(derived_seed(seed, index))
        sums = supervised_loss(model, collate(micro_batch, model.device))
        (sums.loss / labelled_tokens).backward()
        loss += sums.loss.item()
        correct += int(sums.correct)
    return StepSums(loss, correct, labelled_tokens, sum(len(row.tokens) for row in rows))
