"""A base model with the trained part of a strategy on it: what training and engine run."""

# T tokens of a packed batch, E hidden size

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import peft
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.batching.packing import PackedBatch


@dataclass
class AdaptedModel:
    """A model and the layers that a strategy has put into it.

    The layers can be taken out and put back in, so that one base carries many adapters in turn;
    it is the caller who sees to it that two of them are never in at once.
    """

    model: PreTrainedModel
    trainable: dict[str, nn.Parameter]
    """By their names in the bundle's file of weights, which are PEFT's."""
    config: peft.PeftConfig | None
    """What `adapter_config.json` says; None when the whole model is trained."""
    replaced: dict[str, nn.Module] = field(default_factory=dict)
    """By path: the modules that stand in the place of the base's own."""
    _originals: dict[str, nn.Module] = field(default_factory=dict)

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

    def install(self) -> None:
        """Put the layers of this strategy into the model."""
        for path, module in self.replaced.items():
            self._originals[path] = self.model.get_submodule(path)
            self.model.set_submodule(path, module)

    def remove(self) -> None:
        """Give the model back as it was."""
        for path, module in self._originals.items():
            self.model.set_submodule(path, module)
        self._originals.clear()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the base itself inside the block. Meaningless when the whole model is trained."""
        self.remove()
        try:
            yield
        finally:
            self.install()

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """Return the states (T, E) after the last layer; the model must use packed attention."""
        output = self.model.base_model(
            input_ids=batch.tokens_1T,
            position_ids=batch.positions_1T,
            segment_lengths=batch.segment_lengths,
            use_cache=False,
        )
        states_TE: Tensor = output.last_hidden_state[0]
        return states_TE
