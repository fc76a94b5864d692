"""The tensors of a paged cache: blocks of keys and values for every layer."""

# S positions of a block, K key/value heads, D size of a head, T tokens, N blocks, J = N · S

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig


class BlockCache:
    """Keys, (blocks, K, D, S), and values, (blocks, K, S, D), of every layer.

    In this layout the S scores of a query are contiguous, and so are the D features of its output.
    What a head reads of a block is contiguous too.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        blocks: int,
        block_tokens: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        heads, size = key_value_shape(config)
        self.block_tokens = block_tokens
        layers = range(config.num_hidden_layers)
        shapes = (blocks, heads, size, block_tokens), (blocks, heads, block_tokens, size)
        self.keys, self.values = (
            [_untouched(shape, dtype, device) for _ in layers] for shape in shapes
        )

    def add(self, layer: int, slots: "Slots", key_TKD: Tensor, value_TKD: Tensor) -> None:
        """Store the keys and values of tokens at their positions."""
        self.keys[layer][slots.blocks_T, :, :, slots.places_T] = key_TKD
        self.values[layer][slots.blocks_T, :, slots.places_T] = value_TKD

    def sequence(self, layer: int, blocks_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of the keys and values of blocks, (K, J, D) each."""
        key_NKDS = self.keys[layer].index_select(0, blocks_N)
        value_NKSD = self.values[layer].index_select(0, blocks_N)
        return (
            key_NKDS.permute(1, 0, 3, 2).flatten(1, 2),
            value_NKSD.transpose(0, 1).flatten(1, 2),
        )


@dataclass(frozen=True)
class Slots:
    """The positions of tokens in a cache: block, and offset in the block."""

    blocks_T: Tensor
    places_T: Tensor


def _untouched(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; on a CPU, untouched pages take no memory."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    zeros = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(zeros).view(dtype).view(shape)


def key_value_shape(config: PreTrainedConfig) -> tuple[int, int]:
    """Return the number of key/value heads of a layer and their size."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return heads, size


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return the cache memory per token."""
    heads, size = key_value_shape(config)
    return 2 * int(config.num_hidden_layers) * heads * size * dtype.itemsize
