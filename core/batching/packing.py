"""Several rows in one sequence: no padding, and no attention across rows.

Packing happens only among the rows of one optimiser step, so it changes what a step costs and
never what it computes.
"""

# T tokens of the micro-batch, L labelled tokens

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from core.batching.rows import Row


@dataclass(frozen=True)
class PackedBatch:
    """Rows one after another, with positions that restart and the labels by index."""

    tokens_1T: Tensor
    positions_1T: Tensor
    segment_lengths: tuple[int, ...]
    predicting_L: Tensor
    """Where the hidden states stand that predict `targets_L`."""
    targets_L: Tensor


def pack(rows: Iterable[Row], budget_tokens: int) -> list[list[Row]]:
    """Split rows into micro-batches of at most `budget_tokens`, longest rows first.

    First-fit decreasing. A row that is longer than the budget stands alone.
    """
    micro_batches: list[list[Row]] = []
    room: list[int] = []
    for row in sorted(rows, key=lambda row: len(row.tokens), reverse=True):
        fitting = (i for i, tokens in enumerate(room) if tokens >= len(row.tokens))
        index = next(fitting, None)
        if index is None:
            micro_batches.append([row])
            room.append(budget_tokens - len(row.tokens))
        else:
            micro_batches[index].append(row)
            room[index] -= len(row.tokens)
    return micro_batches


def collate(rows: Sequence[Row], device: torch.device) -> PackedBatch:
    """Lay the rows of one micro-batch out as tensors on `device`."""
    lengths = tuple(len(row.tokens) for row in rows)
    tokens_T = torch.tensor(list(chain.from_iterable(row.tokens for row in rows)))
    positions_T = torch.cat([torch.arange(length) for length in lengths])
    trained_T = torch.tensor(list(chain.from_iterable(row.trained for row in rows)))
    trained_L = trained_T.nonzero()[:, 0]
    return PackedBatch(
        tokens_1T=tokens_T[None].to(device),
        positions_1T=positions_T[None].to(device),
        segment_lengths=lengths,
        predicting_L=(trained_L - 1).to(device),
        targets_L=tokens_T[trained_L].to(device),
    )
