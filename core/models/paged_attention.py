"""Attention of sequences whose keys and values stand in the blocks of one cache.

transformers looks the function up by name (`AttentionInterface`). A model that uses it must be
called with `paged`, which says where the tokens of the step belong. Direction, sliding window and
soft cap are what each layer asks for.
"""

# T tokens of the step, H heads, K key/value heads, D size of a head, S places of a block,
# N blocks of a sequence, B sequences with one token, J places of the longest of those

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from core.models.attention import AttentionRule, Prefix, attend

PAGED_ATTENTION = "tunesmith_paged"


class BlockCache:
    """Keys and values of every layer: `blocks` blocks of `block_tokens` places."""

    def __init__(
        self,
        config: PreTrainedConfig,
        blocks: int,
        block_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (blocks, block_tokens, *key_value_shape(config))
        self.block_tokens = block_tokens
        layers = range(config.num_hidden_layers)
        self.keys = [_zeros(shape, dtype, device) for _ in layers]
        self.values = [_zeros(shape, dtype, device) for _ in layers]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; on a CPU they take memory only where something has been written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    untouched = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(untouched).view(dtype).view(shape)


def key_value_shape(config: PreTrainedConfig) -> tuple[int, int]:
    """Return the key/value heads of a layer and the size of each."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return heads, size


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return what the cache takes for one token."""
    heads, size = key_value_shape(config)
    return 2 * int(config.num_hidden_layers) * heads * size * dtype.itemsize


@dataclass(frozen=True)
class SingleTokens:
    """Sequences that read one token in this step."""

    tokens_B: Tensor
    """Where that token stands in the step."""
    blocks_BN: Tensor
    """The blocks of each sequence, padded with any number."""
    lengths_B: Tensor
    """Places of each sequence, the token's own among them."""


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
        output_THD[singles.tokens_B] = _attend_singles(
            query_THD[singles.tokens_B], keys, values, singles, rule
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


def _attend_singles(
    query_BHD: Tensor, keys: Tensor, values: Tensor, singles: SingleTokens, rule: AttentionRule
) -> Tensor:
    """Attend from the last place of each sequence to all of it, or to its window; (B, H, D)."""
    batch, heads, size = query_BHD.shape
    kv_heads = keys.shape[2]
    key_BKJD, value_BKJD = (
        states.index_select(0, singles.blocks_BN.flatten())
        .view(batch, -1, kv_heads, size)
        .transpose(1, 2)
        for states in (keys, values)
    )
    places_J = torch.arange(key_BKJD.shape[2], device=query_BHD.device)
    hidden_BJ = places_J >= singles.lengths_B[:, None]
    if rule.window is not None:
        hidden_BJ |= places_J < singles.lengths_B[:, None] - rule.window
    mask_B11J = query_BHD.new_zeros(hidden_BJ.shape).masked_fill_(hidden_BJ, float("-inf"))
    mask_B11J = mask_B11J[:, None, None]
    # the query heads that share keys stand as if they were tokens of one head
    query_BKGD = query_BHD.view(batch, kv_heads, heads // kv_heads, size)
    if rule.softcap is None:
        output_BKGD = scaled_dot_product_attention(
            query_BKGD, key_BKJD, value_BKJD, attn_mask=mask_B11J, scale=rule.scaling
        )
    else:
        scores_BKGJ = torch.matmul(query_BKGD, key_BKJD.transpose(2, 3))
        scores_BKGJ = torch.tanh(scores_BKGJ * (rule.scaling / rule.softcap)) * rule.softcap
        output_BKGD = torch.matmul(torch.softmax(scores_BKGJ + mask_B11J, dim=-1), value_BKJD)
    return output_BKGD.reshape(batch, heads, size)
