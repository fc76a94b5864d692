"""The loss of objectives over single tokens: cross entropy of labelled tokens."""

# L labelled tokens, E hidden size

from collections.abc import Sequence

from torch import Tensor

from core.adapters.adapted import AdaptedModel
from core.batching.packing import collate
from core.batching.rows import Row
from core.models.heads import LossSums, TargetLosses, labelled_cross_entropy
from core.models.output_head import output_head


def next_token_loss(adapted: AdaptedModel, rows: Sequence[Row]) -> LossSums:
    """Return the loss of the labelled tokens of `rows`, run as one packed batch."""
    batch = collate(rows, adapted.model.device)
    hidden_LE = adapted.hidden_states(batch).index_select(0, batch.predicting_L)
    head = output_head(adapted.model)
    found = labelled_cross_entropy(hidden_LE, head, batch.targets_L)
    return sums_of_tokens(found, batch.rows_L, len(rows))


def sums_of_tokens(found: TargetLosses, rows_L: Tensor, rows: int) -> LossSums:
    """Return the sums of token losses; `rows_L` is the row of each token."""
    row_losses = found.losses_L.new_zeros(rows).index_add_(0, rows_L, found.losses_L)
    return LossSums(found.loss, len(rows_L), found.correct, row_losses)
