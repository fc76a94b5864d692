"""How the rows of one batch run through the low-rank updates of their adapters, many at once.

On a CPU each row of a short segment picks the slot of its adapter by itself, in whatever order and
company. Everywhere else, and for long segments, the segments go through one batched product, each
beside the others. Segments that have no company go through products of their own.
"""

# T tokens that take part, G segments, P places of a segment, C slots, I inputs, O outputs, R rank,
# M layers that read the same input, S = M · R

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from core.adapters.lora_slots import InputTable, LoraSlots
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

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each segment begins, and where the last one ends: how many rows there are."""
        return (0, *accumulate(self.lengths))


def lora_rows(
    segments: Segments, slots: LoraSlots, indices: Sequence[int], *, together: bool
) -> list["LoraRows"]:
    """Say how the segments at `indices`, whose adapters have these slots, run.

    Without `together` each runs by itself.
    """
    groups = _groups(segments, slots, indices) if together else []
    grouped = {index for group in groups for index in group.segments}
    return [*groups, *(_AloneRows(segments, slots, i) for i in indices if i not in grouped)]


def _groups(segments: Segments, slots: LoraSlots, indices: Sequence[int]) -> list["LoraRows"]:
    lengths = segments.lengths
    on_cpu = slots.device.type == "cpu"
    picking = [i for i in indices if on_cpu and lengths[i] <= LONGEST_PICKING]
    if len(picking) < FEWEST_TOGETHER:
        picking = []
    rest = [index for index in indices if index not in picking]
    padded = [group for group in _alike(lengths, rest) if len(group) >= FEWEST_TOGETHER]
    groups: list[LoraRows] = [_PaddedRows(segments, slots, group) for group in padded]
    return [_PickedRows(segments, slots, picking), *groups] if picking else groups


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


Projection = Callable[[Tensor], Sequence[Tensor]]
"""From x, (rows of the batch, I), to x A of each layer that reads the same x."""

Addition = Callable[[Tensor, Tensor], None]
"""Adds x A of a layer times its B to y, (rows of the batch, O)."""


class SharedInput:
    """What layers read that are called with the same tensor, times A of all of them.

    It is taken when the first of them runs, and kept until the last of `columns` has run.
    """

    def __init__(self, project: Projection, columns: Collection[int], rows: int) -> None:
        self._project = project
        self._columns = columns
        self._rows = rows
        self._x: Tensor | None = None
        self._low: dict[int, Tensor] = {}

    def low(self, x: Tensor, column: int) -> Tensor:
        """Return x A of one of the layers."""
        if self._x is not x or column not in self._low:
            low = self._project(x.reshape(self._rows, -1))
            self._x, self._low = x, {each: low[each] for each in self._columns}
        own = self._low.pop(column)
        if not self._low:
            self._x = None
        return own


class LoraLayer(NamedTuple):
    """The updates of one layer for some segments of one batch: `add(input.low(x, column), y)`."""

    input: SharedInput
    column: int
    """Which of the layers that read the input it is."""
    add: Addition


class LoraRows(ABC):
    """Segments of one batch that run together through slots of one rank."""

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        self.segments = frozenset(group)
        """By their number in the batch."""
        self._rows = segments.starts[-1]
        self._slots = slots
        adapters = {str(segments.adapters[index]) for index in group}
        self._paths = frozenset[str]().union(*map(slots.paths, adapters))
        self._inputs: dict[InputTable, SharedInput] = {}

    def layer(self, path: str) -> LoraLayer | None:
        """Return the updates of one layer; None when no adapter of these segments has any."""
        if path not in self._paths:
            return None
        layer = self._slots.layers[path]
        table = layer.table
        if table not in self._inputs:
            columns = [column for column, each in enumerate(table.paths) if each in self._paths]
            project = self._projection(table.a_CIMR)
            self._inputs[table] = SharedInput(project, columns, self._rows)
        return LoraLayer(self._inputs[table], layer.column, self._addition(layer.b_CRO))

    @abstractmethod
    def _projection(self, a_CIMR: Tensor) -> Projection:
        """Return how A of all layers that read one input is applied."""

    @abstractmethod
    def _addition(self, b_CRO: Tensor) -> Addition:
        """Return how B of one layer is applied."""


class _AloneRows(LoraRows):
    """One segment by itself."""

    def __init__(self, segments: Segments, slots: LoraSlots, index: int) -> None:
        super().__init__(segments, slots, [index])
        self._slot = slots[str(segments.adapters[index])]
        start, end = segments.starts[index : index + 2]
        self._tokens = None if end - start == self._rows else slice(start, end)
        """Where the rows stand in the batch; None when they are all of it."""

    def _projection(self, a_CIMR: Tensor) -> Projection:
        layers, tokens = a_CIMR.shape[2], self._tokens
        a_IS = a_CIMR[self._slot].flatten(1)

        def project(x: Tensor) -> Sequence[Tensor]:
            low_TS = torch.mm(x if tokens is None else x[tokens], a_IS)
            return (low_TS,) if layers == 1 else low_TS.chunk(layers, dim=1)

        return project

    def _addition(self, b_CRO: Tensor) -> Addition:
        b_RO, tokens = b_CRO[self._slot], self._tokens

        def add(low_TR: Tensor, y: Tensor) -> None:
            (y if tokens is None else y[tokens]).addmm_(low_TR, b_RO)

        return add


class _PickedRows(LoraRows):
    """Rows that each take the matrices of their own slot."""

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        super().__init__(segments, slots, group)
        own = [slots[str(segments.adapters[i])] for i in group for _ in range(segments.lengths[i])]
        self._slots_T = torch.tensor(own, device=slots.device)
        tokens = _tokens(segments, group)
        is_whole = len(tokens) == self._rows
        self._tokens = None if is_whole else as_index(tokens, slots.device)
        """Where the rows stand in the batch; None when they are all of it."""
        self._picks: dict[int, Picks] = {}

    def _projection(self, a_CIMR: Tensor) -> Projection:
        layers, rank = a_CIMR.shape[2:]
        a, a_picks = a_CIMR.flatten(2).flatten(0, 1), self._rows_of_own(a_CIMR)
        tokens = self._tokens

        def project(x: Tensor) -> Sequence[Tensor]:
            low_TS = weighted_sums(a, a_picks, x if tokens is None else x[tokens])
            if layers == 1:
                return (low_TS,)
            return low_TS.view(-1, layers, rank).transpose(0, 1).contiguous().unbind()

        return project

    def _addition(self, b_CRO: Tensor) -> Addition:
        return partial(_add_picked, b_CRO.flatten(0, 1), self._rows_of_own(b_CRO), self._tokens)

    def _rows_of_own(self, weights: Tensor) -> Picks:
        """Say which rows of all matrices, one below the other, are those of each token's own."""
        inputs = weights.shape[1]
        if inputs not in self._picks:
            inputs_I = torch.arange(inputs, device=self._slots_T.device)
            self._picks[inputs] = picks(self._slots_T[:, None] * inputs + inputs_I)
        return self._picks[inputs]


