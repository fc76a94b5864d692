"""A resident model that reads whole texts, packed: each gets label probabilities or a vector."""

# B texts, T tokens of a packed batch, E hidden size, N labels, D dimensions of a vector

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.batching.packing import lay_out, pack
from core.batching.rows import LabelledRow
from core.engine.device.switched_model import SwitchedModel, by_model
from core.engine.policy.request import AnySequence, LabelsSpec
from core.engine.policy.residency import Tally
from core.engine.policy.step import Chunk
from core.engine.results import TextResult, TextResults
from core.models.attention import use_packed_attention
from core.models.embedder import pool
from core.objectives.classification import classify
from core.spec.embedding import PoolingSpec

BATCH_TOKENS = 8192
"""Tokens of the texts in one forward pass; bounds the memory of long texts."""


class TextModel(SwitchedModel):
    """A model with a classification head, which is part of each classifier's adapter."""

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
    def run(self, chunks: Sequence[Chunk]) -> TextResults:
        sequences: list[AnySequence] = []
        results: list[TextResult] = []
        for group in by_model([chunk.sequence for chunk in chunks]):
            adapted = self._activate(group[0])
            for wanted, part in _batches(group):
                texts = [sequence.all_tokens for sequence in part]
                sequences += part
                results += _results(adapted, texts, wanted)
        return TextResults(sequences, results)


def _batches(
    sequences: Sequence[AnySequence],
) -> Iterator[tuple[LabelsSpec | PoolingSpec, list[AnySequence]]]:
    """Yield the texts of each forward pass, which want the same."""
    by_result: dict[LabelsSpec | PoolingSpec, list[AnySequence]] = {}
    for sequence in sequences:
        by_result.setdefault(sequence.request.wanted, []).append(sequence)
    for wanted, alike in by_result.items():
        rows = [  # numbered by their index
            LabelledRow(index, tuple(sequence.all_tokens), labels=())
            for index, sequence in enumerate(alike)
        ]
        for part in pack(rows, BATCH_TOKENS):
            yield wanted, [alike[row.line] for row in part]


def _results(
    adapted: AdaptedModel, texts: Sequence[Sequence[int]], wanted: LabelsSpec | PoolingSpec
) -> list[TextResult]:
    if isinstance(wanted, PoolingSpec):
        batch = lay_out(texts, adapted.model.device)
        states = adapted.hidden_states(batch).split(batch.segment_lengths)
        return _bytes(pool(states, wanted))
    logits_BN = classify(adapted, texts)
    scores_BN = logits_BN.sigmoid() if wanted.multi_label else logits_BN.softmax(dim=-1)
    return [tuple(scores_N) for scores_N in scores_BN.tolist()]


def _bytes(vectors_BD: Tensor) -> list[TextResult]:
    """Return each vector as little-endian 32-bit floats."""
    return [vector_D.tobytes() for vector_D in vectors_BD.cpu().numpy().astype("<f4", copy=False)]
