"""Padding to few lengths, so that oneDNN has few kernels to build.

On a CPU, oneDNN builds a kernel for every new length of a batch and each of some twenty products,
in 1 to 3 ms and half a megabyte, and keeps the last 1,024 of them. Lengths of real rows hardly
return, so a run would build kernels at every step, and an engine for every embedding. Dropped
kernels leave holes in the heap: 1,500 lengths took 1.6 GB, of which kernels were 0.5. In bf16 the
same is true of segments; in fp32 MKL multiplies these, and builds nothing. Segments longer than
attention stores, and attention with capped scores, are not padded.
"""

# T tokens of a packed batch, E hidden size, H heads, D size of a head,
# C queries of a segment, J keys that they attend to

import torch
from torch import Tensor
from torch.nn.functional import pad

from core.models.sixteen_bit_products import has_products

BATCH_STEP = 64
"""A multiple of AMX's blocks, for whose remainders oneDNN builds further kernels."""
SEGMENT_STEP = 32


def batch_padding(tokens: int, device: torch.device) -> int:
    """Return the number of tokens to append: less than an eighth of `tokens`, less than 64."""
    if not _batches_need_kernels(device):
        return 0
    eighth = max(1, tokens // 8)
    return -tokens % min(BATCH_STEP, 1 << (eighth.bit_length() - 1))


def pad_batch(x: Tensor, padding: int) -> Tensor:
    """Append zeros to ids or positions (1, T), or to embeddings (1, T, E)."""
    return pad(x, (0, 0) * (x.dim() - 2) + (0, padding))


def segment_padding(queries: int, device: torch.device, dtype: torch.dtype) -> int:
    """Return the number of queries to append, and of keys."""
    return -queries % SEGMENT_STEP if _segments_need_kernels(device, dtype) else 0


def pad_segment(x_1HSD: Tensor, padding: int) -> Tensor:
    """Append zeros to the queries, keys or values of a segment."""
    return pad(x_1HSD, (0, 0, 0, padding))


def pad_mask(mask_CJ: Tensor, padding: int) -> Tensor:
    """Hide appended keys from all queries but the appended ones, which need some visible key."""
    return pad(pad(mask_CJ, (0, padding), value=float("-inf")), (0, 0, 0, padding))


def _batches_need_kernels(device: torch.device) -> bool:
    return device.type == "cpu" and torch.backends.mkldnn.is_available()


def _segments_need_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype is torch.bfloat16 and has_products(device, dtype)
