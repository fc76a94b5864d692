"""The types of linear layers in a base, and their frozen matrices."""

from typing import TypeAlias

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from core.models.frozen import FrozenMatrix

LinearLayer: TypeAlias = nn.Linear | Conv1D
"""PyTorch's linear layer, whose subclasses include bitsandbytes' layers, or GPT-2's."""


def as_stored(layer: LinearLayer, weight_OI: Tensor) -> Tensor:
    """Return a weight (O, I) in the layout of the layer's weight."""
    return weight_OI.t() if isinstance(layer, Conv1D) else weight_OI


def frozen_matrix(layer: LinearLayer, prepack: bool) -> FrozenMatrix:
    """Return the matrix of any linear layer, however it is stored."""
    weight, bias_O = layer.weight, layer.bias
    if hasattr(weight, "quant_state") or hasattr(weight, "SCB"):
        # imported here, because machines without quantized bases may lack bitsandbytes
        from core.models.quantized import quantized_matrix

        return quantized_matrix(layer)
    return FrozenMatrix(weight.t() if isinstance(layer, Conv1D) else weight, bias_O, prepack)
