"""One training run, complete: what the training child is given and nothing else."""

from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field

from core.spec.base import Spec
from core.spec.names import Aliased
from core.spec.objective import ObjectiveSpec, SupervisedSpec, Task
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import EvaluationSpec, TrainingSpec

DatasetFormat = Literal[
    "chat", "prompt-completion", "instruction", "preference", "text", "classification"
]

KEPT_CHECKPOINTS = 3
"""The newest checkpoints of a job; older ones are dropped when a new one arrives."""


Quantization = Literal["nf4", "int8"]
"""How bitsandbytes keeps linear layers: NF4 with its scales quantised too, or int8 by row."""


class BaseModelSpec(Aliased, Spec):
    """A base model of the catalog, resolved."""

    id: str
    source: str = Field(description="absolute folder, or a Hugging Face id")
    revision: str | None = None
    quantization: Quantization | None = Field(
        None,
        description="of its linear layers, done while it is loaded; None: as it is stored",
        validation_alias=AliasChoices("quantization", "quantisation"),
    )


class BundleRef(Spec):
    """A bundle archive in storage, with the hash that it must have."""

    key: str
    sha256: str


class JobSpec(Spec):
    """What the user asked for, resolved and complete; stored with the job.

    It changes once at most: a learning rate of `"auto"` becomes a number when its run begins.
    """

    base: BaseModelSpec
    task: Task = "generation"
    objective: ObjectiveSpec = SupervisedSpec()
    strategy: StrategySpec = LoraSpec()
    training: TrainingSpec = TrainingSpec()
    learning_rate_multiplier: float | Literal["auto"] | None = Field(
        None,
        description="how many times the base's own rate training.learning_rate is; auto: not "
        "known before a worker has seen the base; None: stored before bases had rates",
    )
    evaluation: EvaluationSpec = EvaluationSpec()
    parent: BundleRef | None = Field(
        None, description="the tuned model that this job trains further"
    )
    seed: int = Field(ge=0, le=2**31 - 1)
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="variables of the chat template, such as enable_thinking"
    )
    template_time: float | None = Field(
        None, description="unix seconds; the time that a chat template with a clock reads"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="names of columns of the files, by the key they stand for"
    )


class Workspace(Spec):
    """The folder of one attempt at a job; nobody else writes there.

    The worker puts `train.jsonl` (and `validation.jsonl`) in before the run. The run
    creates `checkpoints/step-<n>/` and `bundle/`, each one complete bundle, and
    `resume/step-<n>/`, from which another attempt goes on. When the worker finds such a state
    in storage it puts it there before the run; it puts the bundle of the job's parent, if the job
    trains a tuned model further, into `parent/`.
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

    @property
    def parent_folder(self) -> Path:
        return self.folder / "parent"

    def resume_folder(self, step: int) -> Path:
        return self.folder / "resume" / f"step-{step}"

    def checkpoint_folder(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"step-{step}"
