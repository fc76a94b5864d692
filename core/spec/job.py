"""The specification of a training run, passed to the training child."""

from typing import Any, Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel
from core.spec.bundle import BundleRef
from core.spec.objective import ObjectiveSpec, SupervisedSpec, Task
from core.spec.strategy import LoraSpec, StrategySpec
from core.spec.training import EvaluationSpec, TrainingSpec


class JobSpec(Spec):
    """The resolved and complete request of the user; stored with the job.

    It changes at most once: a learning rate of `"auto"` becomes a number when the run begins.
    """

    base: BaseModelSpec
    task: Task = "generation"
    objective: ObjectiveSpec = SupervisedSpec()
    strategy: StrategySpec = LoraSpec()
    strategy_reason: str | None = Field(
        None, description="why the planner chose it; None: the request named it"
    )
    training: TrainingSpec = TrainingSpec()
    learning_rate_multiplier: float | Literal["auto"] | None = Field(
        None,
        description="training.learning_rate as a multiple of the base's default; auto: unknown "
        "until a worker has read the base; None: stored by a version without default rates",
    )
    evaluation: EvaluationSpec = EvaluationSpec()
    grader_models: dict[str, BatchModel] = Field(
        default_factory=dict, description="of the models that graders name, when the job was made"
    )
    parent: BundleRef | None = Field(None, description="the tuned model that this job continues")
    seed: int = Field(ge=0, le=2**31 - 1)
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="variables of the chat template, such as enable_thinking"
    )
    template_time: float | None = Field(
        None, description="unix seconds; the current time for chat templates that use it"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="names of the files' columns, by key"
    )
