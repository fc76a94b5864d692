"""Deltas: the changes of an adapter to one module, to run beside other adapters in one batch.

A delta gets the input and output of the base's module for the rows of its adapter. Its weights are
converted once to the dtype of the base; it computes the same sums as the trained layer.
"""

# T tokens, I inputs, O outputs, R rank

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from core.adapters.bottleneck import Bottleneck
from core.adapters.dora import DoraLinear
from core.adapters.lora import LoraLinear
from core.spec.members import for_each
from core.spec.strategy import LowRankSpec, StrategySpec


class Delta(Protocol):
    """Maps input and output of the base's module to the adapted output."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adapted output; may overwrite `y` but not `x`."""


@dataclass(frozen=True)
class LoraDelta:
    """y + (x Aᵀ) Bᵀ · scale, with the scale in B."""

    a_RI: Tensor
    b_RO: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        y_TO = y.reshape(-1, y.shape[-1])
        low_TR = torch.mm(x.reshape(-1, x.shape[-1]), self.a_RI.t())
        return y_TO.addmm_(low_TR, self.b_RO).view(y.shape)


@dataclass(frozen=True)
class DoraDelta:
    """f · (y - b + (x Aᵀ) Bᵀ · scale) + b, where f = magnitude / length of each row."""

    low_rank: LoraDelta
    factors_O: Tensor
    bias_O: Tensor | None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if self.bias_O is not None:
            y = y - self.bias_O
        y = self.low_rank(x, y)
        # the factor is near 1, and x + x · (f - 1) keeps the digits that it would lose in bf16
        y = torch.addcmul(y, y, self.factors_O)
        return y if self.bias_O is None else y + self.bias_O


@dataclass(frozen=True)
class BottleneckDelta:
    """The bottleneck's residual layer on the output of the module."""

    adapter: Bottleneck

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.adapter.adapt(y)


@dataclass(frozen=True)
class WholeDelta:
    """A trained copy that replaces the module."""

    module: nn.Module

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        output: Tensor = self.module(x)
        return output


@torch.no_grad()
def delta_of(layer: nn.Module, dtype: torch.dtype) -> Delta:
    """Return the delta of `layer`, a module of an AdaptedModel's `replaced`."""
    match layer:
        case DoraLinear():
            factors_O, bias_O = layer.factors()
            share_O = (factors_O - 1).to(dtype)
            return DoraDelta(_low_rank(layer, dtype), share_O, None if bias_O is None else bias_O)
        case Bottleneck():
            return BottleneckDelta(layer)
        case _ if hasattr(layer, "base_layer"):  # it runs a module of the base and adds to it
            raise TypeError(f"no delta for a {type(layer).__name__}")
        case _:
            return WholeDelta(layer)


def copies_weights(strategy: StrategySpec) -> bool:
    """Whether `delta_of` copies all weights of such an adapter and keeps none of its layers."""
    whole_modules = isinstance(strategy, LowRankSpec) and bool(strategy.modules_to_save)
    return _COPIES_WEIGHTS[strategy.type] and not whole_modules


_COPIES_WEIGHTS = for_each(
    StrategySpec,
    {
        "full": False,
        "lora": True,
        "qlora": True,
        "bottleneck": False,
        "prefix": False,
        "prompt": False,
    },
)


def _low_rank(layer: LoraLinear, dtype: torch.dtype) -> LoraDelta:
    scaled_b_RO = (layer.lora_B * layer.scale).to(dtype).t().contiguous()
    return LoraDelta(layer.lora_A.detach().to(dtype, copy=True), scaled_b_RO.detach())
