"""How the rows of one batch run through the low-rank updates of their adapters, many at once.

On a CPU each row of a short segment picks the slot of its adapter by itself, in whatever order and
company. Everywhere else, and for long segments, the segments go through one batched product, each
beside the others.
"""

# T tokens that take part, G segments, P places of a segment, C slots, I inputs, O outputs, R rank

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from core.adapters.lora_slots import LoraSlots
from core.models.indices import as_index
from core.models.weighted_rows import Picks, picks, weighted_sums

FEWEST_TOGETHER = 3
"""Segments for which one product is faster than a product for each."""

SHORT_SEGMENT = 4
"""Tokens of a segment up to which all that are as short go through one product."""

LONGEST_PICKING = 32
"""Tokens of a segment up to which its rows may pick their slots; more are faster as a matrix."""

LEAST_FILLED = 0.75
"""Of the longest segment that others are padded to, so that one product takes them all."""


@dataclass(frozen=True)
class Segments:
    """Which adapter the rows of a batch run through, in order; None is the base alone."""

    adapters: tuple[str | None, ...]
    lengths: tuple[int, ...]


class LoraLayer(Protocol):
    """The updates of one layer for some segments of one batch."""

    def add_to(self, x: Tensor, y: Tensor) -> None:
        """Add the updates of `x`, (rows of the batch, I), to `y`, (rows of the batch, O)."""


class LoraRows(Protocol):
    """Segments of one batch that run together through slots of one rank."""

    @property
    def segments(self) -> frozenset[int]:
        """By their number in the batch."""

    def layer(self, path: str) -> LoraLayer | None:
        """Return the updates of one layer; None when no slot changes it."""


def rows_together(segments: Segments, slots: LoraSlots, indices: Sequence[int]) -> list[LoraRows]:
    """Say which of the segments at `indices`, whose adapters have these slots, run together."""
    device = next(iter(slots.layers.values()))[0].device
    lengths = segments.lengths
    picking = [i for i in indices if device.type == "cpu" and lengths[i] <= LONGEST_PICKING]
    rows: list[LoraRows] = []
    if len(picking) >= FEWEST_TOGETHER:
        rows.append(_picked(segments, slots, picking, device))
        indices = [index for index in indices if index not in rows[0].segments]
    groups = [group for group in _alike(lengths, indices) if len(group) >= FEWEST_TOGETHER]
    return [*rows, *(_padded(segments, slots, group, device) for group in groups)]


def _alike(lengths: Sequence[int], indices: Sequence[int]) -> list[list[int]]:
    """Group segments that one product takes: short, of equal length, and of similar length."""
    short = [index for index in indices if lengths[index] <= SHORT_SEGMENT]
    by_length: dict[int, list[int]] = {}
    for index in indices:
        if lengths[index] > SHORT_SEGMENT:
            by_length.setdefault(lengths[index], []).append(index)
    equal = [group for group in by_length.values() if len(group) >= FEWEST_TOGETHER]
    rest = [group for group in by_length.values() if len(group) < FEWEST_TOGETHER]
    longest = max((lengths[group[0]] for group in rest), default=0)
    similar = [i for group in rest for i in group if lengths[i] >= LEAST_FILLED * longest]
    return [short, *equal, sorted(similar)]


@dataclass(frozen=True)
class _PickedRows:
    """Rows that each take the matrices of their own slot."""

    slots: LoraSlots
    segments: frozenset[int]
    slots_T: Tensor
    tokens: slice | Tensor
    """Where the rows stand in the batch."""
    _picks: dict[int, Picks] = field(default_factory=dict)

    def layer(self, path: str) -> "_PickedLayer | None":
        if path not in self.slots.layers:
            return None
        a_CIR, b_CRO = self.slots.layers[path]
        return _PickedLayer(
            self.tokens,
            a_CIR.flatten(0, 1),
            self._rows_of_own(a_CIR),
            b_CRO.flatten(0, 1),
            self._rows_of_own(b_CRO),
        )

    def _rows_of_own(self, weights_CIO: Tensor) -> Picks:
        """Say which rows of all matrices, one below the other, are those of each token's own."""
        inputs = weights_CIO.shape[1]
        if inputs not in self._picks:
            inputs_I = torch.arange(inputs, device=self.slots_T.device)
            self._picks[inputs] = picks(self.slots_T[:, None] * inputs + inputs_I)
        return self._picks[inputs]


