"""Cross entropy on the targets of an encoder-decoder."""

# L target tokens, E hidden size

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.batching.padding import pad
from core.batching.rows import SourceTargetRow
from core.batching.source_target import render_source_targets
from core.batching.template import NO_CONTEXT, TemplateContext
from core.datasets.formats import ChatExample, CompletionExample, Example
from core.models.heads import LossSums, labelled_cross_entropy
from core.models.output_head import output_head
from core.objectives.next_token import sums_of_tokens
from core.objectives.objective import Objective, only


@dataclass(frozen=True)
class SequenceToSequence(Objective[SourceTargetRow]):
    """Trains on all tokens of the targets, as with transformers' `labels`."""

    tokenizer: PreTrainedTokenizerFast
    context: TemplateContext = NO_CONTEXT

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[SourceTargetRow]:
        kinds = (ChatExample, CompletionExample)
        wanted = "a prompt with its completion, an instruction with its output, or a conversation"
        return render_source_targets(self.tokenizer, only(kinds, examples, wanted), self.context)

    def loss(self, adapted: AdaptedModel, rows: Sequence[SourceTargetRow]) -> LossSums:
        config = adapted.model.config
        start, padding = config.decoder_start_token_id, config.pad_token_id
        batch = pad(rows, start, padding, adapted.model.device)
        hidden_LE = adapted.decoder_states(batch).index_select(0, batch.predicting_L)
        head = output_head(adapted.model)
        found = labelled_cross_entropy(hidden_LE, head, batch.targets_L)
        return sums_of_tokens(found, batch.rows_L, len(rows))
