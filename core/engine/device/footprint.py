"""The device memory of a model, computed before any weight is read."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.artifacts.quantize import layers_to_quantize
from core.engine.device.causal_model import LARGEST_PREPACKED_BASE_BYTES
from core.engine.policy.request import BaseKey
from core.models.load import load_config, outline
from core.models.precision import dtype_of
from core.spec.base_model import Quantization

_BYTES_PER_WEIGHT: dict[Quantization, float] = {
    # half a byte, plus a 1-byte scale per 64 weights, plus 4 bytes per 256 scales
    "nf4": 1 / 2 + 1 / 64 + 4 / (64 * 256),
    "int8": 1,
}
_BYTES_PER_OUTPUT: dict[Quantization, int] = {"nf4": 0, "int8": 4}


@dataclass(frozen=True)
class Footprint:
    """Bytes of one base, without adapters and the activations of a step."""

    weights: int
    copies: int
    """Of prepacked matrices, see `CausalModel`."""
    cache: int
    loading: int
    """Of the weights before they are quantized, if that happens in the same memory."""

    @property
    def total(self) -> int:
        """The peak."""
        return max(self.weights + self.copies + self.cache, self.loading)


def footprint(base: BaseKey, device: torch.device, cache_bytes: int) -> Footprint:
    """Return the memory of a base on `device` with a cache of `cache_bytes`.

    Raises the errors of `load_config`. No other thread may build a model at the same time.
    """
    config, dtype = load_config(base.spec), dtype_of(base.precision)
    # building changes torch's default dtype for all threads, and steps run at the same time
    config.dtype = torch.float32
    quantization = base.spec.quantization or _stored_quantization(config)
    model = outline(base.spec, config, base.task)
    plain = dtype.itemsize * sum(weight.numel() for weight in model.parameters())
    weights = plain - _saved_bytes(model, quantization, dtype)
    quantized = layers_to_quantize(model) if quantization is not None else {}
    copies = 0
    if base.task == "generation" and device.type == "cpu" and dtype == torch.float32:
        copies = sum(
            module.weight.numel() * dtype.itemsize
            for path, module in model.named_modules()
            if type(module) is nn.Linear and path not in quantized
        )
    is_quantized_late = base.merged_sha256 is not None and quantization is not None
    return Footprint(
        weights,
        copies if weights <= LARGEST_PREPACKED_BASE_BYTES else 0,
        cache_bytes,
        loading=plain if is_quantized_late and device.type == "cpu" else 0,
    )


def _saved_bytes(
    model: PreTrainedModel, quantization: Quantization | None, dtype: torch.dtype
) -> int:
    if quantization is None:
        return 0
    saved = 0.0
    for layer in layers_to_quantize(model).values():
        weights = layer.weight.numel()
        outputs = layer.weight.shape[1 if isinstance(layer, Conv1D) else 0]
        saved += weights * (dtype.itemsize - _BYTES_PER_WEIGHT[quantization])
        saved -= outputs * _BYTES_PER_OUTPUT[quantization]
    return int(saved)


def _stored_quantization(config: PreTrainedConfig) -> Quantization | None:
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    return "int8" if stored.get("load_in_8bit") else "nf4"
