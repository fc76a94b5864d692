"""Low-rank updates of many adapters as one batched product.

The adapters that take part in a step lie side by side in one tensor per layer. An adapter is
copied there when it joins, and stays until its row is needed by another one, so that a step reads
the weights of its adapters once and copies nothing.
"""

# G rows of a stack, P tokens of one adapter, T tokens of the batch, I inputs, O outputs, R rank

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.adapters.delta import Delta, LoraDelta

SHORT_SEGMENT = 4
"""Tokens of an adapter up to which it is taken together with all others that are as short."""

FEWEST_STACKED = 3
"""Adapters for which one batched product is faster than a product for each."""

LEAST_FILLED = 0.75
"""Of the longest segment that others are padded to, so that one product takes them all."""

SMALLEST_RANK = 8


@dataclass(frozen=True)
class Segments:
    """Which adapter the rows of a batch run through, in order; None is the base alone."""

    adapters: tuple[str | None, ...]
    lengths: tuple[int, ...]


class AdapterDeltas:
    """What one adapter changes, by path."""

    def __init__(self, by_path: dict[str, Delta]) -> None:
        self.by_path = by_path
        ranks = [len(each.a_RI) for each in by_path.values() if isinstance(each, LoraDelta)]
        self.rank = max(SMALLEST_RANK, 1 << (max(ranks) - 1).bit_length()) if ranks else 0
        """Of the stack for its low-rank updates; 0 when it has none."""


@dataclass(frozen=True)
class StackedRows:
    """The segments of one batch that run through one stack."""

    stack: "_Stack"
    segments: frozenset[int]
    """By their number in the batch."""
    rows: int
    """How many of the stack's take part: from its first on, or the chosen ones."""
    chosen_G: Tensor | None
    width: int
    """P: tokens that each row has room for."""
    first: int | None
    """Where the tokens begin when they stand in the batch as in the stack, without gaps."""
    tokens_T: Tensor
    """Where the tokens stand in the batch."""
    places_T: Tensor
    """Where they go, as row · P + number in the segment."""
    sources: Tensor
    """(rows · P): the token of each place; any token where there is none."""

    def layer(self, path: str) -> "StackedLayer | None":
        """Return the updates of one layer; None when no adapter of the stack changes it."""
        if path not in self.stack.layers:
            return None
        a_GIR, b_GRO = (
            each[: self.rows] if self.chosen_G is None else each.index_select(0, self.chosen_G)
            for each in self.stack.layers[path]
        )
        return StackedLayer(self, a_GIR, b_GRO)


@dataclass(frozen=True)
class StackedLayer:
    """The updates of one layer for the segments of one batch."""

    rows: StackedRows
    a_GIR: Tensor
    b_GRO: Tensor

    def add_to(self, x: Tensor, y: Tensor) -> None:
        """Add the updates of `x`, (rows of the batch, 1, I), to `y`, (…, O), in place."""
        rows = self.rows
        x_TI, y_TO = x.flatten(0, 1), y.view(-1, y.shape[-1])
        shape = rows.rows, rows.width, -1
        if rows.first is not None:
            tokens = slice(rows.first, rows.first + rows.rows * rows.width)
            low_GPR = torch.bmm(x_TI[tokens].view(shape), self.a_GIR)
            y_TO[tokens].view(shape).baddbmm_(low_GPR, self.b_GRO)
            return
        x_GPI = x_TI.index_select(0, rows.sources).view(shape)
        added_GPO = torch.bmm(torch.bmm(x_GPI, self.a_GIR), self.b_GRO)
        added_TO = added_GPO.flatten(0, 1).index_select(0, rows.places_T)
        y_TO.index_add_(0, rows.tokens_T, added_TO)


class LoraStacks:
    """A stack for each rank, rounded up to a power of two."""

    def __init__(self) -> None:
        self._by_rank: dict[int, _Stack] = {}

    def plan(
        self, segments: Segments, adapters: Mapping[str, AdapterDeltas]
    ) -> tuple[StackedRows, ...]:
        """Say which segments run stacked, and bring their adapters into the stacks."""
        by_rank: dict[int, list[int]] = {}
        for index, name in enumerate(segments.adapters):
            if name is not None and adapters[name].rank:
                by_rank.setdefault(adapters[name].rank, []).append(index)
        plans = []
        for rank, indices in by_rank.items():
            groups = [group for group in _alike(segments, indices) if len(group) >= FEWEST_STACKED]
            names = [str(segments.adapters[index]) for group in groups for index in group]
            if names:
                stack = self._by_rank.setdefault(rank, _Stack(rank))
                rows = stack.bring_in({name: adapters[name].by_path for name in names})
                plans += [_stacked(stack, rows, segments, group) for group in groups]
        return tuple(plans)

    def place(self, name: str) -> tuple[int, int, str]:
        """Return what to sort by: rank and row of an adapter; those that have none come first."""
        for rank, stack in self._by_rank.items():
            if (row := stack.row(name)) is not None:
                return rank, row, name
        return 0, 0, name

    def forget(self, name: str) -> None:
        """Free the rows of an adapter."""
        for stack in self._by_rank.values():
            stack.forget(name)


