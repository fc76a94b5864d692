"""Quantizes a model in memory, with the same result as `load_base` on the same weights."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.linear_layers import LinearLayer
from core.adapters.modules_to_save import classifier_head
from core.models.load import NF4, make_rows_independent
from core.spec.base_model import Quantization


def layers_to_quantize(model: PreTrainedModel) -> dict[str, LinearLayer]:
    """Return the linear layers of the blocks by path, without the head and those kept in fp32."""
    dense = {"lm_head", *classifier_head(model), *(model._keep_in_fp32_modules or ())}
    return {
        path: module
        for path, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D))
        and not dense & set(path.split("."))
    }


def quantize(model: PreTrainedModel, quantization: Quantization, device: torch.device) -> None:
    """Quantize a dense model in CPU memory and move it to `device`, layer by layer."""
    dtype = model.dtype
    for path, layer in layers_to_quantize(model).items():
        weight_OI = layer.weight.t() if isinstance(layer, Conv1D) else layer.weight
        make = _in_four_bits if quantization == "nf4" else _in_eight_bits
        quantized = make(weight_OI.detach().contiguous(), layer.bias is not None, dtype, device)
        quantized.bias = layer.bias
        model.set_submodule(path, quantized.train(model.training))
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.to(device)
    make_rows_independent(model)


def _in_four_bits(
    weight_OI: torch.Tensor, has_bias: bool, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    outputs, inputs = weight_OI.shape
    kind = {"quant_type": NF4.quantization, "compress_statistics": NF4.double_quantization}
    layer = Linear4bit(inputs, outputs, has_bias, dtype, device="meta", **kind)
    layer.weight = Params4bit(weight_OI, requires_grad=False, module=layer, **kind).to(device)
    return layer


def _in_eight_bits(
    weight_OI: torch.Tensor, has_bias: bool, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    outputs, inputs = weight_OI.shape
    layer = Linear8bitLt(inputs, outputs, has_bias, has_fp16_weights=False, device="meta")
    layer.weight = Int8Params(weight_OI, requires_grad=False).to(device)
    return layer
