"""Simple preference optimization: preferences by the mean log-probability, without a reference.

The loss of a pair is -log σ(β · (m(chosen) - m(rejected)) - γ), where m of an answer is the mean
log-probability of its tokens: a reward that needs no other model and does not grow with the length.
The chosen answer has to lead by the margin γ. Meng et al. 2024, https://arxiv.org/abs/2405.14734.
"""

# P pairs, A = 2 P answers

from collections.abc import Sequence
from dataclasses import dataclass

from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.batching.rows import PairRow
from core.batching.template import NO_CONTEXT, TemplateContext
from core.datasets.formats import Example
from core.models.heads import LossSums
from core.objectives.answers import both_answers, mean_log_probabilities, pair_rows
from core.objectives.objective import Objective


@dataclass(frozen=True)
class Simpo(Objective[PairRow]):
    """Trains on pairs. Both answers of a pair are in the same packed batch."""

    tokenizer: PreTrainedTokenizerFast
    beta: float
    gamma: float
    context: TemplateContext = NO_CONTEXT

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[PairRow]:
        return pair_rows(self.tokenizer, self.context, examples)

    def loss(self, adapted: AdaptedModel, rows: Sequence[PairRow]) -> LossSums:
        means_A = mean_log_probabilities(adapted, [a for row in rows for a in both_answers(row)])
        leads_P = means_A[::2] - means_A[1::2]
        losses_P = -logsigmoid(self.beta * leads_P - self.gamma)
        return LossSums(losses_P.sum(), len(rows), (leads_P > 0).sum(), losses_P.detach())
