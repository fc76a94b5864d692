"""Direct preference optimization: the chosen answer becomes likelier than the rejected one.

The loss of a pair is -log σ(β · (r(chosen) - r(rejected))), where r, the implicit reward of an
answer, is its log-probability under the model minus that under the reference. Rafailov et al. 2023,
https://arxiv.org/abs/2305.18290. With label smoothing ε, the reversed pair has the weight ε:
conservative DPO, https://ericmitchell.ai/cdpo.pdf.
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
from core.objectives.answers import Reference, answer_log_probabilities, both_answers, pair_rows
from core.objectives.objective import Objective


@dataclass(frozen=True)
class Dpo(Objective[PairRow]):
    """Trains on pairs. Both answers of a pair are in the same packed batch."""

    tokenizer: PreTrainedTokenizerFast
    beta: float
    label_smoothing: float
    reference: Reference
    context: TemplateContext = NO_CONTEXT

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[PairRow]:
        return pair_rows(self.tokenizer, self.context, examples)

    def prepare(self, adapted: AdaptedModel, rows: Sequence[PairRow], budget_tokens: int) -> None:
        self.reference.compute(adapted, rows, both_answers, budget_tokens)

    def loss(self, adapted: AdaptedModel, rows: Sequence[PairRow]) -> LossSums:
        answers = [answer for row in rows for answer in both_answers(row)]
        found_A = answer_log_probabilities(adapted, answers)
        rewards_A = found_A - found_A.new_tensor(self.reference.of(answers))
        margins_P = self.beta * (rewards_A[::2] - rewards_A[1::2])
        losses_P = -(1 - self.label_smoothing) * logsigmoid(margins_P)
        losses_P = losses_P - self.label_smoothing * logsigmoid(-margins_P)
        correct = (margins_P > 0).sum()
        return LossSums(losses_P.sum(), len(rows), correct, losses_P.detach())
