"""Virtual tokens: trained places before the first token of every text.

They live outside of the model, so one base carries any number of them. Shapes are those of PEFT's
files.
"""

# P virtual tokens, E hidden size, L layers, K key/value heads, D size of a head, B rows

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from core.adapters.whole import weights_by_name


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
    """The keys and the values of each layer, (K, P, D), as the attention kernel asks for them."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def tokens(self) -> int:
        return self.layers[0][0].shape[1]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        return self.layers[index]

    def cache(self, rows: int) -> DynamicCache:
        """Return a cache in which these keys and values stand already, for each of `rows` rows."""
        return DynamicCache(
            tuple(
                (key_KPD.expand(rows, -1, -1, -1), value_KPD.expand(rows, -1, -1, -1))
                for key_KPD, value_KPD in self.layers
            )
        )


class Prefix(nn.Module):
    """Keys and values of virtual tokens, for every layer: (P, L · 2 · K · D).

    Source: Li & Liang 2021, https://arxiv.org/abs/2101.00190; without their projection, so that
    what is trained is what is used.
    """

    def __init__(self, weights: Tensor, heads: int, head_size: int, order: Sequence[int]) -> None:
        """`order` says for each layer of the model which of the L pairs it takes."""
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.order = tuple(order)
        self.heads = heads
        self.head_size = head_size

    @property
    def tokens(self) -> int:
        return self.weights.shape[0]

    def states(self, dtype: torch.dtype) -> PrefixStates:
        """Return all keys and values in the dtype of the model that is to use them."""
        split = self.weights.to(dtype).view(self.tokens, -1, self.heads, self.head_size)
        states = split.permute(1, 2, 0, 3).unbind()
        return PrefixStates(tuple((states[2 * pair], states[2 * pair + 1]) for pair in self.order))


def head_weights(copies: dict[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Return the weights of a classifier's head by their names in PEFT's files.

    They are shorter than beside layers within the model, which PEFT wraps once more.
    """
    return {
        name.replace("base_model.model.", "base_model.", 1): parameter
        for name, parameter in weights_by_name(copies).items()
    }
