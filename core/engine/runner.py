"""Runs groups on the device: prefill and decode with a KV cache per group.

Prompts of a group are padded on the left, so that all rows continue at the same column;
mask and positions make each row compute what it would compute alone.
"""
# B rows of a group, T columns so far (padding and tokens), V vocabulary

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from core.engine.request import ModelKey
from core.engine.residency import Residency
from core.engine.resident import ResidentBase
from core.engine.scheduler import Group
from core.spec.run import BaseModelSpec


@dataclass
class _Batch:
    """The tensors of one group; rows are in the order of the group's sequences."""

    cache: DynamicCache
    mask_BT: Tensor
    """1 for a token, 0 for padding."""

    def select(self, rows: list[int]) -> None:
        index = torch.tensor(rows, device=self.mask_BT.device)
        self.cache.batch_select_indices(index)
        self.mask_BT = self.mask_BT[index]


class Runner:
    """Owns the resident models and the tensors of every running group, from prefill to release.

    All methods belong to one thread, except those that only tell what is there.
    """

    def __init__(
        self,
        load_model: Callable[[BaseModelSpec], PreTrainedModel],
        adapter_folder: Callable[[str], Path],
        *,
        max_bases: int,
        max_adapters: int,
    ) -> None:
        def load(base: BaseModelSpec) -> ResidentBase:
            _return_freed_memory()  # of the base that made room
            return ResidentBase(load_model(base), adapter_folder, max_adapters)

        self._bases: Residency[BaseModelSpec, ResidentBase] = Residency(max_bases, load)
        self._batches: dict[Group, _Batch] = {}

    def resident_bases(self) -> list[BaseModelSpec]:
        return self._bases.keys()

    def resident_adapters(self) -> list[str]:
        residents = self._bases.values()
        return [sha256 for resident in residents for sha256 in resident.resident_adapters()]

    def activate(self, model: ModelKey) -> PreTrainedModel:
        """Return the model with the right adapter on, loading what is not resident."""
        in_use = {group.model for group in self._batches}
        resident = self._bases.acquire(model.base, {each.base for each in in_use})
        adapters_in_use = {
            each.adapter_sha256
            for each in in_use
            if each.base == model.base and each.adapter_sha256 is not None
        }
        return resident.activate(model.adapter_sha256, adapters_in_use)

    @torch.inference_mode()
    def prefill(self, group: Group) -> Tensor:
        """Read the prompts of a new group; return the logits (B, V) of its first tokens.

        Choices of one request share one row here and get their own only for decoding.
        """
        model = self.activate(group.model)
        requests = list(dict.fromkeys(sequence.request for sequence in group.sequences))
        prompts = [request.prompt_tokens for request in requests]
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        ids_BT = torch.tensor(
            [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)],
            device=model.device,
        )
        mask_BT = torch.tensor(
            [[0] * pad + [1] * (longest - pad) for pad in padding], device=model.device
        )
        batch = _Batch(DynamicCache(config=model.config), mask_BT)
        logits_BV = _forward(model, batch, ids_BT)
        rows = [requests.index(sequence.request) for sequence in group.sequences]
        if rows != list(range(len(requests))):
            batch.select(rows)
            logits_BV = logits_BV[rows]
        self._batches[group] = batch
        return logits_BV

    @torch.inference_mode()
    def decode(self, group: Group) -> Tensor:
        """Feed the last token of each sequence; return the logits (B, V) of the next ones."""
        model = self.activate(group.model)
        batch = self._batches[group]
        last_B1 = torch.tensor(
            [[sequence.tokens[-1]] for sequence in group.sequences], device=model.device
        )
        batch.mask_BT = torch.cat([batch.mask_BT, torch.ones_like(last_B1)], dim=1)
        return _forward(model, batch, last_B1)

    def retain(self, group: Group, rows: list[int]) -> None:
        """Keep only these rows of a group's batch; none frees it."""
        if not rows:
            self.release(group)
        elif group in self._batches:
            self._batches[group].select(rows)

    def release(self, group: Group) -> None:
        """Free what a group holds, if it holds anything."""
        self._batches.pop(group, None)


def _forward(model: PreTrainedModel, batch: _Batch, ids_BT: Tensor) -> Tensor:
    """Run new columns; return the logits (B, V) after the last one. Extends the cache."""
    positions_BT = (batch.mask_BT.cumsum(dim=1) - 1).clamp(min=0)[:, -ids_BT.shape[1] :]
    output = model(
        input_ids=ids_BT,
        attention_mask=batch.mask_BT,
        position_ids=positions_BT,
        past_key_values=batch.cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits_B1V: Tensor = output.logits
    return logits_B1V[:, -1]


def _return_freed_memory() -> None:
    """Free models that only reference cycles hold, and give their memory back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
