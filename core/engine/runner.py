"""Runs groups on the device: reading of prompts, one token after the other, scores of texts."""
# B rows of a group, N labels, V vocabulary

import gc
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.batching.packing import pack
from core.batching.rows import LabelledRow
from core.engine.batches import Batch, begin
from core.engine.request import BaseKey, ModelKey
from core.engine.residency import Residency
from core.engine.resident import ResidentBase
from core.engine.scheduler import Group
from core.objectives.classification import classify

SCORED_TOKENS = 8192
"""Of texts to label that go through the model at once; bounds the memory of long ones."""


class Runner:
    """Owns the resident models and the tensors of every running group, from prefill to release.

    All methods belong to one thread, except those that only tell what is there.
    """

    def __init__(
        self,
        load_model: Callable[[BaseKey], PreTrainedModel],
        adapter_folder: Callable[[str], Path],
        *,
        max_bases: int,
        max_adapters: int,
    ) -> None:
        def load(base: BaseKey) -> ResidentBase:
            return ResidentBase(load_model(base), adapter_folder, max_adapters)

        self._bases: Residency[BaseKey, ResidentBase] = Residency(
            max_bases, load, unloaded=lambda base: _return_freed_memory()
        )
        self._batches: dict[Group, Batch] = {}

    def resident_bases(self) -> list[BaseKey]:
        return self._bases.keys()

    def resident_adapters(self) -> list[str]:
        residents = self._bases.values()
        return [sha256 for resident in residents for sha256 in resident.resident_adapters()]

    @torch.inference_mode(False)  # what is loaded here stays, as ordinary tensors
    def activate(self, model: ModelKey) -> AdaptedModel:
        """Return the model with the right adapter on, loading what is not resident."""
        in_use = {group.model for group in self._batches}
        resident = self._bases.acquire(model.base_key, {each.base_key for each in in_use})
        adapters_in_use = {
            each.adapter_sha256
            for each in in_use
            if each.base_key == model.base_key and each.adapter_sha256 is not None
        }
        return resident.activate(model.adapter_sha256, adapters_in_use)

    @torch.inference_mode()
    def prefill(self, group: Group) -> Tensor:
        """Read the prompts of a new group; return the logits (B, V) of its first tokens.

        Choices of one request share one row here and get their own only for decoding.
        """
        adapted = self.activate(group.model)
        requests = list(dict.fromkeys(sequence.request for sequence in group.sequences))
        batch, logits_BV = begin(adapted, [request.prompt_tokens for request in requests])
        rows = [requests.index(sequence.request) for sequence in group.sequences]
        if rows != list(range(len(requests))):
            batch.select(rows)
            logits_BV = logits_BV[rows]
        self._batches[group] = batch
        return logits_BV

    @torch.inference_mode()
    def decode(self, group: Group) -> Tensor:
        """Feed the last token of each sequence; return the logits (B, V) of the next ones."""
        model = self.activate(group.model).model
        last_B1 = torch.tensor(
            [[sequence.tokens[-1]] for sequence in group.sequences], device=model.device
        )
        return self._batches[group].decode(model, last_B1)

    @torch.inference_mode()
    def score(self, group: Group) -> list[tuple[float, ...]]:
        """Return the probabilities of the labels for each text of a group."""
        adapted = self.activate(group.model)
        texts = [  # rows numbered by their place in the group
            LabelledRow(place, sequence.request.texts[sequence.index], labels=())
            for place, sequence in enumerate(group.sequences)
        ]
        multi_label = group.sequences[0].request.multi_label
        scores: dict[int, tuple[float, ...]] = {}
        for part in pack(texts, SCORED_TOKENS):
            logits_BN = classify(adapted, [text.tokens for text in part])
            scores_BN = logits_BN.sigmoid() if multi_label else logits_BN.softmax(dim=-1)
            for text, row in zip(part, scores_BN.tolist(), strict=True):
                scores[text.line] = tuple(row)
        return [scores[place] for place in range(len(texts))]

    def retain(self, group: Group, rows: list[int]) -> None:
        """Keep only these rows of a group's batch; none frees it."""
        if not rows:
            self.release(group)
        elif group in self._batches:
            self._batches[group].select(rows)

    def release(self, group: Group) -> None:
        """Free what a group holds, if it holds anything."""
        self._batches.pop(group, None)


def _return_freed_memory() -> None:
    """Free models that only reference cycles hold, and give their memory back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
