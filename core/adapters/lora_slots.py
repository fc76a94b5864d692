"""Where the low-rank updates of many adapters stand: side by side, so that one product reaches all.

Source: Sheng et al. 2023, https://arxiv.org/abs/2311.03285 (S-LoRA), for one rank at a time.
"""

# C slots, I inputs, O outputs, R rank

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.adapters.lora import LoraLinear

SMALLEST_RANK = 8

FEWEST_SLOTS = 8


class LoraSlots:
    """A slot for each adapter of one rank, the same in all layers; what an adapter lacks is zero.

    There are twice as many slots whenever they do not suffice.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.layers: dict[str, tuple[Tensor, Tensor]] = {}
        """A as (C, I, R) and B, times its scale, as (C, R, O), by path."""
        self.capacity = 0
        self._by_adapter: dict[str, int] = {}

    def __getitem__(self, adapter: str) -> int:
        return self._by_adapter[adapter]

    @torch.no_grad()
    def put(self, adapter: str, updates: Mapping[str, LoraLinear], dtype: torch.dtype) -> None:
        """Copy the updates of an adapter, by path, into a slot of its own."""
        free = set(range(self.capacity)) - set(self._by_adapter.values())
        if not free:
            free = {self.capacity}
            self._grow()
        slot = self._by_adapter[adapter] = min(free)
        for path, layer in updates.items():
            if path not in self.layers:
                outputs, inputs = len(layer.lora_B), layer.lora_A.shape[1]
                zeros = layer.lora_A.new_zeros
                self.layers[path] = (
                    zeros((self.capacity, inputs, self.rank), dtype=dtype),
                    zeros((self.capacity, self.rank, outputs), dtype=dtype),
                )
        for path, (a_CIR, b_CRO) in self.layers.items():
            update = updates.get(path)
            rank = 0 if update is None else len(update.lora_A)
            if rank < self.rank:
                a_CIR[slot].zero_()
                b_CRO[slot].zero_()
            if update is not None:
                a_CIR[slot, :, :rank] = update.lora_A.t()
                b_CRO[slot, :rank] = (update.lora_B * update.scale).t()

    def forget(self, adapter: str) -> None:
        """Free the slot of an adapter."""
        del self._by_adapter[adapter]

    def _grow(self) -> None:
        slots = self.capacity
        self.capacity = max(FEWEST_SLOTS, 2 * slots)
        for path, layer in self.layers.items():
            a, b = (each.new_zeros(self.capacity, *each.shape[1:]) for each in layer)
            a[:slots], b[:slots] = layer
            self.layers[path] = a, b


@dataclass(frozen=True)
class SlotDelta:
    """What one adapter adds to one layer: y + x A B, with weights that stand in a slot."""

    slots: LoraSlots
    path: str
    adapter: str

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Take (T, I) and (T, O)."""
        a_CIR, b_CRO = self.slots.layers[self.path]
        slot = self.slots[self.adapter]
        return y.addmm_(torch.mm(x, a_CIR[slot]), b_CRO[slot])


def slot_rank(updates: Mapping[str, LoraLinear]) -> int:
    """Return the rank of the slots that these updates fit: the next power of two."""
    highest = max(len(layer.lora_A) for layer in updates.values())
    return max(SMALLEST_RANK, 1 << (highest - 1).bit_length())
