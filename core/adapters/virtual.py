"""Virtual tokens: trained embeddings, or keys and values, before the first token of every text.

They are stored outside the model, so one base supports any number of them. Shapes are those of
PEFT's files.
"""

# P virtual tokens, E hidden size, L layers, K key/value heads, D size of a head, B rows

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from core.adapters.modules_to_save import weights_by_name


class SoftPrompt(nn.Module):
    """Embeddings of virtual tokens. Source: Lester et al. 2021, https://arxiv.org/abs/2104.08691."""

    def __init__(self, embeddings_PE: Tensor) -> None:
        super().__init__()
        self.embeddings_PE = nn.Parameter(embeddings_PE)

    @property
    def tokens(self) -> int:
        return self.embeddings_PE.shape[0]


@dataclass(frozen=True)
class PrefixStates:
    """The keys and values of each layer, (K, P, D), for the attention kernel."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[1]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        return self.layers[index]

    def cache(self, rows: int) -> DynamicCache:
        """Return a cache of `rows` rows that starts with these keys and values."""
        return DynamicCache(
            tuple(
                (key_KPD.expand(rows, -1, -1, -1), value_KPD.expand(rows, -1, -1, -1))
                for key_KPD, value_KPD in self.layers
            )
        )


class Prefix(nn.Module):
    """Keys and values of virtual tokens, for every layer: (P, L · 2 · K · D).

    Source: Li & Liang 2021, https://arxiv.org/abs/2101.00190, without their reparameterization.
    """

    def __init__(self, weights: Tensor, heads: int, head_size: int, order: Sequence[int]) -> None:
        """`order` is, for each layer of the model, the index of its pair of keys and values."""
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.order = tuple(order)
        self.heads = heads
        self.head_size = head_size

    @property
    def tokens(self) -> int:
        return self.weights.shape[0]

    def states(self, dtype: torch.dtype) -> PrefixStates:
        """Return all keys and values in the dtype of the model."""
        split = self.weights.to(dtype).view(self.tokens, -1, self.heads, self.head_size)
        states = split.permute(1, 2, 0, 3).unbind()
        return PrefixStates(tuple((states[2 * pair], states[2 * pair + 1]) for pair in self.order))


def head_weights(copies: dict[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the weights of a classifier's head by PEFT's names.

    The names are shorter than with layers inside the model, which PEFT wraps once more.
    """
    return {
        name.replace("base_model.model.", "base_model.", 1): parameter
        for name, parameter in weights_by_name(copies).items()
    }
