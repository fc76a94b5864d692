"""Merges an adapter into the weights of its base, so that no extra layers run.

W becomes W + scale · B A in fp32, with DoRA also scaled to the trained row norms, and is rounded
once to the dtype of the base; (IA)³ scales the rows or columns of W. Modules from `modules_to_save`
replace those of the base.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.delta import AdapterLayer
from core.adapters.targets import is_quantized


@torch.no_grad()
def merge(adapted: AdaptedModel) -> PreTrainedModel:
    """Merge an adapter that is not installed into its model, layer by layer, and return the model.

    A weight tied to a merged one is untied and unchanged. ValueError for what
    `core.catalog.combinations.require_mergeable` rejects.
    """
    if adapted.virtual is not None:
        raise ValueError("virtual tokens cannot be merged into weights")
    for path, layer in adapted.replaced.items():
        own = adapted.model.get_submodule(path)
        if is_quantized(own):
            raise ValueError(f"{path} has no dense weight to merge the adapter into")
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
    """Replace a weight of a module by a copy of `weight` in the same dtype."""
    own = getattr(module, name)
    if own is None:
        raise ValueError(f"a {type(module).__name__} of the base has no {name} to merge into")
    rounded = weight.detach().to(own.dtype, copy=True).contiguous()
    setattr(module, name, nn.Parameter(rounded, requires_grad=False))
