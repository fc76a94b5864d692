"""Deltas: the changes of an adapter to one module, to run beside other adapters in one batch.

A delta gets the input and output of the base's module for the rows of its adapter. Its weights are
converted once to the dtype of the base; it computes the same sums as the trained layer.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from core.catalog.strategies import STRATEGIES, fully_trained_modules
from core.spec.strategy import StrategySpec


class Delta(Protocol):
    """Maps input and output of the base's module to the adapted output."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adapted output; may overwrite `y` but not `x`."""


class AdapterLayer(nn.Module, ABC):
    """Replaces `base_layer`, a module of the base, and changes its output."""

    base_layer: nn.Module

    @abstractmethod
    def delta(self, dtype: torch.dtype) -> Delta:
        """Return the delta of the layer for a model of this dtype."""

    @abstractmethod
    def merged(self) -> dict[str, Tensor]:
        """Return by name the weights that make `base_layer` compute the same as this layer.

        They have the layout of the base and the dtype of the adapter. ValueError if there are none.
        """


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
    if isinstance(layer, AdapterLayer):
        return layer.delta(dtype)
    if hasattr(layer, "base_layer"):  # it changes the output of a module of the base
        raise TypeError(f"no delta for a {type(layer).__name__}")
    return WholeDelta(layer)


def copies_weights(strategy: StrategySpec) -> bool:
    """Whether `delta_of` copies all weights of such an adapter and keeps none of its layers."""
    return STRATEGIES[strategy.type].copies_weights and not fully_trained_modules(strategy)
