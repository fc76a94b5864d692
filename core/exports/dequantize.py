"""Makes a model of quantized layers dense again, so that an adapter can be merged into it."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.linear_layers import LinearLayer
from core.adapters.targets import is_quantized
from core.models.quantized import quantized_matrix


@torch.no_grad()
def dequantize(model: PreTrainedModel, plain: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace every quantized layer by a dense one with the same rounded weights, one at a time.

    `plain` is the outline of the model, which says whether a layer is transposed. Afterwards
    neither the model nor its config knows of a quantization.
    """
    for path, layer in list(model.named_modules()):
        if is_quantized(layer):
            weight_OI = quantized_matrix(layer).dense(dtype)
            transposed = isinstance(plain.get_submodule(path), Conv1D)
            dense = _conv(weight_OI) if transposed else _linear(weight_OI)
            dense.bias = layer.bias
            model.set_submodule(path, dense.train(layer.training))
    for name in ("quantization_config", "_pre_quantization_dtype"):
        model.config.__dict__.pop(name, None)
    model.hf_quantizer = None
    model.__dict__.pop("_weight_conversions", None)  # those of quantized weights have no inverse


def _linear(weight_OI: Tensor) -> LinearLayer:
    outputs, inputs = weight_OI.shape
    layer = nn.Linear(inputs, outputs, bias=False, device="meta")
    layer.weight = nn.Parameter(weight_OI, requires_grad=False)
    return layer


def _conv(weight_OI: Tensor) -> LinearLayer:
    outputs, inputs = weight_OI.shape
    with torch.device("meta"):
        layer = Conv1D(outputs, inputs)
    layer.weight = nn.Parameter(weight_OI.t().contiguous(), requires_grad=False)
    return layer
