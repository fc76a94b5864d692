"""Weight matrices that bitsandbytes stores in four or eight bits.

A matrix is dequantized for each product, so only one is dense at a time. Sources: Dettmers et al.
2023, https://arxiv.org/abs/2305.14314 (four bits); Dettmers et al. 2022,
https://arxiv.org/abs/2208.07339 (eight bits). Only the storage of the latter is used: products are
computed with the dense matrix, because the paper rounds a row's input depending on the outlier
columns of other rows in the batch.
"""

# I inputs, O outputs

from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import Tensor, nn

from core.models.frozen import FrozenMatrix, frozen_product


class StoredInEightBits(Linear8bitLt):
    """A `Linear8bitLt` that does not quantize its input."""

    @classmethod
    def take_over(cls, layer: nn.Module) -> None:
        """Convert a loaded `Linear8bitLt` in place; ignore other modules."""
        if type(layer) is Linear8bitLt:
            layer.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b, (…, O)."""
        return frozen_product(x, quantized_matrix(self))


def quantized_matrix(layer: nn.Module) -> FrozenMatrix:
    """Return the matrix of a `Linear4bit` or `Linear8bitLt`."""
    if isinstance(layer, Linear4bit):
        return _FourBits(layer)
    assert isinstance(layer, Linear8bitLt)
    return _EightBits(layer)


class _Quantized(FrozenMatrix):
    def __init__(self, layer: Any) -> None:
        super().__init__(layer.weight, layer.bias, prepack=False)
        self._layer = layer

    @property
    def shape(self) -> tuple[int, int]:
        return self._layer.out_features, self._layer.in_features


class _FourBits(_Quantized):
    def __init__(self, layer: Any) -> None:
        super().__init__(layer)

    def dense(self, dtype: torch.dtype) -> Tensor:
        weight = self._layer.weight
        return dequantize_4bit(weight.data, weight.quant_state).to(dtype)


class _EightBits(_Quantized):
    def dense(self, dtype: torch.dtype) -> Tensor:
        weight, state = self._layer.weight, self._layer.state
        # the first forward pass moves both from the weight to the state
        rows_OI = weight.data if state.CB is None else state.CB
        largest_O = weight.SCB if state.SCB is None else state.SCB
        dense_OI: Tensor = rows_OI.to(dtype) * (largest_O / 127.0).to(dtype)[:, None]
        return dense_OI
