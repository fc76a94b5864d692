"""Classification of texts, with the classification head that transformers has for each family.

An encoder's head reads the state of the first token, or the mean over all tokens; a decoder's head
reads the state of the last token.
"""

# B rows, T tokens of the packed batch, E hidden size, N labels

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import PreTrainedTokenizerFast

from core.adapters.adapted import AdaptedModel
from core.batching.packing import lay_out
from core.batching.rows import InvalidRow, LabelledRow
from core.datasets.formats import Example, LabelExample
from core.models.class_head import class_logits
from core.models.heads import LossSums
from core.objectives.objective import Objective, only


@dataclass(frozen=True)
class Classification(Objective[LabelledRow]):
    """Trains one label per text, or with `multi_label` an independent decision for each label."""

    tokenizer: PreTrainedTokenizerFast
    labels: tuple[str, ...]
    multi_label: bool

    def rows(self, examples: Sequence[tuple[int, Example]]) -> list[LabelledRow]:
        found = only(LabelExample, examples, "a text with its label")
        labels = [self._indices(line, example) for line, example in found]
        texts = class_tokens(self.tokenizer, [example.text for _, example in found])
        for (line, _), tokens in zip(found, texts, strict=True):
            if not tokens:
                raise InvalidRow(line, "the base model's tokenizer returns no tokens for the text")
        return [
            LabelledRow(line, tokens, indices)
            for (line, _), tokens, indices in zip(found, texts, labels, strict=True)
        ]

    def _indices(self, line: int, example: LabelExample) -> tuple[int, ...]:
        if not self.multi_label and len(example.labels) != 1:
            raise InvalidRow(
                line,
                f"the row has {len(example.labels)} labels; use one, or set multi_label",
            )
        for label in example.labels:
            if label not in self.labels:
                raise InvalidRow(
                    line,
                    f"the label {label!r} is not one of the labels of the job "
                    f"({_some(self.labels)}); correct it, or add it to the job",
                )
        return tuple(self.labels.index(label) for label in example.labels)

    def loss(self, adapted: AdaptedModel, rows: Sequence[LabelledRow]) -> LossSums:
        logits_BN = classify(adapted, [row.tokens for row in rows])
        if self.multi_label:
            truth_BN = torch.zeros_like(logits_BN)
            for index, row in enumerate(rows):
                truth_BN[index, list(row.labels)] = 1.0
            losses_BN = binary_cross_entropy_with_logits(logits_BN, truth_BN, reduction="none")
            losses_B = losses_BN.mean(dim=1)
            right_B = ((logits_BN > 0) == truth_BN.bool()).all(dim=1)
        else:
            truth_B = torch.tensor([row.labels[0] for row in rows], device=logits_BN.device)
            losses_B = cross_entropy(logits_BN, truth_B, reduction="none")
            right_B = logits_BN.argmax(dim=1) == truth_B
        return LossSums(losses_B.sum(), len(rows), right_B.sum(), losses_B.detach())


def _some(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:10])
    return shown if len(labels) <= 10 else f"{shown} and {len(labels) - 10} more"


def class_tokens(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the tokens of each text, with the tokenizer's special tokens."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False)
    return [tuple(ids) for ids in encoded["input_ids"]]


def classify(adapted: AdaptedModel, texts: Sequence[Sequence[int]]) -> Tensor:
    """Return the fp32 logits (B, N) of tokenized texts, run as one packed batch.

    Pooling includes the tokens of a soft prompt, as in PEFT.
    """
    states_TE, lengths = adapted.all_states(lay_out(texts, adapted.model.device))
    return class_logits(adapted.model, states_TE, lengths)