def _alike(segments: Segments, indices: Sequence[int]) -> list[list[int]]:
    """Group segments that one product takes: the short ones, and the longest of similar length."""
    short = [index for index in indices if segments.lengths[index] <= SHORT_SEGMENT]
    long = [index for index in indices if segments.lengths[index] > SHORT_SEGMENT]
    longest = max((segments.lengths[index] for index in long), default=0)
    return [short, [i for i in long if segments.lengths[i] >= LEAST_FILLED * longest]]


def _stacked(
    stack: "_Stack", rows: Mapping[str, int], segments: Segments, group: Sequence[int]
) -> StackedRows:
    """Lay out a group of segments for the rows that their adapters have."""
    width = max(segments.lengths[index] for index in group)
    own = [rows[str(segments.adapters[index])] for index in group]
    # for a few tokens it is cheaper to run rows in vain than to copy the weights of the others
    chosen = None if width <= SHORT_SEGMENT else torch.tensor(own, device=stack.device)
    if chosen is not None:
        own = list(range(len(own)))
    used = max(own) + 1
    starts = [sum(segments.lengths[:index]) for index in group]
    tokens: list[int] = []
    places: list[int] = []
    for index, start, row in zip(group, starts, own, strict=True):
        tokens += range(start, start + segments.lengths[index])
        places += range(row * width, row * width + segments.lengths[index])
    sources = [tokens[0]] * (used * width)
    for token, place in zip(tokens, places, strict=True):
        sources[place] = token
    is_aligned = places == list(range(used * width)) and tokens == list(
        range(tokens[0], tokens[0] + used * width)
    )
    return StackedRows(
        stack,
        frozenset(group),
        used,
        chosen,
        width,
        tokens[0] if is_aligned else None,
        *(torch.tensor(each, device=stack.device) for each in (tokens, places, sources)),
    )


class _Stack:
    """The updates of up to `capacity` adapters, layer by layer; what an adapter lacks is zero."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.layers: dict[str, tuple[Tensor, Tensor]] = {}
        """(G, I, R) and (G, R, O) by path."""
        self.capacity = 0
        self._rows: dict[str, int] = {}
        """Of the adapters that are here, those used last at the end."""

    @property
    def device(self) -> torch.device:
        return next(iter(self.layers.values()))[0].device

    def row(self, name: str) -> int | None:
        return self._rows.get(name)

    def bring_in(self, adapters: Mapping[str, Mapping[str, Delta]]) -> dict[str, int]:
        """Return the rows of these adapters, copying those that have none, or one far behind."""
        far = max(2 * len(adapters), 8)
        for name in adapters:
            row = self._rows.pop(name, None)
            if row is not None and row < far:
                self._rows[name] = row
        for name in adapters:
            if name not in self._rows:
                self._rows[name] = self._free_row(adapters, far)
                self._copy(adapters[name], self._rows[name])
        return {name: self._rows[name] for name in adapters}

    def forget(self, name: str) -> None:
        self._rows.pop(name, None)

    def _free_row(self, needed: Mapping[str, object], far: int) -> int:
        """Return a row near the beginning that no needed adapter has."""
        taken = set(self._rows.values())
        for row in range(min(self.capacity, far)):
            if row not in taken:
                return row
        for name, row in self._rows.items():
            if name not in needed and row < far:
                del self._rows[name]
                return row
        self._grow()
        return self._free_row(needed, far)

    def _grow(self) -> None:
        first_new, self.capacity = self.capacity, max(8, 2 * self.capacity)
        for path, layer in self.layers.items():
            grown = [each.new_zeros(self.capacity, *each.shape[1:]) for each in layer]
            for new, old in zip(grown, layer, strict=True):
                new[:first_new] = old
            self.layers[path] = grown[0], grown[1]

    def _copy(self, deltas: Mapping[str, Delta], row: int) -> None:
        for path, delta in deltas.items():
            if isinstance(delta, LoraDelta) and path not in self.layers:
                inputs, outputs = delta.a_RI.shape[1], delta.b_RO.shape[1]
                self.layers[path] = (
                    delta.a_RI.new_zeros(self.capacity, inputs, self.rank),
                    delta.b_RO.new_zeros(self.capacity, self.rank, outputs),
                )
        for path, (a_GIR, b_GRO) in self.layers.items():
            a_GIR[row].zero_()
            b_GRO[row].zero_()
            own = deltas.get(path)
            if isinstance(own, LoraDelta):
                rank = len(own.a_RI)
                a_GIR[row, :, :rank] = own.a_RI.t()
                b_GRO[row, :rank] = own.b_RO
