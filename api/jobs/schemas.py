"""OpenAI's fine-tuning objects, with our additional fields."""

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.jobs.method import Method, ResolvedMethod, resolved_method
from api.metadata import NO_NUL, Metadata
from api.pagination import ListItem
from core.catalog.hyperparameters import (
    Hyperparameters,
    ResolvedHyperparameters,
    resolved_hyperparameters,
)
from core.jobs.state import JobStatus
from core.records.tables import Checkpoint, Job, JobEvent, StoredVerdict
from core.spec.ids import FileId
from core.spec.job import JobSpec
from core.spec.numbers import Integer
from core.spec.objective import ObjectiveSpec, Task
from core.spec.strategy import AskedStrategySpec, LoraSpec, StrategySpec
from core.spec.template import TemplateVariables
from core.spec.training import EvaluationSpec, TrainingSpec
from core.spec.verdict import Verdict

_ID = StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)


def _part_of_a_name(suffix: str) -> str | None:
    """Return free text as a part of a model's name: `my model!` as `my-model`; None for none."""
    letters = unicodedata.normalize("NFKD", suffix)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")[:MAX_SUFFIX_LENGTH].rstrip("-._")
    if suffix.strip() and not name:
        raise ValueError(
            "a model's name has only letters from A to Z, digits, '.', '_' and '-', and this has "
            "none of the letters and digits"
        )
    return name or None


MAX_SUFFIX_LENGTH = 64
Suffix = Annotated[
    str, StringConstraints(max_length=MAX_SUFFIX_LENGTH), AfterValidator(_part_of_a_name)
]


Columns = Annotated[dict[str, str], Field(max_length=16)]
"""The column for each key of a layout; None: the mapping of the training file's upload."""


class CreateJob(BaseModel):
    """The body of a job's creation. Beginning with `strategy`, the fields are Tunesmith's."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, _ID]
    training_file: Annotated[FileId, _ID]
    validation_file: Annotated[FileId, _ID] | None = None
    suffix: Suffix | None = None
    seed: Annotated[Integer, Field(ge=0, le=2**31 - 1)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(None, json_schema_extra={"deprecated": True})
    metadata: Metadata | None = None
    integrations: list[object] | None = None
    strategy: AskedStrategySpec = LoraSpec()
    task: Task | None = None
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    chat_template_kwargs: TemplateVariables = Field(default_factory=dict)
    columns: Columns | None = None


class JobError(BaseModel):
    code: str
    message: str
    param: str | None


class Progress(BaseModel):
    """Optimizer steps; `total_steps` is null until the dataset has been tokenized."""

    step: int
    total_steps: int | None


class JobObject(ListItem):
    """A job. Beginning with `requested_model`, the fields are Tunesmith's."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    error: JobError | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: ResolvedHyperparameters
    model: str
    organization_id: str
    result_files: list[str]
    status: Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    integrations: list[Any]
    seed: int
    estimated_finish: int | None
    method: ResolvedMethod
    metadata: dict[str, str] | None
    requested_model: str
    task: Task
    objective: ObjectiveSpec
    strategy: StrategySpec
    strategy_reason: str | None
    training: TrainingSpec
    evaluation: EvaluationSpec
    chat_template_kwargs: dict[str, Any]
    columns: dict[str, str]
    progress: Progress
    pause_requested_at: int | None
    paused_at: int | None
    sweep_id: str | None
    """The sweep of which the job is a trial."""


class EventObject(ListItem):
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None


class CheckpointObject(ListItem):
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int


class EvaluationObject(Verdict):
    """The verdict on the final model of a job."""

    object: Literal["fine_tuning.job.evaluation"] = "fine_tuning.job.evaluation"
    created_at: int
    fine_tuning_job_id: str
    model: str


def job_object(job: Job) -> JobObject:
    spec = JobSpec.model_validate(job.spec)
    # The clients' type has no paused status, so the job is shown as queued.
    status = JobStatus.QUEUED if job.status == JobStatus.PAUSED else job.status
    return JobObject(
        id=job.id,
        created_at=int(job.created_at),
        error=None if job.error is None else JobError.model_validate(job.error),
        fine_tuned_model=job.fine_tuned_model,
        finished_at=_seconds(job.finished_at),
        hyperparameters=resolved_hyperparameters(spec),
        model=spec.base.id,
        organization_id=job.project_id,
        result_files=[job.result_file] if job.result_file else [],
        status=status,
        trained_tokens=job.trained_tokens,
        training_file=job.training_file,
        validation_file=job.validation_file,
        integrations=[],
        seed=spec.seed,
        estimated_finish=_seconds(job.estimated_finish),
        method=resolved_method(spec),
        metadata=job.user_metadata,
        requested_model=job.requested_model,
        task=spec.task,
        objective=spec.objective,
        strategy=spec.strategy,
        strategy_reason=spec.strategy_reason,
        training=spec.training,
        evaluation=spec.evaluation,
        chat_template_kwargs=spec.chat_template_kwargs,
        columns=spec.columns,
        progress=Progress(step=job.step, total_steps=job.total_steps),
        pause_requested_at=_seconds(job.pause_requested_at),
        paused_at=_seconds(job.paused_at),
        sweep_id=job.sweep_id,
    )


def event_object(event: JobEvent) -> EventObject:
    return EventObject(
        id=event.id,
        created_at=int(event.created_at),
        level=event.level,
        message=event.message,
        type=event.type,
        data=event.data,
    )


def checkpoint_object(checkpoint: Checkpoint) -> CheckpointObject:
    metrics = {name: value for name, value in checkpoint.metrics.items() if value is not None}
    return CheckpointObject(
        id=checkpoint.id,
        created_at=int(checkpoint.created_at),
        fine_tuned_model_checkpoint=checkpoint.model_id,
        fine_tuning_job_id=checkpoint.job_id,
        metrics=metrics,
        step_number=checkpoint.step,
    )


def evaluation_object(stored: StoredVerdict) -> EvaluationObject:
    own = {
        "created_at": int(stored.created_at),
        "fine_tuning_job_id": stored.job_id,
        "model": stored.id,
    }
    return EvaluationObject.model_validate(stored.verdict | own)


def _seconds(time: float | None) -> int | None:
    return None if time is None else int(time)
