"""Attention within the segments of a packed row.

transformers finds the function by name (`AttentionInterface`), so model code is unchanged. Call
such a model with `segment_lengths`, and optionally a `prefix`. Direction, sliding window, soft cap
and dropout are those of each layer, so in training mode attention dropout follows the config, as in
transformers.
"""

# H heads, K key/value heads, T tokens of the row, S tokens of one segment, P tokens of the prefix,
# C consecutive queries of a segment, J keys that they attend to, D size of a head

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, PreTrainedModel

from core.models.kernel_lengths import pad_mask, pad_segment, segment_padding
from core.models.sixteen_bit_products import product_dtype

PACKED_ATTENTION = "tunesmith_packed"

LONGEST_STORED_SEGMENT = 512
"""Up to this many keys, the probabilities (H·C·J) are kept for the backward pass. On a CPU this
takes half the time of the fused kernel; with more keys, the quadratic memory would be too large."""


class Prefix(Protocol):
    """Keys and values before every segment, visible to all of its tokens."""

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the keys and the values of one layer, each (K, P, D)."""


def use_packed_attention(model: PreTrainedModel) -> None:
    """Restrict every attention layer of `model` to the given segments."""
    model.set_attn_implementation(PACKED_ATTENTION)


@dataclass(frozen=True)
class AttentionRule:
    """The attention pattern of a layer; `window` includes the token itself."""

    causal: bool
    window: int | None
    scaling: float
    softcap: float | None
    dropout: float

    def reach(self, before: int, queries: int, keys: int) -> tuple[int, int]:
        """Return the range of keys visible to `queries` that follow `before` keys."""
        last = before + queries
        if self.window is None:
            return 0, last if self.causal else keys
        beyond = 0 if self.causal else self.window - 1
        return max(0, before - self.window + 1), min(keys, last + beyond)

    def mask(self, before: int, queries: int, keys: int, like: Tensor) -> Tensor | None:
        """Return (C, J): 0 for visible keys and -inf for others; None if all are visible.

        The token of query `c` is key `before + c`.
        """
        right = 1 if self.causal else self.window
        mask_CJ = None
        if right is not None and right < keys - before:
            mask_CJ = like.new_full((queries, keys), float("-inf")).triu_(before + right)
        if self.window is not None and self.window < before + queries:
            left_CJ = like.new_full((queries, keys), float("-inf")).tril_(before - self.window)
            mask_CJ = left_CJ if mask_CJ is None else mask_CJ + left_CJ
        return mask_CJ


def packed_attention(
    module: Any,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: None,
    *,
    segment_lengths: Sequence[int],
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    prefix: Prefix | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within consecutive segments; return (1, T, H, D).

    A window counts positions including those of the prefix, as in transformers' masks: in a layer
    with a window, late tokens of a long text do not see the prefix.
    """
    rule = AttentionRule(module.is_causal, sliding_window, scaling, softcap, dropout)
    lengths = list(segment_lengths)
    groups = query_1HTD.shape[1] // key_1KTD.shape[1]
    given = query_1HTD.dtype
    wide = product_dtype(query_1HTD.device, given)
    query_1HTD, key_1KTD, value_1KTD = (x.to(wide) for x in (query_1HTD, key_1KTD, value_1KTD))
    queries = query_1HTD.contiguous().split(lengths, dim=2)
    keys = per_head(key_1KTD, groups).contiguous().split(lengths, dim=2)
    values = per_head(value_1KTD, groups).contiguous().split(lengths, dim=2)
    if prefix is not None:
        key_1HPD, value_1HPD = (
            per_head(x_KPD[None].to(query_1HTD), groups) for x_KPD in prefix.layer(module.layer_idx)
        )
        keys = [torch.cat((key_1HPD, key_1HSD), dim=2) for key_1HSD in keys]
        values = [torch.cat((value_1HPD, value_1HSD), dim=2) for value_1HSD in values]
    outputs = [attend(*segment, rule) for segment in zip(queries, keys, values, strict=True)]
    return torch.cat(outputs, dim=2).transpose(1, 2).to(given), None


AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def per_head(x_1KTD: Tensor, groups: int) -> Tensor:
    """Repeat keys or values for the query heads that share them."""
    return x_1KTD.repeat_interleave(groups, dim=1) if groups > 1 else x_1KTD


def attend(query_1HSD: Tensor, key_1HJD: Tensor, value_1HJD: Tensor, rule: AttentionRule) -> Tensor:
    """Attend within one segment; additional keys precede its own."""
    length, keys = query_1HSD.shape[2], key_1HJD.shape[2]
    before = keys - length
    windowed = rule.window is not None and rule.window < keys
    if length <= LONGEST_STORED_SEGMENT or not (windowed or rule.softcap):
        return _attend_block(query_1HSD, key_1HJD, value_1HJD, before, rule)
    # fused kernels support neither windows nor score caps: compute block by block
    outputs = []
    for query_1HCD in query_1HSD.split(LONGEST_STORED_SEGMENT, dim=2):
        first, last = rule.reach(before, query_1HCD.shape[2], keys)
        reached = key_1HJD[:, :, first:last], value_1HJD[:, :, first:last]
        outputs.append(_attend_block(query_1HCD, *reached, before - first, rule))
        before += query_1HCD.shape[2]
    return torch.cat(outputs, dim=2)


