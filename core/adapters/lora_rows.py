"""Applies low-rank updates to the rows of a batch; each class does it in a different way.

`core.adapters.lora_groups` selects the class.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from core.adapters.lora_slots import InputTable, LoraSlots
from core.adapters.segments import Segments
from core.models.indices import as_index
from core.models.row_gather import RowIndices, row_indices, weighted_sums
from core.models.shared_input import SharedInput

Projection = Callable[[Tensor], Sequence[Tensor]]
"""Maps x, (rows of the batch, I), to x A of each layer that reads x."""

Addition = Callable[[Tensor, Tensor], None]
"""Adds the product of a layer's x A and B to y, (rows of the batch, O)."""


class LoraLayer(NamedTuple):
    """The updates of one layer for a group of segments: `add(input.product(x, column), y)`."""

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
            self._inputs[table] = SharedInput(partial(_products, project, self._rows, columns))
        return LoraLayer(self._inputs[table], layer.column, self._addition(layer.b_CRO))

    @abstractmethod
    def _projection(self, a_CIMR: Tensor) -> Projection:
        """Return the function that applies A of all layers that read one input."""

    @abstractmethod
    def _addition(self, b_CRO: Tensor) -> Addition:
        """Return the function that applies B of one layer."""


def _products(
    project: Projection, rows: int, columns: Sequence[int], x: Tensor
) -> dict[int, Tensor]:
    """Return x A of the layers that run, by column."""
    low = project(x.reshape(rows, -1))
    return {column: low[column] for column in columns}


class AloneRows(LoraRows):
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


class GatheredRows(LoraRows):
    """Rows that each gather the matrices of their slot."""

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        super().__init__(segments, slots, group)
        own = [slots[str(segments.adapters[i])] for i in group for _ in range(segments.lengths[i])]
        self._slots_T = torch.tensor(own, device=slots.device)
        tokens = segments.rows(group)
        is_all = len(tokens) == self._rows
        self._tokens = None if is_all else as_index(tokens, slots.device)
        """The rows in the batch; None for all of them."""
        self._indices: dict[int, RowIndices] = {}

    def _projection(self, a_CIMR: Tensor) -> Projection:
        # A of all C slots one below the other, (C · I, S): token t gathers the I rows of its own
        # slot, row i weighted with x[t, i], and their sum is x A of all M layers, (T, S)
        layers, rank = a_CIMR.shape[2:]
        a, a_rows = a_CIMR.flatten(2).flatten(0, 1), self._rows_of_own(a_CIMR)
        tokens = self._tokens

        def project(x: Tensor) -> Sequence[Tensor]:
            low_TS = weighted_sums(a, a_rows, x if tokens is None else x[tokens])
            if layers == 1:
                return (low_TS,)
            return low_TS.view(-1, layers, rank).transpose(0, 1).contiguous().unbind()

        return project

    def _addition(self, b_CRO: Tensor) -> Addition:
        return partial(_add_gathered, b_CRO.flatten(0, 1), self._rows_of_own(b_CRO), self._tokens)

    def _rows_of_own(self, weights: Tensor) -> RowIndices:
        """Return which rows of all matrices, one below the other, are those of each token's own.

        `weights` (C, I, …) as (C · I, …): those of slot c are rows c · I to (c + 1) · I.
        """
        inputs = weights.shape[1]
        if inputs not in self._indices:
            inputs_I = torch.arange(inputs, device=self._slots_T.device)
            self._indices[inputs] = row_indices(self._slots_T[:, None] * inputs + inputs_I)
        return self._indices[inputs]


def _add_gathered(
    b: Tensor, b_rows: RowIndices, tokens: slice | Tensor | None, low_TR: Tensor, y: Tensor
) -> None:
    added_TO = weighted_sums(b, b_rows, low_TR)
    if tokens is None:
        y.add_(added_TO)
    elif isinstance(tokens, slice):
        y[tokens].add_(added_TO)
    else:
        y.index_add_(0, tokens, added_TO)


class PaddedRows(LoraRows):
    """Segments padded to the length of the longest, for one batched product.

    Their weights are copied once for all steps of a batch, unless their slots are consecutive.
    """

    def __init__(self, segments: Segments, slots: LoraSlots, group: Sequence[int]) -> None:
        super().__init__(segments, slots, group)
        device = slots.device
        # 1. The G segments become a batch (G, P) with the width P of the longest.
        lengths = [segments.lengths[index] for index in group]
        width = max(lengths)
        self._shape = len(group), width, -1
        # 2. Segment g has the adapter of slot g. As a slice where the slots follow one another:
        #    then the matrices of the adapters are read where they are.
        self._slots_G = as_index([slots[str(segments.adapters[i])] for i in group], device)
        # 3. Token t of the T in these segments is row tokens[t] of the batch, and goes to position
        #    g · P + p of the padded one.
        tokens = segments.rows(group)
        positions = [
            number * width + position
            for number, length in enumerate(lengths)
            for position in range(length)
        ]
        # 4. The other way round: each of the G · P positions takes a row of the batch. Padding
        #    takes the first row, and what is computed for it is never read.
        sources = [tokens[0]] * (len(group) * width)
        for token, position in zip(tokens, positions, strict=True):
            sources[position] = token
        # 5. Equal lengths need no padding: a slice of the batch, if it has no gaps, is a view.
        is_full = len(tokens) == len(sources)
        self._tokens = as_index(tokens, device) if is_full else torch.tensor(tokens, device=device)
        """Their positions in the batch; a slice if nothing is padded."""
        self._positions_T = torch.tensor(positions, device=device)
        self._sources = torch.tensor(sources, device=device)

    def _projection(self, a_CIMR: Tensor) -> Projection:
        layers = a_CIMR.shape[2]
        a_GIS = a_CIMR[self._slots_G].flatten(2)

        def project(x: Tensor) -> Sequence[Tensor]:
            # gather the rows into (G, P, I), multiply each segment by its own A, and split the
            # product (G, P, S) by the M layers that read x
            is_slice = isinstance(self._tokens, slice)
            x_TI = x[self._tokens] if is_slice else x.index_select(0, self._sources)
            return torch.bmm(x_TI.view(self._shape), a_GIS).chunk(layers, dim=2)

        return project

    def _addition(self, b_CRO: Tensor) -> Addition:
        b_GRO = b_CRO[self._slots_G]

        def add(low_GPR: Tensor, y: Tensor) -> None:
            if isinstance(self._tokens, slice):
                # nothing is padded: add to the rows of y where they are
                y[self._tokens].view(self._shape).baddbmm_(low_GPR, b_GRO)
            else:
                # scatter: take the T positions that hold tokens, and add each to its row of y
                added = torch.bmm(low_GPR, b_GRO).flatten(0, 1)
                y.index_add_(0, self._tokens, added.index_select(0, self._positions_T))

        return add
