"""Attention of sequences whose keys and values stand in the blocks of one cache.

transformers looks the function up by name (`AttentionInterface`). A model that uses it must be
called with `paged`, which says where the tokens of the step belong. Direction, sliding window and
soft cap are what each layer asks for.
"""

# T tokens of the step, H heads, K key/value heads, D size of a head, S places of a block,
# N blocks of a sequence, B sequences with one token, J places of the longest of those, R rows

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from core.models.attention import AttentionRule, Prefix, attend
from core.models.block_cache import BlockCache
from core.models.dense_rows import DenseRows

PAGED_ATTENTION = "tunesmith_paged"


@dataclass(frozen=True)
class SingleTokens:
    """Sequences that read one token in this step."""

    tokens_B: Tensor
    """Where that token stands in the step."""
    lengths_B: Tensor
    """Places of each sequence, the token's own among them."""
    longest: int
    """The most places that one of them has."""
    source: DenseRows | Tensor
    """Where keys and values are: in rows, those of these sequences first and in their order; or in
    these blocks (B, N) of the cache, padded with any number."""
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask_B11J(self, window: int | None, like: Tensor) -> Tensor:
        """Return -inf where a sequence may not look: behind its end, or before its window."""
        if window not in self._masks:
            places_J = torch.arange(self.longest, device=like.device)
            hidden_BJ = places_J >= self.lengths_B[:, None]
            if window is not None:
                hidden_BJ |= places_J < self.lengths_B[:, None] - window
            mask_BJ = like.new_zeros(hidden_BJ.shape).masked_fill_(hidden_BJ, float("-inf"))
            self._masks[window] = mask_BJ[:, None, None]
        return self._masks[window]


@dataclass(frozen=True)
class TokenRun:
    """A sequence that reads several tokens in this step."""

    first: int
    length: int
    blocks_N: Tensor
    before: int
    """Places of the sequence before the first of these tokens."""


@dataclass(frozen=True)
class GivenStates:
    """Tokens whose keys and values are a trained prefix's, places [first, end) of it."""

    tokens: slice
    prefix: Prefix
    first: int
    end: int


@dataclass(frozen=True)
class PagedStep:
    """Where the tokens of one step stand in the cache, and who looks at what."""

    cache: BlockCache
    slots_T: Tensor
    """Block · S + place in the block, of each token."""
    singles: Sequence[SingleTokens]
    runs: Sequence[TokenRun]
    given: Sequence[GivenStates] = ()


def use_paged_attention(model: PreTrainedModel) -> None:
    """Make every attention layer of `model` work on a `PagedStep`."""
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
    """Write the step's keys and values into the cache, then attend; return (1, T, H, D)."""
    rule = AttentionRule(True, sliding_window, scaling, softcap, dropout=0.0)
    layer = module.layer_idx
    key_TKD, value_TKD = key_1KTD[0].transpose(0, 1), value_1KTD[0].transpose(0, 1)
    for given in paged.given:
        for states_TKD, own_KPD in zip(
            (key_TKD, value_TKD), given.prefix.layer(layer), strict=True
        ):
            states_TKD[given.tokens] = own_KPD[:, given.first : given.end].transpose(0, 1)
    keys, values = paged.cache.keys[layer], paged.cache.values[layer]
    keys.flatten(0, 1).index_copy_(0, paged.slots_T, key_TKD)
    values.flatten(0, 1).index_copy_(0, paged.slots_T, value_TKD)
    query_THD = query_1HTD[0].transpose(0, 1)
    output_THD = torch.empty_like(query_THD, memory_format=torch.contiguous_format)
    for singles in paged.singles:
        states = _states_of(singles, layer, paged.cache, key_TKD, value_TKD)
        mask_B11J = singles.mask_B11J(rule.window, query_THD)
        output_THD[singles.tokens_B] = _attend_singles(
            query_THD[singles.tokens_B], *states, mask_B11J, rule
        )
    groups = query_1HTD.shape[1] // keys.shape[2]
    for run in paged.runs:
        tokens, end = slice(run.first, run.first + run.length), run.before + run.length
        key_1HJD, value_1HJD = (
            states.index_select(0, run.blocks_N)
            .flatten(0, 1)[:end]
            .repeat_interleave(groups, dim=1)
            .transpose(0, 1)[None]
            for states in (keys, values)
        )
        output_1HSD = attend(query_1HTD[:, :, tokens], key_1HJD, value_1HJD, rule)
        output_THD[tokens] = output_1HSD[0].transpose(0, 1)
    return output_THD[None], None


AttentionInterface.register(PAGED_ATTENTION, paged_attention)


def _states_of(
    singles: SingleTokens, layer: int, cache: BlockCache, key_TKD: Tensor, value_TKD: Tensor
) -> tuple[Tensor, Tensor]:
    """Return all keys (B, K, D, J) and values (B, K, J, D), those of this step among them."""
    batch, places = len(singles.tokens_B), slice(singles.longest)
    source = singles.source
    if isinstance(source, DenseRows):
        own = key_TKD[singles.tokens_B], value_TKD[singles.tokens_B]
        source.add(layer, singles.lengths_B - 1, *own)
        return source.keys[layer][:batch, :, :, places], source.values[layer][:batch, :, places]
    key_BJKD, value_BJKD = (
        states.index_select(0, source.flatten()).view(batch, -1, *states.shape[2:])
        for states in (cache.keys[layer], cache.values[layer])
    )
    return key_BJKD[:, places].permute(0, 2, 3, 1), value_BJKD[:, places].transpose(1, 2)


def _attend_singles(
    query_BHD: Tensor,
    key_BKDJ: Tensor,
    value_BKJD: Tensor,
    mask_B11J: Tensor,
    rule: AttentionRule,
) -> Tensor:
    """Attend from the last place of each sequence to all of it, or to its window; (B, H, D).

    On a CPU two products are faster here than the fused kernel, which is made for many queries.
    """
    batch, heads, size = query_BHD.shape
    kv_heads = key_BKDJ.shape[1]
    # the query heads that share keys stand as if they were tokens of one head
    query_BKGD = query_BHD.view(batch, kv_heads, heads // kv_heads, size)
    scores_BKGJ = torch.matmul(query_BKGD, key_BKDJ).float().mul_(rule.scaling)
    if rule.softcap is not None:
        scores_BKGJ = torch.tanh(scores_BKGJ / rule.softcap) * rule.softcap
    probabilities_BKGJ = torch.softmax(scores_BKGJ.add_(mask_B11J), dim=-1)
    output_BKGD = torch.matmul(probabilities_BKGJ.to(value_BKJD.dtype), value_BKJD)
    return output_BKGD.reshape(batch, heads, size)
