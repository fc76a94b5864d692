"""The bodies of the mask routes."""

from typing import Literal

from pydantic import BaseModel

from core.records.tables import Job, JobMask, Task
from core.spec.mask import MaskResult, MaskRow


class MaskError(BaseModel):
    code: str
    message: str
    param: str | None


class MaskObject(BaseModel):
    """The first rows of a training file as tokens, with a flag for the trained ones."""

    id: str
    object: Literal["fine_tuning.mask"] = "fine_tuning.mask"
    created_at: int
    status: Literal["queued", "succeeded", "failed"]
    training_file: str
    rows: list[MaskRow]
    error: MaskError | None


def audit_object(audit: Task) -> MaskObject:
    """Return the object of a mask without a job."""
    found = None if audit.result is None else MaskResult.model_validate(audit.result)
    return MaskObject(
        id=audit.id,
        created_at=int(audit.created_at),
        status=_status(audit),
        training_file=audit.subject,
        rows=[] if found is None else list(found.rows),
        error=None if audit.error is None else MaskError.model_validate(audit.error),
    )


def job_mask_object(job: Job, mask: JobMask) -> MaskObject:
    """Return the object of a job's mask."""
    return MaskObject(
        id=job.id,
        created_at=int(mask.created_at),
        status="succeeded",
        training_file=job.training_file,
        rows=[MaskRow.model_validate(row) for row in mask.rows],
        error=None,
    )


def _status(audit: Task) -> Literal["queued", "succeeded", "failed"]:
    if audit.finished_at is None:
        return "queued"
    return "succeeded" if audit.error is None else "failed"
