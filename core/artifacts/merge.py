"""An adapter made part of its base's weights: the same answers without layers beside them.

What an adapter makes of a weight is computed in fp32 (W + scale · B A, after DoRA with rows of
their trained lengths) and rounded once, to the dtype of the base. Modules that were trained whole
take the place of the base's.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.delta import AdapterLayer
from core.adapters.targets import is_quantised


@torch.no_grad()
def merge(adapted: AdaptedModel) -> PreTrainedModel:
    """Merge an adapter that is not installed into its model, layer by layer, and return the model.

    A weight that was tied to a merged one stays as it was. ValueError for what
    `core.catalog.cells.require_mergeable` refuses.
    """
    if adapted.virtual is not None:
        raise ValueError("virtual tokens are no part of any weight")
    for path, layer in adapted.replaced.items():
        own = adapted.model.get_submodule(path)
        if is_quantised(own):
            raise ValueError(f"{path} has no weight that could take up the adapter")
        if isinstance(layer, AdapterLayer):
            for name, weight in layer.merged().items():
                _replace(own, name, weight)
        else:
            _replace_all(own, layer)
    return adapted.model


def _replace_all(own: nn.Module, trained: nn.Module) -> None:
    for name, parameter in trained.named_parameters():
        path, _, attribute = name.rpartition(".")
        _replace(own.get_submodule(path), attribute, parameter)


def _replace(module: nn.Module, name: str, weight: torch.Tensor) -> None:
    """Give a module a weight of its own, in the dtype of the one it had."""
    dtype = getattr(module, name).dtype
    rounded = weight.detach().to(dtype, copy=True).contiguous()
    setattr(module, name, nn.Parameter(rounded, requires_grad=False))
