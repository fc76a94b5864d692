"""Attention of sequences whose keys and values are in the blocks of one cache.

transformers finds the function by name (`AttentionInterface`). Call such a model with `paged`, the
cache positions of the step's tokens. Direction, sliding window and soft cap are those of
each layer.
"""

# T tokens of the step, H heads, K key/value heads, G heads that share one, D size of a head,
# S positions of a block, N blocks of a sequence, J = N · S, B sequences with one token

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from core.models.attention import AttentionRule, Prefix, attend, per_head
from core.models.block_cache import BlockCache, Slots
from core.models.row_gather import RowIndices, row_indices, weighted_sums

PAGED_ATTENTION = "tunesmith_paged"


@dataclass(frozen=True)
class SingleTokens:
    """Sequences with one token in this step."""

    tokens: slice | Tensor
    """The row of each token in the step."""
    lengths_B: Tensor
    """Positions of each sequence, including the token."""
    blocks_BN: Tensor
    """Blocks of each sequence, padded with its last one."""
    block_tokens: int
    _hidden: dict[int | None, Tensor] = field(default_factory=dict)
    _row_indices: dict[tuple[int, ...], tuple[RowIndices, RowIndices]] = field(default_factory=dict)

    @cached_property
    def positions_J(self) -> Tensor:
        positions = self.blocks_BN.shape[1] * self.block_tokens
        return torch.arange(positions, device=self.blocks_BN.device)

    def hidden_B1J(self, window: int | None) -> Tensor:
        """Return which positions are hidden: behind the end of a sequence or before its window."""
        if window not in self._hidden:
            hidden_BJ = self.positions_J >= self.lengths_B[:, None]
            if window is not None:
                hidden_BJ |= self.positions_J < self.lengths_B[:, None] - window
            self._hidden[window] = hidden_BJ[:, None]
        return self._hidden[window]

    def row_indices(self, heads: int, kv_heads: int, size: int) -> tuple[RowIndices, RowIndices]:
        """Return the rows of keys and of values that the queries gather, the same in all layers.

        The scores of a block are a sum over the D rows (S) of its keys, an output is a sum over the
        J rows (D) of the values. Positions behind the end gather the last position.
        """
        key = heads, kv_heads, size
        if key not in self._row_indices:
            device = self.blocks_BN.device
            heads_H = torch.arange(heads, device=device) // (heads // kv_heads)
            features_D = torch.arange(size, device=device)
            blocks_BHN = self.blocks_BN[:, None] * kv_heads + heads_H[:, None]
            key_rows = blocks_BHN[..., None] * size + features_D
            own_BJ = torch.minimum(self.positions_J, self.lengths_B[:, None] - 1)
            blocks_BJ = self.blocks_BN.gather(1, own_BJ // self.block_tokens)
            slots_BJ = own_BJ % self.block_tokens
            value_blocks = blocks_BJ[:, None] * kv_heads + heads_H[:, None]
            value_rows = value_blocks * self.block_tokens + slots_BJ[:, None]
            self._row_indices[key] = (
                row_indices(key_rows.flatten(0, 2)),
                row_indices(value_rows.flatten(0, 1)),
            )
        return self._row_indices[key]


@dataclass(frozen=True)
class TokenRun:
    """A sequence with several tokens in this step, or several new sequences of equal length."""

    first: int
    length: int
    blocks_N: Tensor
    """Of the cache; read only if there are earlier positions."""
    before: int
    """Positions of the sequence before these tokens."""
    sequences: int = 1
    """The number of consecutive sequences; more than one have no earlier positions."""


@dataclass(frozen=True)
class GivenStates:
    """Tokens with the keys and values of a trained prefix, its positions [first, end)."""

    tokens: slice
    prefix: Prefix
    first: int
    end: int


@dataclass(frozen=True)
class PagedStep:
    """The cache positions of a step's tokens, and what they attend to."""

    cache: BlockCache
    slots: Slots
    """The cache position of each token."""
    singles: Sequence[SingleTokens]
    runs: Sequence[TokenRun]
    given: Sequence[GivenStates] = ()


def use_paged_attention(model: PreTrainedModel) -> None:
    """Make every attention layer of `model` use a `PagedStep`."""
    model.set_attn_implementation(PAGED_ATTENTION)


def paged_attention(
    module: Any,
    query_1HTD: Tensor,
    key_1KTD: Tensor,
    value_1KTD: Tensor,
    attention_mask: None,
    *,
    paged: PagedStep,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Store the step's keys and values in the cache, then attend; return (1, T, H, D)."""
    rule = AttentionRule(True, sliding_window, scaling, softcap, dropout=0.0)
    layer = module.layer_idx
    key_TKD, value_TKD = key_1KTD[0].transpose(0, 1), value_1KTD[0].transpose(0, 1)
    _put_given(paged.given, layer, key_TKD, value_TKD)
    paged.cache.add(layer, paged.slots, key_TKD, value_TKD)
    query_THD = query_1HTD[0].transpose(0, 1)
    output_THD = torch.empty_like(query_THD, memory_format=torch.contiguous_format)
    attend_singles = _attend_by_gathering if query_THD.device.type == "cpu" else _attend_to_copies
    for singles in paged.singles:
        query_BHD = query_THD[singles.tokens]
        attended_BHD = attend_singles(query_BHD, singles, paged.cache, layer, rule)
        if len(attended_BHD) == len(query_THD):  # there are no other tokens
            return attended_BHD[None], None
        output_THD[singles.tokens] = attended_BHD
    for run in paged.runs:
        tokens = slice(run.first, run.first + run.length * run.sequences)
        states = key_1KTD[0, :, tokens], value_1KTD[0, :, tokens]
        if run.before:
            end = run.before + run.length
            key_KJD, value_KJD = paged.cache.sequence(layer, run.blocks_N)
            states = key_KJD[:, :end], value_KJD[:, :end]
        query_HTD = query_1HTD[0, :, tokens]
        output_THD[tokens] = _attend_run(query_HTD, *states, run.sequences, rule)
    return output_THD[None], None


AttentionInterface.register(PAGED_ATTENTION, paged_attention)


def _put_given(
    given: Sequence[GivenStates], layer: int, key_TKD: Tensor, value_TKD: Tensor
) -> None:
    """Replace the keys and values of virtual tokens with those of their trained prefix."""
    for each in given:
        for states_TKD, own_KPD in zip((key_TKD, value_TKD), each.prefix.layer(layer), strict=True):
            states_TKD[each.tokens] = own_KPD[:, each.first : each.end].transpose(0, 1)


def _attend_run(
    query_HTD: Tensor, key_KJD: Tensor, value_KJD: Tensor, sequences: int, rule: AttentionRule
) -> Tensor:
    """Attend within sequences of equal length; return (T, H, D)."""
    groups = len(query_HTD) // len(key_KJD)
    # heads of all sequences are one batch dimension
    query, key, value = (
        per_head(each[None], repeated)[0].unflatten(1, (sequences, -1)).flatten(0, 1)[None]
        for each, repeated in ((query_HTD, 1), (key_KJD, groups), (value_KJD, groups))
    )
    output = attend(query, key, value, rule)[0]
    return output.unflatten(0, (-1, sequences)).flatten(1, 2).transpose(0, 1)


def _attend_by_gathering(
    query_BHD: Tensor, singles: SingleTokens, cache: BlockCache, layer: int, rule: AttentionRule
) -> Tensor:
    """Attend from the last position of each sequence to all of it, in place; return (B, H, D).

    On a CPU this takes half the time of attention on padded copies.
    """
    batch, heads, size = query_BHD.shape
    keys, values = cache.keys[layer], cache.values[layer]
    key_rows, value_rows = singles.row_indices(heads, values.shape[1], size)
    blocks = singles.blocks_BN.shape[1]
    query_BHND = query_BHD[:, :, None].expand(-1, -1, blocks, -1)
    scores = weighted_sums(keys.view(-1, cache.block_tokens), key_rows, query_BHND)
    probabilities_BHJ = _softmax(scores.view(batch, heads, -1), singles, rule)
    output = weighted_sums(values.view(-1, size), value_rows, probabilities_BHJ.to(values.dtype))
    return output.view(batch, heads, size)


def _attend_to_copies(
    query_BHD: Tensor, singles: SingleTokens, cache: BlockCache, layer: int, rule: AttentionRule
) -> Tensor:
    """Attend from the last position of each sequence to padded copies of it; return (B, H, D)."""
    batch, heads, size = query_BHD.shape
    shape = *singles.blocks_BN.shape, *cache.keys[layer].shape[1:]
    blocks = singles.blocks_BN.flatten()
    key_BNKDS = cache.keys[layer].index_select(0, blocks).view(shape)
    key_BKDJ = key_BNKDS.permute(0, 2, 3, 1, 4).flatten(3)
    value_BNKSD = cache.values[layer].index_select(0, blocks).unflatten(0, shape[:2])
    value_BKJD = value_BNKSD.transpose(1, 2).flatten(2, 3)
    # stale values behind the end may be NaN, and NaN · 0 is NaN
    value_BKJD.masked_fill_(singles.hidden_B1J(None)[..., None], 0)
    # query heads that share keys are treated as tokens of one head
    query_BKGD = query_BHD.view(batch, shape[2], -1, size)
    scores_BHJ = torch.matmul(query_BKGD, key_BKDJ).flatten(1, 2)
    probabilities_BHJ = _softmax(scores_BHJ, singles, rule).to(value_BKJD.dtype)
    output_BKGD = torch.matmul(probabilities_BHJ.unflatten(1, (shape[2], -1)), value_BKJD)
    return output_BKGD.reshape(batch, heads, size)


def _softmax(scores_BHJ: Tensor, singles: SingleTokens, rule: AttentionRule) -> Tensor:
    scores_BHJ = scores_BHJ.float().mul_(rule.scaling)
    if rule.softcap is not None:
        scores_BHJ = torch.tanh(scores_BHJ / rule.softcap) * rule.softcap
    # stale scores may be any number
    scores_BHJ.masked_fill_(singles.hidden_B1J(rule.window), float("-inf"))
    return torch.softmax(scores_BHJ, dim=-1)
