"""Stores the low-rank updates of many adapters of one rank in shared tensors.

Source: Sheng et al. 2023, https://arxiv.org/abs/2311.03285 (S-LoRA).
"""

# C slots, I inputs, O outputs, R rank, M layers that read the same input

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.adapters.lora import LoraLinear

SMALLEST_RANK = 8

FEWEST_SLOTS = 8


@dataclass(eq=False)
class InputTable:
    """A of all layers that read the same input, in one tensor, so that one product gives x A."""

    a_CIMR: Tensor
    paths: list[str] = field(default_factory=list)
    """The paths of the M layers."""


@dataclass(eq=False)
class SlotLayer:
    """The updates of one layer: A is a `column` of the table, B includes the scale."""

    table: InputTable
    column: int
    b_CRO: Tensor

    @property
    def a_CIR(self) -> Tensor:
        return self.table.a_CIMR[:, :, self.column]


class LoraSlots:
    """A slot for each adapter of one rank, the same index in all layers; missing updates are zero.

    The capacity doubles when all slots are used. `input_of` maps the path of a layer to the name of
    its input, which layers with the same input share.
    """

    def __init__(self, rank: int, input_of: Callable[[str], str]) -> None:
        self.rank = rank
        self.layers: dict[str, SlotLayer] = {}
        """By path."""
        self.capacity = 0
        self._input_of = input_of
        self._tables: dict[str, InputTable] = {}
        """By the name of the input."""
        self._by_adapter: dict[str, int] = {}
        self._paths: dict[str, frozenset[str]] = {}

    def __getitem__(self, adapter: str) -> int:
        return self._by_adapter[adapter]

    def paths(self, adapter: str) -> frozenset[str]:
        """Return the paths of the layers that the adapter updates."""
        return self._paths[adapter]

    @property
    def device(self) -> torch.device:
        return next(iter(self.layers.values())).b_CRO.device

    @torch.no_grad()
    def put(self, adapter: str, updates: Mapping[str, LoraLinear], dtype: torch.dtype) -> None:
        """Copy the updates of an adapter, by path, into a free slot."""
        free = set(range(self.capacity)) - set(self._by_adapter.values())
        if not free:
            free = {self.capacity}
            self._grow()
        slot = self._by_adapter[adapter] = min(free)
        self._paths[adapter] = frozenset(updates)
        for path, update in updates.items():
            if path not in self.layers:
                self.layers[path] = self._new_layer(path, update, dtype)
        for path, layer in self.layers.items():
            a_IR, b_RO = layer.a_CIR[slot], layer.b_CRO[slot]
            own = updates.get(path)
            rank = 0 if own is None else len(own.lora_A)
            if rank < self.rank:
                a_IR.zero_()
                b_RO.zero_()
            if own is not None:
                a_IR[:, :rank] = own.lora_A.t()
                b_RO[:rank] = (own.lora_B * own.scale).t()

    def forget(self, adapter: str) -> None:
        """Free the slot of an adapter."""
        del self._by_adapter[adapter], self._paths[adapter]

    def _new_layer(self, path: str, update: LoraLinear, dtype: torch.dtype) -> SlotLayer:
        outputs, inputs = len(update.lora_B), update.lora_A.shape[1]
        zeros = update.lora_A.new_zeros
        a_CI1R = zeros((self.capacity, inputs, 1, self.rank), dtype=dtype)
        source = self._input_of(path)
        table = self._tables.setdefault(source, InputTable(a_CI1R[:, :, :0]))
        b_CRO = zeros((self.capacity, self.rank, outputs), dtype=dtype)  # memory may end here
        table.a_CIMR = torch.cat((table.a_CIMR, a_CI1R), dim=2)
        table.paths.append(path)
        return SlotLayer(table, len(table.paths) - 1, b_CRO)

    def _grow(self) -> None:
        capacity = max(FEWEST_SLOTS, 2 * self.capacity)
        for table in self._tables.values():
            table.a_CIMR = _longer(table.a_CIMR, capacity)
        for layer in self.layers.values():
            layer.b_CRO = _longer(layer.b_CRO, capacity)
        self.capacity = capacity


def slot_rank(updates: Mapping[str, LoraLinear]) -> int:
    """Return the rank of the slots that these updates fit: the next power of two."""
    highest = max(len(layer.lora_A) for layer in updates.values())
    return max(SMALLEST_RANK, 1 << (highest - 1).bit_length())


def _longer(weights: Tensor, length: int) -> Tensor:
    """Return the weights padded with zeros to `length`."""
    longer = weights.new_zeros(length, *weights.shape[1:])
    longer[: len(weights)] = weights
    return longer
