"""Causal attention inside each of several sequences that stand in one row.

transformers looks the function up by name (`AttentionInterface`), so the code of the models
stays as it is. A model that uses it must be called with `segment_lengths`.
"""

# H heads, K key/value heads, T tokens of the row, S tokens of one segment, D size of a head

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

PACKED_ATTENTION = "tunesmith_packed"

LONGEST_STORED_SEGMENT = 512
"""Up to this length the probabilities (H·S·S) are kept for the backward pass, which on a CPU
takes half the time of the fused kernel; above it their memory would grow quadratically."""


def use_packed_attention(model: PreTrainedModel) -> None:
    """Make every attention layer of `model` attend within the given segments only."""
    model.set_attn_implementation(PACKED_ATTENTION)


def packed_attention(
    module: torch.nn.Module,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: None,
    *,
    segment_lengths: Sequence[int],
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend causally within segments that follow one another; return (1, T, H, D)."""
    groups = query_1HTD.shape[1] // key_1KTD.shape[1]
    if groups > 1:
        key_1KTD = key_1KTD.repeat_interleave(groups, dim=1)
        value_1KTD = value_1KTD.repeat_interleave(groups, dim=1)
    lengths = list(segment_lengths)
    queries, keys, values = (
        x.contiguous().split(lengths, dim=2) for x in (query_1HTD, key_1KTD, value_1KTD)
    )
    outputs = [
        _attend(query_1HSD, key_1HSD, value_1HSD, scaling, dropout, sliding_window)
        for query_1HSD, key_1HSD, value_1HSD in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def _attend(
    query_1HSD: Tensor,
    key_1HSD: Tensor,
    value_1HSD: Tensor,
    scaling: float,
    dropout: float,
    sliding_window: int | None,
) -> Tensor:
    length = query_1HSD.shape[2]
    windowed = sliding_window is not None and length > sliding_window
    on_cpu = query_1HSD.device.type == "cpu"
    if on_cpu and length <= LONGEST_STORED_SEGMENT and not windowed and dropout == 0:
        return _StoredProbabilities.apply(query_1HSD, key_1HSD, value_1HSD, scaling)
    mask_SS = _window_mask(length, sliding_window, query_1HSD.device) if windowed else None
    return scaled_dot_product_attention(
        query_1HSD,
        key_1HSD,
        value_1HSD,
        attn_mask=mask_SS,
        is_causal=mask_SS is None,
        dropout_p=dropout,
        scale=scaling,
    )


def _window_mask(length: int, window: int | None, device: torch.device) -> Tensor:
    """Return True where a query may look: itself and the `window` - 1 tokens before it."""
    ones_SS = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones_SS.tril() & ones_SS.triu(1 - (window or length))


class _StoredProbabilities(torch.autograd.Function):
    """softmax(Q Kᵀ · scaling + causal mask) V, with the probabilities kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, query_1HSD: Tensor, key_1HSD: Tensor, value_1HSD: Tensor, scaling: float
    ) -> Tensor:
        query_HSD, key_HSD, value_HSD = query_1HSD[0], key_1HSD[0], value_1HSD[0]
        length = query_HSD.shape[1]
        mask_SS = query_HSD.new_full((length, length), float("-inf")).triu_(1)
        scores_HSS = torch.baddbmm(mask_SS, query_HSD, key_HSD.transpose(1, 2), alpha=scaling)
        probabilities_HSS = torch.softmax(scores_HSS, dim=-1)
        ctx.scaling = scaling
        ctx.save_for_backward(query_HSD, key_HSD, value_HSD, probabilities_HSS)
        return torch.bmm(probabilities_HSS, value_HSD)[None]

    @staticmethod
    def backward(ctx: Any, grad_1HSD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query_HSD, key_HSD, value_HSD, probabilities_HSS = ctx.saved_tensors
        grad_HSD = grad_1HSD[0]
        grad_value_HSD = torch.bmm(probabilities_HSS.transpose(1, 2), grad_HSD)
        grad_p_HSS = torch.bmm(grad_HSD, value_HSD.transpose(1, 2))
        grad_scores_HSS = torch._softmax_backward_data(
            grad_p_HSS, probabilities_HSS, -1, probabilities_HSS.dtype
        ).mul_(ctx.scaling)
        grad_query_HSD = torch.bmm(grad_scores_HSS, key_HSD)
        grad_key_HSD = torch.bmm(grad_scores_HSS.transpose(1, 2), query_HSD)
        return grad_query_HSD[None], grad_key_HSD[None], grad_value_HSD[None], None
