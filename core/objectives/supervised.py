"""Next-token cross entropy on the labelled tokens of demonstrations."""

# T tokens, L labelled tokens, E hidden size

from transformers import PreTrainedModel

from core.batching.packing import PackedBatch
from core.models.heads import LossSums, labelled_cross_entropy


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
    return labelled_cross_entropy(hidden_LE, head_VE, batch.targets_L)
