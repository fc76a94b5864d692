"""The shared parts of objectives over whole answers: rows, log-probabilities, the reference."""

# A answers, L labelled tokens, E hidden size

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import OutOfMemory, within_memory
from core.batching.packing import collate, pack
from core.batching.render import Rendered, render_examples
from core.batching.rows import InvalidRow, PairRow, Row
from core.batching.template import TemplateContext
from core.datasets.formats import Example, PreferenceExample
from core.models.log_probabilities import log_probabilities
from core.models.output_head import output_head
from core.objectives.objective import RowType, only


def pair_rows(
    tokenizer: PreTrainedTokenizerFast,
    context: TemplateContext,
    examples: Sequence[tuple[int, Example]],
) -> list[PairRow]:
    """Return a row for each preference; InvalidRow for answers without a difference or a token."""
    pairs = only(PreferenceExample, examples, "two answers, a chosen and a rejected one,")
    chosen = answer_rows(tokenizer, context, [(line, pair.chosen) for line, pair in pairs])
    rejected = answer_rows(tokenizer, context, [(line, pair.rejected) for line, pair in pairs])
    found = [PairRow(a.line, a, b) for a, b in zip(chosen, rejected, strict=True)]
    for pair in found:
        if pair.chosen.tokens == pair.rejected.tokens:
            raise InvalidRow(pair.line, "both answers are the same tokens; delete the row")
    return found


def answer_rows(
    tokenizer: PreTrainedTokenizerFast,
    context: TemplateContext,
    examples: Sequence[tuple[int, Rendered]],
) -> list[Row]:
    """Return a row for each answer; InvalidRow for one that needs several, or has no token."""
    rows = render_examples(tokenizer, examples, context)
    if len(rows) != len(examples):
        line = next(a.line for a, b in pairwise(rows) if a.line == b.line)
        raise InvalidRow(
            line,
            "the chat template of the base model renders an earlier part of an answer differently "
            "once another message follows, so the answer does not fit one row; end each answer "
            "with its first assistant message",
        )
    for row in rows:
        if not row.targets:
            raise InvalidRow(row.line, "an answer has no token that could be trained")
    return rows


def both_answers(pair: PairRow) -> tuple[Row, Row]:
    """Return the chosen answer and the rejected one."""
    return pair.chosen, pair.rejected


def answer_log_probabilities(adapted: AdaptedModel, answers: Sequence[Row]) -> Tensor:
    """Return the log-probability (A,) of each answer, run as one packed batch."""
    batch = collate(answers, adapted.model.device)
    hidden_LE = adapted.hidden_states(batch).index_select(0, batch.predicting_L)
    found_L = log_probabilities(hidden_LE, output_head(adapted.model), batch.targets_L)
    return found_L.new_zeros(len(answers)).index_add(0, batch.rows_L, found_L)


def mean_log_probabilities(adapted: AdaptedModel, answers: Sequence[Row]) -> Tensor:
    """Return the mean log-probability (A,) of the tokens of each answer, in nats."""
    found_A = answer_log_probabilities(adapted, answers)
    return found_A / found_A.new_tensor([answer.targets for answer in answers])


@dataclass(frozen=True)
class Reference:
    """Log-probabilities of answers under the model before training, each computed once.

    They depend only on the initial weights, the rows and the budget, so a resumed run computes the
    same values. This costs one forward pass over the data per run; a reference in every step would
    cost one per epoch.
    """

    continues: bool
    """The job continues a tuned model, so the reference is that model, not its base."""
    _found: dict[Row, float] = field(default_factory=dict)

    def of(self, answers: Sequence[Row]) -> list[float]:
        """Return the log-probabilities of these answers, which must have been computed."""
        return [self._found[answer] for answer in answers]

    @torch.no_grad()
    def compute(
        self,
        adapted: AdaptedModel,
        rows: Sequence[RowType],
        answers_of: Callable[[RowType], Sequence[Row]],
        budget_tokens: int,
    ) -> None:
        """Run the initial model over all answers of `rows`, in smaller parts if memory runs out."""
        full_model = adapted.config is None
        adapted.model.eval()
        with nullcontext() if full_model or self.continues else adapted.off():
            while missing := [row for row in dict.fromkeys(rows) if self._lacks(answers_of(row))]:
                try:
                    for part in pack(missing, budget_tokens):
                        answers = [answer for row in part for answer in answers_of(row)]
                        with within_memory(part):
                            found_A = answer_log_probabilities(adapted, answers)
                        self._found.update(zip(answers, found_A.tolist(), strict=True))
                except OutOfMemory as shortage:
                    budget_tokens = min(budget_tokens, shortage.half)

    def _lacks(self, answers: Sequence[Row]) -> bool:
        return any(answer not in self._found for answer in answers)
