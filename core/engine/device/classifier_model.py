"""A resident classifier: texts are packed, and every label gets a probability."""

# B texts, N labels

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.batching.packing import pack
from core.batching.rows import LabelledRow
from core.engine.device.switched_model import SwitchedModel, by_model
from core.engine.policy.request import AnySequence
from core.engine.policy.residency import Tally
from core.engine.policy.step import Chunk
from core.engine.results import Scored
from core.models.attention import use_packed_attention
from core.objectives.classification import classify

SCORED_TOKENS = 8192
"""Tokens of the texts in one forward pass; bounds the memory of long texts."""


class ClassifierModel(SwitchedModel):
    """A model with a classification head, which is part of each adapter."""

    def __init__(
        self,
        model: PreTrainedModel,
        adapter_folder: Callable[[str], Path],
        max_adapters: int,
        tally: Tally | None = None,
    ) -> None:
        use_packed_attention(model)  # texts are packed, as in training
        super().__init__(model, adapter_folder, max_adapters, tally)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Scored:
        sequences, scores = [], []
        for group in by_model([chunk.sequence for chunk in chunks]):
            sequences += group
            scores += self._scores(self._activate(group[0]), group)
        return Scored(sequences, scores)

    def _scores(
        self, adapted: AdaptedModel, sequences: Sequence[AnySequence]
    ) -> list[tuple[float, ...]]:
        texts = [  # rows numbered by their index in the group
            LabelledRow(index, tuple(sequence.all_tokens), labels=())
            for index, sequence in enumerate(sequences)
        ]
        found: dict[int, tuple[float, ...]] = {}
        for part in pack(texts, SCORED_TOKENS):
            logits_BN = classify(adapted, [text.tokens for text in part])
            for text, logits_N in zip(part, logits_BN, strict=True):
                multi_label = sequences[text.line].request.multi_label
                scores_N = logits_N.sigmoid() if multi_label else logits_N.softmax(dim=-1)
                found[text.line] = tuple(scores_N.tolist())
        return [found[index] for index in range(len(texts))]
