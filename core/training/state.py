"""The mutable state of a run."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.adapters.adapted import AdaptedModel
from core.artifacts.metrics import StepMetrics
from core.spec.held_out import Figures
from core.spec.parity import ParityReference
from core.training.optimizer import TrainingOptimizer
from core.training.row_losses import RowLossTable


@dataclass(frozen=True)
class Baseline:
    """The held-out figures of the model with which the run began, or why there are none."""

    loss: float | None = None
    accuracy: float | None = None
    missing: str | None = None

    @property
    def figures(self) -> Figures | None:
        if self.loss is None or self.accuracy is None:
            return None
        return Figures(loss=self.loss, accuracy=self.accuracy)


@dataclass
class RunState:
    """The trained weights, the optimizer's state and the progress.

    `step` is the number of completed optimizer steps; `checkpointed_step` is the last step whose
    evaluation and checkpoint are complete too.
    """

    adapted: AdaptedModel
    optimizer: TrainingOptimizer
    budget_tokens: int
    """Of a micro-batch; smaller than requested after running out of memory."""
    row_losses: RowLossTable
    best_file: Path
    """The weights of the step with the best held-out loss."""
    step: int = 0
    checkpointed_step: int = 0
    trained_tokens: int = 0
    overflows: int = 0
    """Consecutive skipped updates, in fp16."""
    curve: list[StepMetrics] = field(default_factory=list)
    """One entry per completed step."""
    baseline: Baseline | None = None
    """None until it is measured."""
    last_reference: ParityReference | None = None
    """Of the checkpoint after the last step, if this attempt created it."""

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the trained weights on the CPU, each in its own dtype."""
        return {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in self.adapted.trainable.items()
        }

    def set_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.adapted.trainable.items():
                parameter.copy_(weights[name])

    def keep_as_best(self) -> None:
        partial = self.best_file.with_name(self.best_file.name + ".partial")
        save_file(self.weights(), partial)
        partial.replace(self.best_file)

    def restore_best(self) -> None:
        self.set_weights(load_file(self.best_file))