def _attend_block(
    query_1HCD: Tensor, key_1HJD: Tensor, value_1HJD: Tensor, before: int, rule: AttentionRule
) -> Tensor:
    """Attend from consecutive queries; `before` keys precede the first one."""
    queries, keys = query_1HCD.shape[2], key_1HJD.shape[2]
    few = keys <= LONGEST_STORED_SEGMENT
    stored = few and query_1HCD.device.type == "cpu" and rule.dropout == 0
    windowed = rule.window is not None and rule.window < keys
    plain = rule.causal and queries == keys and not windowed
    if plain and not stored and rule.softcap is None:
        mask_CJ = None  # not needed by the fused kernel
    else:
        mask_CJ = rule.mask(before, queries, keys, query_1HCD)
    if rule.softcap is not None:
        arguments = query_1HCD, key_1HJD, value_1HJD, mask_CJ, rule
        output_1HCD: Tensor = (
            _capped(*arguments) if few else checkpoint(_capped, *arguments, use_reentrant=False)
        )
        return output_1HCD
    if stored:
        return _attend_stored(query_1HCD, key_1HJD, value_1HJD, mask_CJ, rule.scaling)
    return scaled_dot_product_attention(
        query_1HCD,
        key_1HJD,
        value_1HJD,
        attn_mask=mask_CJ,
        is_causal=plain,
        dropout_p=rule.dropout,
        scale=rule.scaling,
    )


def _capped(
    query_1HCD: Tensor,
    key_1HJD: Tensor,
    value_1HJD: Tensor,
    mask_CJ: Tensor | None,
    rule: AttentionRule,
) -> Tensor:
    """Attend with soft-capped scores (Gemma 2, https://arxiv.org/abs/2408.00118)."""
    assert rule.softcap is not None
    scores_1HCJ = torch.matmul(query_1HCD, key_1HJD.transpose(2, 3)) * (rule.scaling / rule.softcap)
    scores_1HCJ = torch.tanh(scores_1HCJ) * rule.softcap
    if mask_CJ is not None:
        scores_1HCJ = scores_1HCJ + mask_CJ
    probabilities_1HCJ = dropout(torch.softmax(scores_1HCJ, dim=-1), rule.dropout)
    return torch.matmul(probabilities_1HCJ, value_1HJD)


def _attend_stored(
    query_1HCD: Tensor,
    key_1HJD: Tensor,
    value_1HJD: Tensor,
    mask_CJ: Tensor | None,
    scaling: float,
) -> Tensor:
    """Attend after padding queries, keys and values to few lengths; return the real queries'."""
    queries, keys = query_1HCD.shape[2], key_1HJD.shape[2]
    padding = segment_padding(queries, query_1HCD.device, query_1HCD.dtype)
    if padding:
        query_1HCD, key_1HJD, value_1HJD = (
            pad_segment(x, padding) for x in (query_1HCD, key_1HJD, value_1HJD)
        )
        mask_CJ = query_1HCD.new_zeros(queries, keys) if mask_CJ is None else mask_CJ
        mask_CJ = pad_mask(mask_CJ, padding)
    output_1HCD: Tensor = _StoredProbabilities.apply(
        query_1HCD, key_1HJD, value_1HJD, mask_CJ, scaling
    )
    return output_1HCD[:, :, :queries]


class _StoredProbabilities(torch.autograd.Function):
    """softmax(Q Kᵀ · scaling + mask) V, which keeps the probabilities for the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        query_1HCD: Tensor,
        key_1HJD: Tensor,
        value_1HJD: Tensor,
        mask_CJ: Tensor | None,
        scaling: float,
    ) -> Tensor:
        query_HCD, key_HJD, value_HJD = query_1HCD[0], key_1HJD[0], value_1HJD[0]
        key_HDJ = key_HJD.transpose(1, 2)
        if mask_CJ is None:
            scores_HCJ = torch.bmm(query_HCD, key_HDJ).mul_(scaling)
        else:
            scores_HCJ = torch.baddbmm(mask_CJ, query_HCD, key_HDJ, alpha=scaling)
        probabilities_HCJ = torch.softmax(scores_HCJ, dim=-1)
        ctx.scaling = scaling
        ctx.save_for_backward(query_HCD, key_HJD, value_HJD, probabilities_HCJ)
        return torch.bmm(probabilities_HCJ, value_HJD)[None]

    @staticmethod
    def backward(ctx: Any, grad_1HCD: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query_HCD, key_HJD, value_HJD, probabilities_HCJ = ctx.saved_tensors
        grad_HCD = grad_1HCD[0]
        grad_value_HJD = torch.bmm(probabilities_HCJ.transpose(1, 2), grad_HCD)
        grad_p_HCJ = torch.bmm(grad_HCD, value_HJD.transpose(1, 2))
        grad_scores_HCJ = torch._softmax_backward_data(
            grad_p_HCJ, probabilities_HCJ, -1, probabilities_HCJ.dtype
        ).mul_(ctx.scaling)
        grad_query_HCD = torch.bmm(grad_scores_HCJ, key_HJD)
        grad_key_HJD = torch.bmm(grad_scores_HCJ.transpose(1, 2), query_HCD)
        return grad_query_HCD[None], grad_key_HJD[None], grad_value_HJD[None], None, None
