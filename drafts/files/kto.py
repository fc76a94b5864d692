"""Kahneman-Tversky optimisation: answers that are good become likelier, bad ones less likely.

With the implicit reward r of an answer, its log-probability by the model less that by the
reference, the loss of a good answer is w_d · (1 - σ(β · (r - z))), of a bad one
w_u · (1 - σ(β · (z - r))). z is what the model gives any answer: the mean reward of answers to
other prompts, 0 at least and without a gradient. Ethayarajh et al. 2024,
https://arxiv.org/abs/2402.01306.

z is that of a whole optimiser step, so that its split into micro-batches changes nothing. Each row
gets one such answer for the whole run, that of the nearest row before it with another prompt: the
reference of both is computed once.
"""

# B rows

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import within_memory
from core.batching.packing import pack
from core.batching.rows import RatedRow, Row
from core.batching.template import NO_CONTEXT, TemplateContext
from core.datasets.formats import Example, RatedExample
from core.models.heads import LossSums
from core.objectives.answers import Reference, answer_log_probabilities, answer_rows
from core.objectives.objective import Objective, only


@dataclass
class Kto(Objective[RatedRow]):
    """Trains on rated answers. `max_length` bounds the tokens of an answer to another prompt."""

    tokenizer: PreTrainedTokenizerFast
    beta: float
    desirable_weight: float
    undesirable_weight: float
    max_length: int
    reference: Reference
    context: TemplateContext = NO_CONTEXT
    _mismatched: dict[RatedRow, Row] = field(default_factory=dict, init=False)
    _usual_reward: float = field(default=0.0, init=False)
    """z of the step under way."""

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[RatedRow]:
        rated = only(RatedExample, examples, "an answer with a label, true or false,")
        rows = answer_rows(self.tokenizer, self.context, [(line, each.answer) for line, each in rated])
        return [
            RatedRow(row.line, row.tokens, row.trained, each.is_good)
            for row, (_, each) in zip(rows, rated, strict=True)
        ]

    def prepare(self, adapted: AdaptedModel, rows: Sequence[RatedRow], budget_tokens: int) -> None:
        self._mismatched = mismatched(rows, self.max_length)
        for answers in (rows, list(self._mismatched.values())):
            self.reference.compute(adapted, answers, lambda answer: (answer,), budget_tokens)

    @torch.no_grad()
    def begin_step(
        self, adapted: AdaptedModel, rows: Sequence[RatedRow], budget_tokens: int
    ) -> None:
        total = 0.0
        adapted.model.eval()
        for answers in pack([self._mismatched[row] for row in rows], budget_tokens):
            with within_memory(answers):
                found_B = answer_log_probabilities(adapted, answers)
            total += float(found_B.sum()) - sum(self.reference.of(answers))
        self._usual_reward = max(0.0, total / len(rows))

    def loss(self, adapted: AdaptedModel, rows: Sequence[RatedRow]) -> LossSums:
        found_B = answer_log_probabilities(adapted, rows)
        rewards_B = found_B - found_B.new_tensor(self.reference.of(rows))
        is_good_B = torch.tensor([row.is_good for row in rows], device=found_B.device)
        leads_B = torch.where(is_good_B, 1, -1) * (rewards_B - self._usual_reward)
        weights_B = torch.where(is_good_B, self.desirable_weight, self.undesirable_weight)
        losses_B = weights_B * (1 - torch.sigmoid(self.beta * leads_B))
        return LossSums(losses_B.sum(), len(rows), (leads_B > 0).sum(), losses_B.detach())


def mismatched(rows: Sequence[RatedRow], max_length: int) -> dict[RatedRow, Row]:
    """Return for each row its prompt with the answer to another one, cut to `max_length` tokens.

    It is that of the nearest row before it with another prompt; the last rows come before the
    first. Without any it is that of the row before it.
    """
    found: dict[RatedRow, Row] = {}
    before = other = rows[-1]
    for row in (*rows, *rows):  # twice, so that the first rows know the last ones
        if _prompt(before) != _prompt(row):
            other = before
        fitting = other if _prompt(other) != _prompt(row) else before
        start = fitting.trained.index(True)
        tokens = _prompt(row) + fitting.tokens[start:]
        trained = (False,) * len(_prompt(row)) + fitting.trained[start:]
        found[row] = Row(row.line, tokens[:max_length], trained[:max_length])
        before = row
    return found


def _prompt(row: Row) -> tuple[int, ...]:
    return row.tokens[: row.trained.index(True)]
