"""(IA)³: trained vectors that scale keys, values and inner activations of feed-forward networks.

In attention, a vector scales the output of a linear layer; in the feed-forward network, the input
of the down projection. Vectors start at 1, so training starts at the base. Parameter names, files
and the matching of layer names are PEFT's; the tests compare with it.

Source: Liu et al. 2022, https://arxiv.org/abs/2205.05638.
"""

# I inputs, O outputs; `…` any leading sizes

from dataclasses import dataclass

import peft
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapters.adapted import AdaptedModel
from core.adapters.delta import AdapterLayer, Delta
from core.adapters.linear_layers import LinearLayer, as_stored, frozen_matrix
from core.adapters.modules_to_save import (
    classifier_head,
    is_inside,
    trainable_copies,
    weights_by_name,
)
from core.adapters.targets import (
    linear_layer,
    linear_paths,
    peft_task,
    target_names,
    targeted_paths,
)
from core.catalog.families import family_of
from core.errors import InvalidRequest
from core.spec.strategy import Ia3Spec


class Ia3Linear(AdapterLayer):
    """`base_layer` (frozen) with a trained vector on its output or its input.

    The vector is fp32, or fp64 if the base is; products with it are computed in its dtype.
    """

    base_layer: LinearLayer

    def __init__(self, base_layer: LinearLayer, *, scales_input: bool) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.scales_input = scales_input
        self._frozen = frozen_matrix(base_layer, prepack=False)
        outputs, inputs = self._frozen.shape
        weight = base_layer.weight
        dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
        self.ia3_l = nn.Parameter(
            torch.ones(
                (1, inputs) if scales_input else (outputs, 1),
                device=weight.device,
                dtype=torch.promote_types(dtype, torch.float32),
            )
        )

    @property
    def weight(self) -> Tensor:
        """The weight of the base; T5 reads its dtype."""
        return self.base_layer.weight

    def forward(self, x: Tensor) -> Tensor:
        vector = self.ia3_l.flatten()
        if self.scales_input:
            y: Tensor = self.base_layer(_scaled(x, vector))
            return y
        return _scaled(self.base_layer(x), vector)

    def delta(self, dtype: torch.dtype) -> Delta:
        vector = self.ia3_l.detach().flatten().clone()
        return ScaledInput(vector, self.base_layer) if self.scales_input else ScaledOutput(vector)

    def merged(self) -> dict[str, Tensor]:
        # a column scales the rows of W, a row its columns
        weight_OI = self._frozen.dense(self.ia3_l.dtype) * self.ia3_l
        merged = {"weight": as_stored(self.base_layer, weight_OI)}
        if not self.scales_input and self.base_layer.bias is not None:
            merged["bias"] = self.base_layer.bias * self.ia3_l.flatten()
        return merged


@dataclass(frozen=True)
class ScaledOutput:
    """l ∘ y."""

    vector_O: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return y.mul_(self.vector_O)


@dataclass(frozen=True)
class ScaledInput:
    """W (l ∘ x) + b, by a separate product: the shared product was computed from x."""

    vector_I: Tensor
    base: nn.Module

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        scaled: Tensor = self.base(_scaled(x, self.vector_I))
        return scaled


def _scaled(h: Tensor, vector: Tensor) -> Tensor:
    """Return l ∘ h, (…, features), rounded once to the dtype of h."""
    return (h * vector).to(h.dtype)


def attach_ia3(model: PreTrainedModel, spec: Ia3Spec) -> AdaptedModel:
    """Replace every targeted layer by an `Ia3Linear`.

    Besides these, only `modules_to_save` and the head of a classifier are trained. Raises
    InvalidRequest if the spec does not fit the model, which is then unchanged.
    """
    names, feed_forward = _names(model, spec)
    copied = tuple(dict.fromkeys((*classifier_head(model), *spec.modules_to_save)))
    targeted = targeted_paths(linear_paths(model), names)
    layers = {p: linear_layer(model, p) for p in targeted if not is_inside(p, copied)}
    if not layers:
        raise InvalidRequest(
            "No layer is left to scale: modules_to_save contains all target_modules.",
            param="strategy.target_modules",
        )
    copies = trainable_copies(model, copied)
    model.requires_grad_(False)
    adapters = {
        # like PEFT, match the end of the path even inside a part of it
        path: Ia3Linear(layer, scales_input=path.endswith(feed_forward))
        for path, layer in layers.items()
    }
    trainable = {f"base_model.model.{path}.ia3_l": each.ia3_l for path, each in adapters.items()}
    config = peft.IA3Config(
        task_type=peft_task(model),
        target_modules=list(names),
        feedforward_modules=list(feed_forward),
        modules_to_save=list(copied) or None,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
    )
    adapted = AdaptedModel(
        model, trainable | weights_by_name(copies), config, {**adapters, **copies}
    )
    adapted.install()
    return adapted


def _names(model: PreTrainedModel, spec: Ia3Spec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of all layers to scale, and of those that are scaled at their input."""
    if spec.target_modules:
        return target_names(model, spec.target_modules), spec.feedforward_modules
    layers = family_of(model.config.model_type).layers
    return tuple(dict.fromkeys((*layers.key, *layers.value, *layers.down))), layers.down
