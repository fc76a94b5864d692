"""Sums of weighted rows of one table, where each sum gathers its rows by number.

It is what attention and low-rank updates are for a row of a batch that has its keys, or its
matrices, to itself: a product that reads the table where it lies, in any order, and copies nothing.
"""

# B sums, N rows of each, F features of a row, R rows of the table

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowIndices:
    """The rows of B sums, (B · N), and where each sum begins and the last one ends, (B + 1)."""

    rows: Tensor
    bounds: Tensor


def row_indices(rows_BN: Tensor) -> RowIndices:
    """Prepare sums over these rows of a table, for any number of products."""
    sums, rows = rows_BN.shape
    bounds = torch.arange(0, sums * rows + 1, rows, dtype=torch.int32, device=rows_BN.device)
    return RowIndices(rows_BN.flatten().int(), bounds)


def weighted_sums(table_RF: Tensor, indices: RowIndices, weights_BN: Tensor) -> Tensor:
    """Return for each sum Σₙ weight · row, (B, F); weights have the dtype of the table."""
    sums_BF, *_ = torch.embedding_bag(
        table_RF,
        indices.rows,
        indices.bounds,
        mode=0,  # the sum
        per_sample_weights=weights_BN.reshape(-1),
        include_last_offset=True,
    )
    return sums_BF
