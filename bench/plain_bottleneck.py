"""Bottleneck adapter layers in plain PyTorch modules.

No library for them supports this version of transformers, so this is the peer's side.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from core.catalog.families import family_of
from core.spec.strategy import BottleneckSpec


class PlainBottleneck(nn.Module):
    """h + up(activation(down(h))) after a module, fp32 like the adapters of PEFT."""

    def __init__(self, module: nn.Module, hidden_size: int, spec: BottleneckSpec) -> None:
        super().__init__()
        self.module = module
        width = max(1, hidden_size // spec.reduction_factor)
        self.down = nn.Linear(hidden_size, width)
        self.up = nn.Linear(width, hidden_size)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)
        self.activation = ACT2FN[spec.activation]

    def forward(self, *arguments: Any, **named: Any) -> Any:
        output = self.module(*arguments, **named)
        if isinstance(output, tuple):
            return (self._adapted(output[0]), *output[1:])
        return self._adapted(output)

    def _adapted(self, hidden: Tensor) -> Tensor:
        inner = self.activation(self.down(hidden.to(self.down.weight.dtype)))
        return hidden + self.up(inner).to(hidden.dtype)


def add_bottlenecks(model: PreTrainedModel, spec: BottleneckSpec) -> PreTrainedModel:
    """Freeze `model` and add the layers according to the spec's placement."""
    model.requires_grad_(False)
    for blocks in family_of(model.config.model_type).blocks:
        names = [blocks.feed_forward]
        if spec.placement == "houlsby":
            names.append(blocks.attention)
        for block in model.get_submodule(blocks.stack):
            for name in names:
                module = block.get_submodule(name)
                layer = PlainBottleneck(module, model.config.hidden_size, spec)
                block.set_submodule(name, layer)
    return model
