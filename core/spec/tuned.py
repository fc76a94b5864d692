"""What a tuned model is: how its weights are loaded, run and trained further."""

from typing import Any

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.objective import ObjectiveSpec, Task
from core.spec.strategy import StrategySpec


class TunedSpec(Spec):
    """The facts of a tuned model, whatever made it: a job, an import or a soup."""

    base: BaseModelSpec
    task: Task
    objective: ObjectiveSpec
    strategy: StrategySpec
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    template_time: float | None = None

    @classmethod
    def of(cls, job: JobSpec) -> "TunedSpec":
        """Return the facts of a job's model."""
        return cls(
            base=job.base,
            task=job.task,
            objective=job.objective,
            strategy=job.strategy,
            chat_template_kwargs=job.chat_template_kwargs,
            template_time=job.template_time,
        )
