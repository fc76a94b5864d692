"""Applies the low-rank updates of many adapters to the rows of one batch.

On a CPU, the rows of short segments gather the weights of their adapters' slots, in any order.
Long segments, and all segments on other devices, are padded into one batched product per group of
similar length. Segments without a group get a separate product.
"""

# T tokens of a group, G segments, P padded length, C slots, I inputs, O outputs, R rank,
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
"""The smallest group for which one product is faster than one per segment."""

SHORT_SEGMENT = 4
"""Segments of at most this many tokens are always grouped together."""

LONGEST_GATHERED = 32
"""Segments of at most this many tokens gather their weights; longer ones are faster as a matrix."""

LEAST_FILLED = 0.75
"""The smallest ratio of a segment's length to the longest in its group."""


@dataclass(frozen=True)
class Segments:
    """The adapters of a batch's rows, in order; None is the base alone."""

    adapters: tuple[str | None, ...]
    lengths: tuple[int, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first row of each segment, and the number of rows at the end."""
        return (0, *accumulate(self.lengths))


def lora_rows(
    segments: Segments, slots: LoraSlots, indices: Sequence[int], *, together: bool
) -> list["LoraRows"]:
    """Group the segments at `indices`, whose adapters are in `slots`.

    Without `together` each segment is separate.
    """
    groups = _groups(segments, slots, indices) if together else []
    grouped = {index for group in groups for index in group.segments}
    return [*groups, *(_SeparateRows(segments, slots, i) for i in indices if i not in grouped)]


def _groups(segments: Segments, slots: LoraSlots, indices: Sequence[int]) -> list["LoraRows"]:
    lengths = segments.lengths
    on_cpu = slots.device.type == "cpu"
    gathered = [i for i in indices if on_cpu and lengths[i] <= LONGEST_GATHERED]
    if len(gathered) < FEWEST_TOGETHER:
        gathered = []
    rest = [index for index in indices if index not in gathered]
    padded = [group for group in _alike(lengths, rest) if len(group) >= FEWEST_TOGETHER]
    groups: list[LoraRows] = [_PaddedRows(segments, slots, group) for group in padded]
    return [_GatheredRows(segments, slots, gathered), *groups] if gathered else groups


def _alike(lengths: Sequence[int], indices: Sequence[int]) -> list[list[int]]:
    """Group the segments for padded products: short, of equal length, of similar length."""
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
"""Maps x, (rows of the batch, I), to x A of each layer that reads x."""

Addition = Callable[[Tensor, Tensor], None]
"""Adds the product of a layer's x A and B to y, (rows of the batch, O)."""


class SharedInput:
    """The product x A of all layers that read the same tensor x.

    It is computed when the first layer runs, and freed when the last of `columns` has run.
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
    """The updates of one layer for a group of segments: `add(input.low(x, column), y)`."""

    input: SharedInput
    column: int
    """The index of the layer among those that read the input."""
    add: Addition


class LoraRows(ABC):
    """A group of segments of one batch that use slots of one rank."""

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        self.segments = frozenset(group)
        """Their indices in the batch."""
        self._rows = segments.starts[-1]
        self._slots = slots
        adapters = {str(segments.adapters[index]) for index in group}
        self._paths = frozenset[str]().union(*map(slots.paths, adapters))
        self._inputs: dict[InputTable, SharedInput] = {}

    def layer(self, path: str) -> LoraLayer | None:
        """Return the updates of one layer; None if no adapter of these segments updates it."""
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
        """Return the function that applies A of all layers that read one input."""

    @abstractmethod
    def _addition(self, b_CRO: Tensor) -> Addition:
        """Return the function that applies B of one layer."""


class _SeparateRows(LoraRows):
    """A single segment."""

    def __init__(self, segments: Segments, slots: LoraSlots, index: int) -> None:
        super().__init__(segments, slots, [index])
        self._slot = slots[str(segments.adapters[index])]
        start, end = segments.starts[index : index + 2]
        self._tokens = None if end - start == self._rows else slice(start, end)
        """The rows in the batch; None for all of them."""

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


class _GatheredRows(LoraRows):
    """Rows that each gather the matrices of their slot."""

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        super().__init__(segments, slots, group)
        own = [slots[str(segments.adapters[i])] for i in group for _ in range(segments.lengths[i])]
        self._slots_T = torch.tensor(own, device=slots.device)
        tokens = _tokens(segments, group)
        is_all = len(tokens) == self._rows
        self._tokens = None if is_all else as_index(tokens, slots.device)
        """The rows in the batch; None for all of them."""
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
        """Return the indices of each token's rows in the concatenated matrices of all slots."""
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
    """Segments padded to the length of the longest, for one batched product.

    Their weights are copied once for all steps of a batch, unless their slots are consecutive.
    """

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        super().__init__(segments, slots, group)
        lengths = [segments.lengths[index] for index in group]
        width = max(lengths)
        tokens = _tokens(segments, group)
        positions = [
            number * width + position
            for number, length in enumerate(lengths)
            for position in range(length)
        ]
        sources = [tokens[0]] * (len(group) * width)
        for token, position in zip(tokens, positions, strict=True):
            sources[position] = token
        is_full = len(tokens) == len(sources)
        device = slots.device
        self._slots_G = as_index([slots[str(segments.adapters[i])] for i in group], device)
        self._shape = len(group), width, -1
        self._tokens = as_index(tokens, device) if is_full else torch.tensor(tokens, device=device)
        """The rows in the batch; a slice if nothing is padded."""
        self._positions_T = torch.tensor(positions, device=device)
        """The padded position of each token: segment index · P + index in the segment."""
        self._sources = torch.tensor(sources, device=device)
        """The token at each of the G · P padded positions; an arbitrary token for padding."""

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
                y.index_add_(0, self._tokens, added.index_select(0, self._positions_T))

        return add


def _tokens(segments: Segments, group: Sequence[int]) -> list[int]:
    """Return the rows of these segments in the batch."""
    starts = segments.starts
    return [token for i in group for token in range(starts[i], starts[i + 1])]
