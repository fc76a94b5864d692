"""What an adapter changes at one place of a model, ready to run beside others in one batch.

A delta takes the rows of a batch that belong to its adapter: what went into the module of the base
and what came out of it. Its weights have the dtype of the base, converted once; the sums are those
of the layers that were trained.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from core.catalog.strategies import STRATEGIES, whole_modules
from core.spec.strategy import StrategySpec


class Delta(Protocol):
    """From input and output of the base's own module to the output of the adapted one."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adapted output; may write over `y`, never over `x`."""


class AdapterLayer(nn.Module, ABC):
    """Takes the place of `base_layer`, a module of the base, and changes what that returns."""

    base_layer: nn.Module

    @abstractmethod
    def delta(self, dtype: torch.dtype) -> Delta:
        """Return what the layer adds to its base, for a model of this dtype."""

    @abstractmethod
    def merged(self) -> dict[str, Tensor]:
        """Return the weights with which `base_layer` answers as this layer does, by their names.

        They are laid out as those of the base, in the dtype of the adapter. ValueError when there
        are none.
        """


@dataclass(frozen=True)
class WholeDelta:
    """A trained copy of the module, which takes its place."""

    module: nn.Module

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        output: Tensor = self.module(x)
        return output


@torch.no_grad()
def delta_of(layer: nn.Module, dtype: torch.dtype) -> Delta:
    """Return what `layer`, one of an AdaptedModel's, adds to the module that it stands for."""
    if isinstance(layer, AdapterLayer):
        return layer.delta(dtype)
    if hasattr(layer, "base_layer"):  # it runs a module of the base and adds to it
        raise TypeError(f"no delta for a {type(layer).__name__}")
    return WholeDelta(layer)


def copies_weights(strategy: StrategySpec) -> bool:
    """Say whether `delta_of` copies all weights of such an adapter and keeps none of its layers."""
    return STRATEGIES[strategy.type].copies_weights and not whole_modules(strategy)
