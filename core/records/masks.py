"""Masks of jobs, and masks that are requested without a job, which are tasks."""

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records.owned import get_owned, owned_by
from core.records.tables import File, Job, JobMask, Task
from core.records.tasks import create_task, find_task
from core.spec.ids import FileId, JobId, ProjectId, TaskId
from core.spec.job import JobSpec
from core.spec.mask import MaskRequest, MaskRow

MASK_AUDIT = "mask_audit"
"""The kind of task."""


def request_audit(
    session: Session, project_id: ProjectId, training_file: FileId, spec: JobSpec
) -> Task:
    """Create an audit, which waits for a worker. NotFound if the project lacks the file."""
    file = get_owned(session, File, project_id, training_file, param="training_file")
    payload = MaskRequest(spec=spec, blob_key=file.blob_key)
    return create_task(session, project_id, MASK_AUDIT, subject=training_file, payload=payload)


def get_audit(session: Session, project_id: ProjectId, audit_id: TaskId) -> Task:
    """Return the audit; NotFound if this project has none with this id."""
    audit = find_task(session, project_id, MASK_AUDIT, audit_id)
    if audit is None:
        raise NotFound(f"No mask audit with id {audit_id!r}.", param="mask_id")
    return audit


def record_job_mask(session: Session, job: Job, rows: Sequence[MaskRow]) -> None:
    """Store the mask of a job; it replaces that of an earlier attempt."""
    session.execute(delete(JobMask).where(JobMask.job_id == job.id))
    session.add(
        JobMask(
            job_id=job.id,
            project_id=job.project_id,
            rows=[row.model_dump(mode="json") for row in rows],
        )
    )


def find_job_mask(session: Session, project_id: ProjectId, job_id: JobId) -> JobMask | None:
    """Return the mask of a job; None until a worker has read its files."""
    return session.scalars(
        select(JobMask).where(JobMask.job_id == job_id, owned_by(JobMask, project_id))
    ).one_or_none()
