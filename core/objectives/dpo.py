"""Direct preference optimisation: the chosen answer becomes likelier than the rejected one.

The loss of a pair is -log σ(β · (r(chosen) - r(rejected))), where r, the implicit reward of an
answer, is its log-probability by the model less that by the reference. Rafailov et al. 2023,
https://arxiv.org/abs/2305.18290. With label smoothing ε the pair counts as the wrong way round
with weight ε: conservative DPO of https://ericmitchell.ai/cdpo.pdf.
"""

# P pairs, A = 2 P answers, L labelled tokens, E hidden size

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.adapters.memory import OutOfMemory, within_memory
from core.batching.packing import collate, pack
from core.batching.render import Rendered, render_examples
from core.batching.rows import InvalidRow, PairRow, Row
from core.batching.template import NO_CONTEXT, TemplateContext
from core.datasets.formats import Example, PreferenceExample
from core.models.heads import LossSums
from core.models.log_probabilities import log_probabilities
from core.models.output_head import output_head
from core.objectives.objective import only


@dataclass(frozen=True)
class Dpo:
    """Trains on pairs. Both answers of a pair stand in the same packed batch.

    The log-probabilities of the reference are computed once, in `prepare`: a function of the
    untrained weights, the rows and the budget alone, so that a resumed run finds the same. This
    takes one forward pass over the data per run; a reference in every step takes one per epoch.
    """

    tokenizer: PreTrainedTokenizerFast
    beta: float
    label_smoothing: float
    continues: bool
    """The job trains a tuned model further, so the reference is that model, not its base."""
    context: TemplateContext = NO_CONTEXT
    _reference: dict[PairRow, tuple[float, float]] = field(default_factory=dict)
    """Log-probabilities of both answers."""

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[PairRow]:
        pairs = only(PreferenceExample, examples, "two answers, a chosen and a rejected one,")
        chosen = self._answers([(line, pair.chosen) for line, pair in pairs])
        rejected = self._answers([(line, pair.rejected) for line, pair in pairs])
        found = [PairRow(a.line, a, b) for a, b in zip(chosen, rejected, strict=True)]
        for pair in found:
            if not (pair.chosen.targets and pair.rejected.targets):
                raise InvalidRow(pair.line, "an answer has no token that could be trained")
            if pair.chosen.tokens == pair.rejected.tokens:
                raise InvalidRow(pair.line, "both answers are the same tokens; delete the row")
        return found

    def _answers(self, examples: Sequence[tuple[int, Rendered]]) -> list[Row]:
        """Return a row for each answer; InvalidRow for one that needs several."""
        rows = render_examples(self.tokenizer, examples, self.context)
        if len(rows) != len(examples):
            line = next(a.line for a, b in pairwise(rows) if a.line == b.line)
            raise InvalidRow(
                line,
                "the chat template of the base model shows an earlier part of an answer otherwise "
                "once another message follows, so the answer does not fit one row; end each answer "
                "with its first assistant message",
            )
        return rows

    @torch.no_grad()
    def prepare(self, adapted: AdaptedModel, rows: Sequence[PairRow], budget_tokens: int) -> None:
        whole_model = adapted.config is None
        adapted.model.eval()
        with nullcontext() if whole_model or self.continues else adapted.off():
            while missing := [row for row in dict.fromkeys(rows) if row not in self._reference]:
                try:
                    self._add_reference(adapted, pack(missing, budget_tokens))
                except OutOfMemory as shortage:
                    budget_tokens = min(budget_tokens, shortage.half)

    def _add_reference(
        self, adapted: AdaptedModel, micro_batches: Sequence[Sequence[PairRow]]
    ) -> None:
        for rows in micro_batches:
            with within_memory(rows):
                chosen_P, rejected_P = _log_probabilities(adapted, rows)
            values = zip(chosen_P.tolist(), rejected_P.tolist(), strict=True)
            self._reference.update(zip(rows, values, strict=True))

    def loss(self, adapted: AdaptedModel, rows: Sequence[PairRow]) -> LossSums:
        chosen_P, rejected_P = _log_probabilities(adapted, rows)
        reference_P2 = chosen_P.new_tensor([self._reference[row] for row in rows])
        rewards_P = chosen_P - reference_P2[:, 0], rejected_P - reference_P2[:, 1]
        margins_P = self.beta * (rewards_P[0] - rewards_P[1])
        losses_P = -(1 - self.label_smoothing) * logsigmoid(margins_P)
        losses_P = losses_P - self.label_smoothing * logsigmoid(-margins_P)
        correct = (margins_P > 0).sum()
        return LossSums(losses_P.sum(), len(rows), correct, losses_P.detach())


def _log_probabilities(adapted: AdaptedModel, rows: Sequence[PairRow]) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities (P,) of all chosen and of all rejected answers."""
    answers = [answer for row in rows for answer in (row.chosen, row.rejected)]
    batch = collate(answers, adapted.model.device)
    hidden_LE = adapted.hidden_states(batch).index_select(0, batch.predicting_L)
    found_L = log_probabilities(hidden_LE, output_head(adapted.model), batch.targets_L)
    found_A = found_L.new_zeros(len(answers)).index_add(0, batch.rows_L, found_L)
    return found_A[::2], found_A[1::2]
