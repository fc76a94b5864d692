"""Kahneman-Tversky optimization: good answers become likelier, bad answers less likely.

The implicit reward r of an answer is its log-probability under the model minus that under the
reference. The loss of a good answer is w_d · (1 - σ(β · (r - z))), that of a bad one
w_u · (1 - σ(β · (z - r))). z estimates the KL divergence from the reference: the mean reward of
mismatched answers (each prompt with the answer to another prompt), at least 0, without a gradient.
Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306.

z is estimated once per optimizer step over all of its rows, so the split into micro-batches does
not change it. A row keeps its mismatched answer for the whole run, so the reference is computed
once for both.
"""

# B rows of a micro-batch

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import within_memory
from core.batching.packing import pack
from core.batching.rows import PairRow, RatedRow, Row
from core.batching.template import NO_CONTEXT, TemplateContext
from core.datasets.formats import Example, PreferenceExample, RatedExample
from core.models.heads import LossSums
from core.objectives.answers import (
    Reference,
    answer_log_probabilities,
    answer_rows,
    pair_rows,
)
from core.objectives.objective import Objective, only


@dataclass
class Kto(Objective[RatedRow]):
    """Trains on rated answers, or on preferences as a good and a bad answer each.

    `max_length` bounds the tokens of a mismatched answer.
    """

    tokenizer: PreTrainedTokenizerFast
    beta: float
    desirable_weight: float
    undesirable_weight: float
    max_length: int
    reference: Reference
    context: TemplateContext = NO_CONTEXT
    _mismatched: dict[RatedRow, Row] = field(default_factory=dict, init=False)
    _kl: float = field(default=0.0, init=False)
    """z of the current step or evaluation."""

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[RatedRow]:
        """Return a row for each rated answer, or two for each preference."""
        if examples and isinstance(examples[0][1], PreferenceExample):
            pairs = pair_rows(self.tokenizer, self.context, examples)
            return [row for pair in pairs for row in both_rated(pair)]
        rated = only(RatedExample, examples, "an answer with a label, true or false,")
        rows = answer_rows(
            self.tokenizer, self.context, [(line, each.answer) for line, each in rated]
        )
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
        self,
        adapted: AdaptedModel,
        rows: Sequence[RatedRow],
        budget_tokens: int,
        stop: Callable[[], bool],
    ) -> bool:
        total = 0.0
        adapted.model.eval()
        for answers in pack([self._mismatched[row] for row in rows], budget_tokens):
            if stop():
                return False
            with within_memory(answers):
                found_B = answer_log_probabilities(adapted, answers)
            total += float(found_B.sum()) - sum(self.reference.of(answers))
        self._kl = max(0.0, total / len(rows))
        return True

    def loss(self, adapted: AdaptedModel, rows: Sequence[RatedRow]) -> LossSums:
        found_B = answer_log_probabilities(adapted, rows)
        rewards_B = found_B - found_B.new_tensor(self.reference.of(rows))
        is_good_B = torch.tensor([row.is_good for row in rows], device=found_B.device)
        leads_B = torch.where(is_good_B, 1, -1) * (rewards_B - self._kl)
        weights_B = torch.where(is_good_B, self.desirable_weight, self.undesirable_weight)
        losses_B = weights_B * (1 - torch.sigmoid(self.beta * leads_B))
        return LossSums(losses_B.sum(), len(rows), (leads_B > 0).sum(), losses_B.detach())


def both_rated(pair: PairRow) -> tuple[RatedRow, RatedRow]:
    """Return the chosen answer as a good one and the rejected one as a bad one."""
    good, bad = pair.chosen, pair.rejected
    return (
        RatedRow(pair.line, good.tokens, good.trained, is_good=True),
        RatedRow(pair.line, bad.tokens, bad.trained, is_good=False),
    )


def mismatched(rows: Sequence[RatedRow], max_length: int) -> dict[RatedRow, Row]:
    """Return each row's prompt with the answer to another prompt, cut to `max_length` tokens.

    Every answer is used once, so good and bad ones have the same share in z as in the rows. The
    rows are ordered by prompt, and each gets the answer as many rows before as one prompt has at
    most. If one prompt has more than half of the rows, some get another answer to the same prompt.
    """
    by_prompt: dict[tuple[int, ...], list[RatedRow]] = {}
    for row in rows:
        by_prompt.setdefault(_prompt(row), []).append(row)
    ordered = list(chain.from_iterable(by_prompt.values()))
    most = max(map(len, by_prompt.values()))
    shift = most if most < len(ordered) else 1
    sources = ordered[-shift:] + ordered[:-shift]
    return {
        row: _with_answer_of(source, row, max_length)
        for row, source in zip(ordered, sources, strict=True)
    }


def _with_answer_of(source: Row, row: Row, max_length: int) -> Row:
    prompt, start = _prompt(row), len(_prompt(source))
    tokens = prompt + source.tokens[start:]
    trained = (False,) * len(prompt) + source.trained[start:]
    return Row(row.line, tokens[:max_length], trained[:max_length])


def _prompt(row: Row) -> tuple[int, ...]:
    return row.tokens[: row.trained.index(True)]
