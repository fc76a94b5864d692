"""The job of a distillation, once its training file is written."""

from core.catalog.hyperparameters import HYPERPARAMETERS, resolve
from core.catalog.objectives import rows_of
from core.records.jobs import NewJob
from core.records.tables import File
from core.spec.dataset import DatasetReport
from core.spec.distillation import StudentPlan
from core.spec.template import template_time
from core.spec.training import TrainingSpec


def job_of(plan: StudentPlan, file: File) -> NewJob:
    """Return the job that the plan gives for a training file.

    It equals the job that a request with this file would create now. Raises InvalidRequest if the
    hyperparameters contradict each other for this number of rows.
    """
    spec, report = plan.spec, DatasetReport.model_validate(file.report)
    resolved = resolve(
        HYPERPARAMETERS[plan.method].model_validate(plan.hyperparameters),
        TrainingSpec.model_validate(plan.training),
        rows=rows_of(spec.objective.type, report.format, report.rows),
        strategy=spec.strategy,
        objective=spec.objective,
        hidden_size=plan.hidden_size,
    )
    numbers = resolved.training.model_dump(include={"epochs", "batch_size", "learning_rate"})
    spec = spec.model_copy(
        update={
            "training": spec.training.model_copy(update=numbers),
            "learning_rate_multiplier": resolved.learning_rate_multiplier,
            "template_time": template_time(file.created_at),
        }
    )
    return NewJob(
        project_id=file.project_id,
        requested_model=plan.requested_model,
        suffix=plan.suffix,
        training_file=file.id,
        validation_file=plan.validation_file,
        spec=spec,
        metadata=plan.metadata,
    )