@dataclass(frozen=True)
class _PickedLayer:
    """The rows of all A, and of all B, with what each token picks of them."""

    tokens: slice | Tensor
    a: Tensor
    a_picks: Picks
    b: Tensor
    b_picks: Picks

    def add_to(self, x: Tensor, y: Tensor) -> None:
        tokens = self.tokens
        is_whole = isinstance(tokens, slice) and tokens.stop - tokens.start == len(x)
        low_TR = weighted_sums(self.a, self.a_picks, x if is_whole else x[tokens])
        added_TO = weighted_sums(self.b, self.b_picks, low_TR)
        if is_whole:
            y.add_(added_TO)
        elif isinstance(tokens, slice):
            y[tokens].add_(added_TO)
        else:
            y.index_add_(0, tokens, added_TO)


def _picked(
    segments: Segments, slots: LoraSlots, group: Sequence[int], device: torch.device
) -> _PickedRows:
    tokens = _tokens(segments, group)
    own = [slots[str(segments.adapters[i])] for i in group for _ in range(segments.lengths[i])]
    slots_T = torch.tensor(own, device=device)
    return _PickedRows(slots, frozenset(group), slots_T, as_index(tokens, device))


@dataclass(frozen=True)
class _PaddedRows:
    """Segments side by side, each with the places of the longest."""

    slots: LoraSlots
    segments: frozenset[int]
    slots_G: slice | Tensor
    width: int
    """P: places of each segment."""
    tokens: slice | Tensor
    """Where the tokens stand in the batch; a slice when nothing is padded."""
    places_T: Tensor
    """Where they go, as number of the segment · P + number in the segment."""
    sources_GP: Tensor
    """The token of each place; any token where there is none."""

    def layer(self, path: str) -> "_PaddedLayer | None":
        weights = self.slots.layers.get(path)
        if weights is None:
            return None
        # copied, unless the slots follow one another: once for all steps of the same batch
        return _PaddedLayer(self, *(each[self.slots_G] for each in weights))


@dataclass(frozen=True)
class _PaddedLayer:
    rows: _PaddedRows
    a_GIR: Tensor
    b_GRO: Tensor

    def add_to(self, x: Tensor, y: Tensor) -> None:
        rows = self.rows
        shape = len(self.a_GIR), rows.width, -1
        if isinstance(rows.tokens, slice):
            low_GPR = torch.bmm(x[rows.tokens].view(shape), self.a_GIR)
            y[rows.tokens].view(shape).baddbmm_(low_GPR, self.b_GRO)
            return
        x_GPI = x.index_select(0, rows.sources_GP).view(shape)
        added_GPO = torch.bmm(torch.bmm(x_GPI, self.a_GIR), self.b_GRO)
        added_TO = added_GPO.flatten(0, 1).index_select(0, rows.places_T)
        y.index_add_(0, rows.tokens, added_TO)


def _padded(
    segments: Segments, slots: LoraSlots, group: Sequence[int], device: torch.device
) -> _PaddedRows:
    lengths = [segments.lengths[index] for index in group]
    width = max(lengths)
    tokens = _tokens(segments, group)
    places = [
        number * width + place for number, length in enumerate(lengths) for place in range(length)
    ]
    sources = [tokens[0]] * (len(group) * width)
    for token, place in zip(tokens, places, strict=True):
        sources[place] = token
    is_full = len(tokens) == len(sources)
    return _PaddedRows(
        slots,
        frozenset(group),
        as_index([slots[str(segments.adapters[index])] for index in group], device),
        width,
        as_index(tokens, device) if is_full else torch.tensor(tokens, device=device),
        torch.tensor(places, device=device),
        torch.tensor(sources, device=device),
    )


def _tokens(segments: Segments, group: Sequence[int]) -> list[int]:
    """Return where the tokens of these segments stand in the batch."""
    starts = [0, *accumulate(segments.lengths)]
    return [token for i in group for token in range(starts[i], starts[i] + segments.lengths[i])]
