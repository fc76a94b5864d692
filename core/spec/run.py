"""One training run, complete: what the training child is given and nothing else."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.strategy import StrategySpec
from core.spec.training import TrainingSpec

DatasetFormat = Literal["chat", "prompt-completion", "instruction"]
Objective = Literal["supervised"]

KEPT_CHECKPOINTS = 3
"""The newest checkpoints of a job; older ones are dropped when a new one arrives."""


class BaseModelSpec(Spec):
    """A base model of the catalog, resolved."""

    id: str
    source: str = Field(description="absolute folder, or a Hugging Face id")
    revision: str | None = None


class JobSpec(Spec):
    """What the user asked for, resolved and complete; stored with the job and never changed."""

    base: BaseModelSpec
    objective: Objective = "supervised"
    strategy: StrategySpec = StrategySpec()
    training: TrainingSpec = TrainingSpec()
    seed: int = Field(ge=0, le=2**31 - 1)


class Workspace(Spec):
    """The folder of one attempt at a job; nobody else writes there.

    The worker puts `train.jsonl` (and `validation.jsonl`) in before the run. The run
    creates `checkpoints/step-<n>/` and `bundle/`, each one complete bundle.
    """

    folder: Path

    @property
    def train_file(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def validation_file(self) -> Path:
        return self.folder / "validation.jsonl"

    @property
    def bundle_folder(self) -> Path:
        return self.folder / "bundle"

    def checkpoint_folder(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step}"
