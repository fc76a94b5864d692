"""Odds ratio preference optimization: demonstrations and preferences in one loss, no reference.

The loss of a pair is -log p(chosen) - β · log σ(log odds(chosen) - log odds(rejected)), where p of
an answer is the geometric mean over its tokens and odds = p / (1 - p). The first term is the mean
cross entropy of the chosen answer. β is the λ of Hong et al. 2024, https://arxiv.org/abs/2403.07691.
"""

# P pairs, A = 2 P answers

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.batching.rows import PairRow
from core.batching.template import NO_CONTEXT, TemplateContext
from core.datasets.formats import Example
from core.models.heads import LossSums
from core.objectives.answers import both_answers, mean_log_probabilities, pair_rows
from core.objectives.objective import Objective

MOST_CERTAIN = -1e-6
"""The upper limit of log p: at 0 the odds would be infinite."""


@dataclass(frozen=True)
class Orpo(Objective[PairRow]):
    """Trains on pairs. Both answers of a pair are in the same packed batch."""

    tokenizer: PreTrainedTokenizerFast
    beta: float
    context: TemplateContext = NO_CONTEXT

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[PairRow]:
        return pair_rows(self.tokenizer, self.context, examples)

    def loss(self, adapted: AdaptedModel, rows: Sequence[PairRow]) -> LossSums:
        means_A = mean_log_probabilities(adapted, [a for row in rows for a in both_answers(row)])
        log_odds_A = _log_odds(means_A)
        ratios_P = log_odds_A[::2] - log_odds_A[1::2]
        losses_P = -means_A[::2] - self.beta * logsigmoid(ratios_P)
        return LossSums(losses_P.sum(), len(rows), (ratios_P > 0).sum(), losses_P.detach())


def _log_odds(log_p: Tensor) -> Tensor:
    """Return log(p / (1 - p)), without the cancellation of 1 - p near either end."""
    log_p = log_p.clamp(max=MOST_CERTAIN)
    log_rest = torch.where(
        log_p < -math.log(2), torch.log1p(-log_p.exp()), torch.log(-torch.expm1(log_p))
    )
    return log_p - log_rest
