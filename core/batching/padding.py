"""Pads the sources and targets of encoder-decoders to equal length.

These models derive positions from the index in the sequence, so rows cannot be packed.
"""

# B rows, S longest source, D longest target, L target tokens

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from core.batching.rows import SourceTargetRow


@dataclass(frozen=True)
class PaddedBatch:
    """Padding is on the right. The decoder reads the target shifted right by one."""

    source_tokens_BS: Tensor
    source_mask_BS: Tensor
    """1 for a token, 0 for padding."""
    decoder_tokens_BD: Tensor
    predicting_L: Tensor
    """The indices in the flattened (B · D) decoder states that predict `targets_L`."""
    targets_L: Tensor
    rows_L: Tensor
    """The row of the batch that each target belongs to, from 0."""


def pad(
    rows: Sequence[SourceTargetRow], start_token: int, pad_token: int, device: torch.device
) -> PaddedBatch:
    """Return the rows of one micro-batch as tensors; the decoder starts with `start_token`."""
    sources = [torch.tensor(row.source) for row in rows]
    inputs = [torch.tensor((start_token, *row.target[:-1])) for row in rows]
    lengths_B = torch.tensor([len(row.target) for row in rows])
    trained_BD = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
    mask_BS = pad_sequence([torch.ones_like(source) for source in sources], batch_first=True)
    return PaddedBatch(
        source_tokens_BS=pad_sequence(sources, True, float(pad_token)).to(device),
        source_mask_BS=mask_BS.to(device),
        decoder_tokens_BD=pad_sequence(inputs, True, float(pad_token)).to(device),
        predicting_L=trained_BD.flatten().nonzero()[:, 0].to(device),
        targets_L=torch.tensor([token for row in rows for token in row.target]).to(device),
        rows_L=trained_BD.nonzero()[:, 0].to(device),
    )
