"""The models that a verdict compares: a job's final model, what it began with, its checkpoints."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from core.catalog.objectives import OBJECTIVES
from core.catalog.strategies import STRATEGIES
from core.inference.targets import Target, target_of
from core.records import models
from core.records.models import StoredBundle
from core.records.tables import Job
from core.spec.bundle import BundleRef
from core.spec.held_out import HeldOutFacts
from core.spec.ids import ModelId, ProjectId
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec


@dataclass(frozen=True)
class Subject:
    """What is judged."""

    project: ProjectId
    spec: JobSpec
    facts: HeldOutFacts
    base: Target
    """The base, or the tuned model that the job continued."""
    tuned: Target
    checkpoints: Sequence[tuple[int, Target]]
    """Those that are kept, by step."""

    @property
    def has_new_head(self) -> bool:
        """The head of a classifier is new, so its base cannot answer."""
        return OBJECTIVES[self.spec.objective.type].trains_head and self.spec.parent is None

    @property
    def several_labels(self) -> bool:
        objective = self.spec.objective
        return isinstance(objective, ClassificationSpec) and objective.multi_label

    @property
    def compared_with(self) -> str:
        if self.has_new_head and self.facts.majority is not None:
            return f"always {', '.join(self.facts.majority) or 'no label'}"
        return self.base.id

    @property
    def is_another_base(self) -> bool:
        """The tuned model is no adapter on the base, and an engine may lack the room for both."""
        return STRATEGIES[self.spec.strategy.type].full_model


def subject_of(
    session: Session, job: Job, model_id: ModelId, bundle: StoredBundle, facts: HeldOutFacts
) -> Subject:
    spec = JobSpec.model_validate(job.spec)
    started_with = spec.base.id if spec.parent is None else job.requested_model
    own = BundleRef(key=bundle.key, sha256=bundle.sha256)
    checkpoints = models.checkpoint_models(session, job.id) if spec.evaluation.prompts else ()
    return Subject(
        project=job.project_id,
        spec=spec,
        facts=facts,
        base=Target(ModelId(started_with), spec.base, spec.parent),
        tuned=Target(model_id, spec.base, own),
        checkpoints=[(step, target_of(model)) for step, model in checkpoints],
    )
