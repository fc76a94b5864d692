"""Next-token cross entropy on the labelled tokens of demonstrations."""

# T tokens, L labelled tokens, E hidden size

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from core.batching.packing import PackedBatch
from core.models.heads import labelled_cross_entropy


@dataclass(frozen=True)
class LossSums:
    """Sums over labelled tokens, never means: steps of any packing add up to the same."""

    loss: Tensor
    """Nats, a scalar in fp32 that carries the gradient."""
    weight: int
    """Labelled tokens."""
    correct: Tensor
    """Labelled tokens that were the most probable ones."""


def supervised_loss(model: PreTrainedModel, batch: PackedBatch) -> LossSums:
    """Run `model`, which must use packed attention, over one micro-batch."""
    output = model.base_model(
        input_ids=batch.tokens_1T,
        position_ids=batch.positions_1T,
        segment_lengths=batch.segment_lengths,
        use_cache=False,
    )
    hidden_LE = output.last_hidden_state[0].index_select(0, batch.predicting_L)
    head_VE = model.get_output_embeddings().weight
    loss, correct = labelled_cross_entropy(hidden_LE, head_VE, batch.targets_L)
    return LossSums(loss, len(batch.targets_L), correct)
