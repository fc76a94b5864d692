"""Next-token cross entropy on the labelled tokens of demonstrations."""

# L labelled tokens, E hidden size

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.batching.packing import collate
from core.batching.render import render_examples
from core.batching.rows import Row
from core.datasets.formats import Example
from core.models.heads import LossSums, labelled_cross_entropy


@dataclass(frozen=True)
class Supervised:
    """Trains what the assistant has to write."""

    tokenizer: PreTrainedTokenizerFast

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[Row]:
        return render_examples(self.tokenizer, examples)

    def prepare(self, adapted: AdaptedModel, rows: Sequence[Row], budget_tokens: int) -> None:
        pass

    def loss(self, adapted: AdaptedModel, rows: Sequence[Row]) -> LossSums:
        batch = collate(rows, adapted.model.device)
        hidden_LE = adapted.hidden_states(batch).index_select(0, batch.predicting_L)
        head_VE = adapted.model.get_output_embeddings().weight
        found = labelled_cross_entropy(hidden_LE, head_VE, batch.targets_L)
        row_losses = found.losses_L.new_zeros(len(rows))
        row_losses.index_add_(0, batch.rows_L, found.losses_L)
        return LossSums(found.loss, len(batch.targets_L), found.correct, row_losses)
