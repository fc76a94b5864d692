"""The memory of a paged cache: blocks of places for keys and values of every layer."""

# S places of a block, K key/value heads, D size of a head

import math

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig


class BlockCache:
    """Keys and values of every layer, (blocks, S, K, D) each."""

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
        self.keys = [untouched(shape, dtype, device) for _ in layers]
        self.values = [untouched(shape, dtype, device) for _ in layers]

    @property
    def places(self) -> int:
        """Return how many tokens all blocks hold."""
        return len(self.keys[0]) * self.block_tokens


def untouched(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; on a CPU they take memory only where something has been written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    zeros = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(zeros).view(dtype).view(shape)


def key_value_shape(config: PreTrainedConfig) -> tuple[int, int]:
    """Return the key/value heads of a layer and the size of each."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return heads, size


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return what the cache takes for one token."""
    heads, size = key_value_shape(config)
    return 2 * int(config.num_hidden_layers) * heads * size * dtype.itemsize
