"""What every strategy hands to the recipe."""

from dataclasses import dataclass

import peft
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Attached:
    """A model ready for training; `trainable` is keyed by the names of PEFT's adapter file."""

    model: PreTrainedModel
    trainable: dict[str, nn.Parameter]
    peft_config: peft.PeftConfig

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.trainable.values())

    @property
    def trainable_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.trainable.values())

    @property
    def total_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def state(self) -> dict[str, Tensor]:
        """Return the trained weights of this moment, copied to the CPU."""
        return {
            name: parameter.detach().cpu().clone() for name, parameter in self.trainable.items()
        }
