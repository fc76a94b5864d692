"""What one training run does: all that the training child is told."""

from typing import Any, Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.objective import ObjectiveSpec, SupervisedSpec, Task
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import EvaluationSpec, TrainingSpec


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
