"""Keys and values of writing sequences side by side, copied out of their blocks once.

The blocks stay the truth. A sequence that reads one token per step would have all its keys and
values gathered again at every step, which writes as much memory as it reads; here a step adds one
place to a row and reads the rest where it lies.
"""

# R rows, B rows in use, K key/value heads, J places of a row, D size of a head

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from core.models.block_cache import BlockCache, untouched

SHARE_OF_CACHE = 4
"""The rows may take a quarter of what the blocks take; beyond it keys and values are gathered."""

FEWEST_ROWS = 8

Owner = TypeVar("Owner", bound=Hashable)


@dataclass(frozen=True)
class Held:
    """Where a sequence stands in the cache: its blocks, and how many places they hold."""

    blocks: Sequence[int]
    places: int


class DenseRows:
    """Rows of `places` places each, those in use first and without gaps.

    Keys stand as (R, K, D, J), values as (R, K, J, D): a query reads both without a jump.
    """

    def __init__(self, cache: BlockCache, places: int) -> None:
        self._cache = cache
        self._places = places
        self._owners: list[Any] = []
        self._filled: list[int] = []
        self.count = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def rows_for(self, sequences: int) -> int:
        """Return how many rows there are once so many sequences have one."""
        if sequences <= self.count:
            return self.count
        return max(FEWEST_ROWS, 1 << (sequences - 1).bit_length())

    def seat(self, sequences: Mapping[Owner, Held]) -> list[Owner]:
        """Give each sequence a row that holds its places, and all others none; return their order.

        Each of them then gets one place more, by `add`.
        """
        row = 0
        while row < len(self._owners):
            held = sequences.get(self._owners[row])
            if held is not None and held.places == self._filled[row]:
                row += 1
            else:
                self._vacate(row)
        self._grow(self.rows_for(len(sequences)))
        seated = set(self._owners)
        for owner, held in sequences.items():
            if owner not in seated:
                self._fill(len(self._owners), held)
                self._owners.append(owner)
                self._filled.append(held.places)
        self._filled = [filled + 1 for filled in self._filled]
        return list(self._owners)

    def add(self, layer: int, places_B: Tensor, key_BKD: Tensor, value_BKD: Tensor) -> None:
        """Put the keys and values of one more token of each sequence in its place."""
        rows_B = torch.arange(len(places_B), device=places_B.device)
        self.keys[layer][rows_B, :, :, places_B] = key_BKD
        self.values[layer][rows_B, :, places_B] = value_BKD

    def _vacate(self, row: int) -> None:
        """Let the last row in use take the place of one that has lost its sequence."""
        last = len(self._owners) - 1
        if row != last:
            for states in (*self.keys, *self.values):
                states[row] = states[last]
        self._owners[row], self._filled[row] = self._owners[last], self._filled[last]
        self._owners.pop()
        self._filled.pop()

    def _grow(self, rows: int) -> None:
        if rows == self.count:
            return
        paged = self._cache.keys
        _, _, heads, size = paged[0].shape
        shapes = (rows, heads, size, self._places), (rows, heads, self._places, size)
        # zeros, because what is masked must be a number all the same
        keys, values = (
            [untouched(shape, each.dtype, each.device) for each in paged] for shape in shapes
        )
        for old, new in (*zip(self.keys, keys), *zip(self.values, values)):  # noqa: B905
            new[: self.count] = old
        self.keys, self.values, self.count = keys, values, rows

    def _fill(self, row: int, held: Held) -> None:
        """Copy the places of a sequence out of its blocks."""
        blocks_N = torch.tensor(held.blocks, device=self.keys[0].device)
        for layer in range(len(self.keys)):
            key_JKD, value_JKD = (
                states.index_select(0, blocks_N).flatten(0, 1)[: held.places]
                for states in (self._cache.keys[layer], self._cache.values[layer])
            )
            self.keys[layer][row, :, :, : held.places] = key_JKD.permute(1, 2, 0)
            self.values[layer][row, :, : held.places] = value_JKD.transpose(0, 1)


class DenseCache:
    """All rows of one base, by their length, within bounds of memory."""

    def __init__(self, cache: BlockCache) -> None:
        self._cache = cache
        self._limit_places = cache.places // SHARE_OF_CACHE
        self._by_places: dict[int, DenseRows] = {}

    def rows(self, wanted: Mapping[int, int]) -> dict[int, DenseRows]:
        """Return rows by length for so many sequences of each, leaving out those without room.

        Rows that nobody wants stay, since traffic comes back, until their room is needed.
        """
        taken = {places: places * rows.count for places, rows in self._by_places.items()}
        found = {}
        for places, sequences in sorted(wanted.items()):
            rows = self._by_places.get(places) or DenseRows(self._cache, places)
            taken[places] = places * rows.rows_for(sequences)
            for idle in [each for each in taken if each not in wanted]:
                if sum(taken.values()) > self._limit_places:
                    del taken[idle], self._by_places[idle]
            if sum(taken.values()) > self._limit_places:
                del taken[places]
                self._by_places.pop(places, None)
            else:
                found[places] = self._by_places[places] = rows
        return found
