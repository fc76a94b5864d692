"""Bottleneck adapters: their positions in the blocks, and their configuration file."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import peft
import torch
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.bottleneck import Bottleneck
from core.adapters.modules_to_save import classifier_head, trainable_copies, weights_by_name
from core.adapters.targets import peft_task
from core.catalog.families import family_of
from core.errors import InvalidRequest
from core.spec.strategy import BottleneckSpec

PEFT_TYPE = "TUNESMITH_BOTTLENECK"
"""Not a type of PEFT, which has no such adapters: it rejects the bundle with this name."""


@dataclass
class BottleneckConfig(peft.PeftConfig):
    """`adapter_config.json` of a bottleneck adapter; the fields of `BottleneckSpec`."""

    placement: str = "pfeiffer"
    reduction_factor: int = 16
    activation: str = "relu"
    modules_to_save: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE


def attach_bottleneck(model: PreTrainedModel, spec: BottleneckSpec) -> AdaptedModel:
    """Add a `Bottleneck` after the selected modules of every block; they and a head are trained.

    They transform the output of a module before it is added to the residual stream; in Gemma, a
    norm comes in between.
    """
    model.requires_grad_(False)
    size = model.config.hidden_size
    width = size // spec.reduction_factor
    if width == 0:
        raise InvalidRequest(
            f"reduction_factor is {spec.reduction_factor}, but the base model has only {size} "
            "features. Use a smaller factor.",
            param="strategy.reduction_factor",
        )
    dtype = torch.promote_types(model.dtype, torch.float32)
    adapters: dict[str, Bottleneck] = {}
    for path in _adapted_paths(model, spec):
        base_layer = model.get_submodule(path)
        adapters[path] = Bottleneck(base_layer, size, width, spec.activation, model.device, dtype)
    head = classifier_head(model)
    copies = trainable_copies(model, head)
    config = BottleneckConfig(
        task_type=peft_task(model),
        placement=spec.placement,
        reduction_factor=spec.reduction_factor,
        activation=spec.activation,
        modules_to_save=list(head),
    )
    trainable = {
        f"base_model.model.{path}.{name}": parameter
        for path, adapter in adapters.items()
        for name, parameter in adapter.named_parameters()
        if name.startswith("adapter_")
    }
    trainable |= weights_by_name(copies)
    adapted = AdaptedModel(model, trainable, config, {**adapters, **copies})
    adapted.install()
    return adapted


def _adapted_paths(model: PreTrainedModel, spec: BottleneckSpec) -> Iterator[str]:
    """Yield the paths in execution order."""
    for blocks in family_of(model.config.model_type).blocks:
        for index in range(len(model.get_submodule(blocks.stack))):
            if spec.placement == "houlsby":
                yield f"{blocks.stack}.{index}.{blocks.attention}"
            yield f"{blocks.stack}.{index}.{blocks.feed_forward}"
