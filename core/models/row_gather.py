"""Weighted sums of the rows of a table, where each sum gathers its rows by index.

Attention and low-rank updates have this form if each row of a batch has its own keys or matrices.
The product reads the table in place, in any order, without copies.
"""

# B sums, N rows of each, F features of a row, R rows of the table

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowIndices:
    """The rows of B sums, (B · N), and their offsets with the end, (B + 1)."""

    rows: Tensor
    bounds: Tensor


def row_indices(rows_BN: Tensor) -> RowIndices:
    """Prepare the indices of these rows, for any number of products."""
    sums, rows = rows_BN.shape
    bounds = torch.arange(0, sums * rows + 1, rows, dtype=torch.int32, device=rows_BN.device)
    return RowIndices(rows_BN.flatten().int(), bounds)


def weighted_sums(table_RF: Tensor, indices: RowIndices, weights_BN: Tensor) -> Tensor:
    """Return Σₙ weight · row for each sum, (B, F); weights have the dtype of the table."""
    sums_BF, *_ = torch.embedding_bag(
        table_RF,
        indices.rows,
        indices.bounds,
        mode=0,  # the sum
        per_sample_weights=weights_BN.reshape(-1),
        include_last_offset=True,
    )
    return sums_BF
