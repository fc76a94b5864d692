"""Deltas: the changes of an adapter to one module, to run beside other adapters in one batch.

A delta gets the input and output of the base's module for the rows of its adapter. Its weights are
converted once to the dtype of the base; it computes the same sums as the trained layer.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from core.catalog.strategies import STRATEGIES
from core.spec.strategy import StrategySpec


class Delta(Protocol):
    """Maps input and output of the base's module to the adapted output."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the adapted output; may overwrite `y` but not `x`."""


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
    if hasattr(layer, "base_layer"):  # it runs a module of the base and adds to it
        raise TypeError(f"no delta for a {type(layer).__name__}")
    return WholeDelta(layer)


def copies_weights(strategy: StrategySpec) -> bool:
    """Whether `delta_of` copies all weights of such an adapter and keeps none of its layers."""
    whole_modules = getattr(strategy, "modules_to_save", ())
    return STRATEGIES[strategy.type].copies_weights and not whole_modules
