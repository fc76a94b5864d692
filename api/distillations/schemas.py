"""The bodies of distillations."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from api.evals.data_sources import (
    ChatSampling,
    FileContent,
    FileReference,
    ModelName,
    StoredCompletions,
)
from api.evals.schemas import UsageObject
from api.jobs.schemas import JobError
from api.metadata import NO_NUL, Metadata
from api.pagination import ListItem
from core.jobs.state import JobStatus
from core.records.distillations import job_of_distillation
from core.records.tables import Distillation, Job
from core.records.verdicts import find_verdict
from core.spec.distillation import MOST_SAMPLES, DistillationStatus, FilterSpec
from core.spec.evals import InputMessages
from core.spec.ids import FileId, ModelId
from core.spec.numbers import Integer, Number

MOST_NAMES = 16

FileName = Annotated[FileId, StringConstraints(min_length=1, max_length=255, pattern=NO_NUL)]
PromptSource = Annotated[
    FileContent | FileReference | StoredCompletions, Field(discriminator="type")
]
ShownStatus = Literal[
    "queued", "asking", "filtering", "training", "succeeded", "failed", "cancelled"
]

_OF_JOBS: dict[str, ShownStatus] = {
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}


class TeacherSampling(ChatSampling):
    """How the teacher answers: `n` answers to each prompt."""

    n: Annotated[Integer, Field(ge=1, le=MOST_SAMPLES)] = 1


class CreateDistillation(BaseModel):
    """`job` is the body of a job without its training file, which the distillation writes."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompts: PromptSource
    input_messages: InputMessages | None = None
    """Of the items; by default their `messages`, and of stored completions their `input`."""
    teacher: ModelName | None = None
    """None: the prompts have answers, which are taken for those of the teacher."""
    teacher_names: Annotated[list[ModelName], Field(max_length=MOST_NAMES)] = []
    """Other names that an external teacher has in its answers."""
    sampling: TeacherSampling = TeacherSampling()
    filter: FilterSpec = FilterSpec()
    labelled_file: FileName | None = None
    max_failed_share: Annotated[Number, Field(ge=0, le=1)] = 0.1
    """Of prompts on which the teacher fails; with more, the distillation fails."""
    job: dict[str, Any]
    metadata: Metadata | None = None


class Asking(BaseModel):
    """Prompts, by what the teacher has given for them."""

    total: int
    asked: int
    answered: int
    failed: int


class Filtering(BaseModel):
    """Answered prompts, by what the filter has decided."""

    kept: int
    dropped: int
    rows: int
    """Answers that are kept; a prompt may have several."""


class VerdictSummary(BaseModel):
    """Of the job's model; the route `evaluation` of the job has the whole verdict."""

    status: str
    sentence: str


class DistillationObject(ListItem):
    object: Literal["fine_tuning.distillation"] = "fine_tuning.distillation"
    created_at: int
    finished_at: int | None
    status: ShownStatus
    teacher: str | None
    prompts: dict[str, Any]
    input_messages: dict[str, Any] | None
    teacher_names: list[str]
    sampling: dict[str, Any]
    filter: dict[str, Any]
    max_failed_share: float
    labelled_file: str | None
    job: dict[str, Any]
    metadata: dict[str, str] | None
    asking: Asking
    filtering: Filtering
    reasons: dict[str, int]
    """How many prompts are failed or dropped, by the code of the reason."""
    usage: list[UsageObject]
    training_file: str | None
    """Null until it is written."""
    labelled_rows: int | None
    job_id: str | None
    fine_tuned_model: str | None
    verdict: VerdictSummary | None
    error: JobError | None


class DeletedDistillation(BaseModel):
    id: str
    object: Literal["fine_tuning.distillation"] = "fine_tuning.distillation"
    deleted: Literal[True] = True


def distillation_object(session: Session, row: Distillation) -> DistillationObject:
    """Return the object; once the job exists, its status and error are those of the job."""
    job = job_of_distillation(session, row)
    error = row.error if job is None else job.error
    finished_at = row.finished_at if job is None else job.finished_at
    return DistillationObject(
        id=row.id,
        created_at=int(row.created_at),
        finished_at=None if finished_at is None else int(finished_at),
        status=_status(row, job),
        **row.request,
        teacher=row.teacher,
        metadata=row.user_metadata,
        asking=Asking(
            total=row.total,
            asked=row.answered + row.failed,
            answered=row.answered,
            failed=row.failed,
        ),
        filtering=Filtering(kept=row.kept, dropped=row.dropped, rows=row.rows),
        reasons=row.reasons,
        usage=[UsageObject.model_validate(each) for each in row.usage],
        training_file=row.training_file if row.is_written else None,
        labelled_rows=row.labelled_rows,
        job_id=row.job_id,
        fine_tuned_model=None if job is None else job.fine_tuned_model,
        verdict=None if job is None else _verdict(session, job),
        error=None if error is None else JobError.model_validate(error),
    )


def _status(row: Distillation, job: Job | None) -> ShownStatus:
    if job is not None:
        return _OF_JOBS.get(job.status, "training")
    status: ShownStatus = DistillationStatus(row.status).value
    return status


def _verdict(session: Session, job: Job) -> VerdictSummary | None:
    if job.fine_tuned_model is None:
        return None
    stored = find_verdict(session, job.project_id, ModelId(job.fine_tuned_model))
    return None if stored is None else VerdictSummary.model_validate(stored.verdict)
