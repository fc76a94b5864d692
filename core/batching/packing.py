"""Packs several rows into one sequence, without padding and without attention between rows.

Only rows of the same optimizer step are packed together, so packing changes the cost of a step and
not its result.
"""

# T tokens of the micro-batch, L labelled tokens

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor

from core.batching.rows import LabelledRow, PairRow, Row, SourceTargetRow, TrainingRow

RowType = TypeVar("RowType", bound=TrainingRow)


@dataclass(frozen=True)
class PackedBatch:
    """Concatenated token sequences; positions restart at each."""

    tokens_1T: Tensor
    positions_1T: Tensor
    segment_lengths: tuple[int, ...]


@dataclass(frozen=True)
class LabelledBatch(PackedBatch):
    """Concatenated rows and their labelled tokens."""

    predicting_L: Tensor
    """The indices of the hidden states that predict `targets_L`."""
    targets_L: Tensor
    rows_L: Tensor
    """The row of the batch that each target belongs to, from 0."""


def pack(rows: Iterable[RowType], budget_tokens: int) -> list[list[RowType]]:
    """Split rows into micro-batches of at most `budget_tokens`, longest rows first.

    Source-target rows are padded, and their padding counts. A row longer than the budget gets its
    own micro-batch.
    """
    rows = sorted(rows, key=_size, reverse=True)
    if rows and isinstance(rows[0], SourceTargetRow):
        return _next_fit(rows, budget_tokens)
    return _first_fit(rows, budget_tokens)


def lay_out(sequences: Sequence[Sequence[int]], device: torch.device) -> PackedBatch:
    """Concatenate non-empty token sequences into tensors on `device`."""
    lengths = tuple(len(sequence) for sequence in sequences)
    positions_T = torch.cat([torch.arange(length) for length in lengths])
    tokens_T = torch.tensor(list(chain.from_iterable(sequences)))
    return PackedBatch(tokens_T[None].to(device), positions_T[None].to(device), lengths)


def collate(rows: Sequence[Row], device: torch.device) -> LabelledBatch:
    """Return the rows of one micro-batch as tensors on `device`."""
    packed = lay_out([row.tokens for row in rows], device)
    trained_T = torch.tensor(list(chain.from_iterable(row.trained for row in rows)))
    trained_L = trained_T.nonzero()[:, 0]
    rows_T = torch.arange(len(rows)).repeat_interleave(torch.tensor(packed.segment_lengths))
    return LabelledBatch(
        tokens_1T=packed.tokens_1T,
        positions_1T=packed.positions_1T,
        segment_lengths=packed.segment_lengths,
        predicting_L=(trained_L - 1).to(device),
        targets_L=packed.tokens_1T[0, trained_L.to(device)],
        rows_L=rows_T[trained_L].to(device),
    )


def _size(row: TrainingRow) -> tuple[int, ...]:
    match row:
        case SourceTargetRow():
            return len(row.source), len(row.target)
        case Row() | LabelledRow() | PairRow():
            return (row.length,)
        case _:
            raise TypeError(f"cannot pack rows of type {type(row).__name__}")


def _first_fit(rows: Iterable[RowType], budget_tokens: int) -> list[list[RowType]]:
    """Put each row into the first micro-batch with enough room."""
    micro_batches: list[list[RowType]] = []
    room: list[int] = []
    for row in rows:
        fitting = (i for i, tokens in enumerate(room) if tokens >= row.length)
        index = next(fitting, None)
        if index is None:
            micro_batches.append([row])
            room.append(budget_tokens - row.length)
        else:
            micro_batches[index].append(row)
            room[index] -= row.length
    return micro_batches


def _next_fit(rows: Iterable[RowType], budget_tokens: int) -> list[list[RowType]]:
    """Fill one micro-batch after the other, so that rows of similar size are together."""
    micro_batches: list[list[RowType]] = []
    for row in rows:
        if micro_batches and _padded_tokens([*micro_batches[-1], row]) <= budget_tokens:
            micro_batches[-1].append(row)
        else:
            micro_batches.append([row])
    return micro_batches


def _padded_tokens(rows: Sequence[TrainingRow]) -> int:
    sources, targets = zip(*map(_size, rows), strict=True)
    return len(rows) * (max(sources) + max(targets))