def _add_picked(
    b: Tensor, b_picks: Picks, tokens: slice | Tensor | None, low_TR: Tensor, y: Tensor
) -> None:
    added_TO = weighted_sums(b, b_picks, low_TR)
    if tokens is None:
        y.add_(added_TO)
    elif isinstance(tokens, slice):
        y[tokens].add_(added_TO)
    else:
        y.index_add_(0, tokens, added_TO)


class _PaddedRows(LoraRows):
    """Segments side by side, each with the places of the longest.

    Their weights are copied, once for all steps of one batch, unless the slots follow one another.
    """

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        super().__init__(segments, slots, group)
        lengths = [segments.lengths[index] for index in group]
        width = max(lengths)
        tokens = _tokens(segments, group)
        places = [
            number * width + place
            for number, length in enumerate(lengths)
            for place in range(length)
        ]
        sources = [tokens[0]] * (len(group) * width)
        for token, place in zip(tokens, places, strict=True):
            sources[place] = token
        is_full = len(tokens) == len(sources)
        device = slots.device
        self._slots_G = as_index([slots[str(segments.adapters[i])] for i in group], device)
        self._shape = len(group), width, -1
        self._tokens = as_index(tokens, device) if is_full else torch.tensor(tokens, device=device)
        """Where they stand in the batch; a slice when nothing is padded."""
        self._places_T = torch.tensor(places, device=device)
        """Where they go, as number of the segment · P + number in the segment."""
        self._sources = torch.tensor(sources, device=device)
        """The token of each of the G · P places; any token where there is none."""

    def _projection(self, a_CIMR: Tensor) -> Projection:
        layers = a_CIMR.shape[2]
        a_GIS = a_CIMR[self._slots_G].flatten(2)

        def project(x: Tensor) -> Sequence[Tensor]:
            is_slice = isinstance(self._tokens, slice)
            x_TI = x[self._tokens] if is_slice else x.index_select(0, self._sources)
            return torch.bmm(x_TI.view(self._shape), a_GIS).chunk(layers, dim=2)

        return project

    def _addition(self, b_CRO: Tensor) -> Addition:
        b_GRO = b_CRO[self._slots_G]

        def add(low_GPR: Tensor, y: Tensor) -> None:
            if isinstance(self._tokens, slice):
                y[self._tokens].view(self._shape).baddbmm_(low_GPR, b_GRO)
            else:
                added = torch.bmm(low_GPR, b_GRO).flatten(0, 1)
                y.index_add_(0, self._tokens, added.index_select(0, self._places_T))

        return add


def _tokens(segments: Segments, group: Sequence[int]) -> list[int]:
    """Return where the tokens of these segments stand in the batch."""
    starts = segments.starts
    return [token for i in group for token in range(starts[i], starts[i + 1])]
