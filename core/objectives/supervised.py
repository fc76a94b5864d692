"""Next-token cross entropy on the labelled tokens of demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.batching.render import render_examples
from core.batching.rows import Row
from core.batching.template import NO_CONTEXT, TemplateContext
from core.datasets.formats import ChatExample, CompletionExample, Example
from core.models.heads import LossSums
from core.objectives.next_token import next_token_loss
from core.objectives.objective import Objective, only


@dataclass(frozen=True)
class Supervised(Objective[Row]):
    """Trains the answers of the assistant."""

    tokenizer: PreTrainedTokenizerFast
    context: TemplateContext = NO_CONTEXT

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[Row]:
        kinds = (ChatExample, CompletionExample)
        wanted = "a conversation, an instruction with its output, or a prompt with its completion"
        return render_examples(self.tokenizer, only(kinds, examples, wanted), self.context)

    def loss(self, adapted: AdaptedModel, rows: Sequence[Row]) -> LossSums:
        return next_token_loss(adapted, rows)
