"""Masks: what a job trains on, and the same asked for before there is a job, which is a task."""

from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records.files import get_file
from core.records.tables import Job, JobMask, Task
from core.records.tasks import create_task, find_task
from core.spec.mask import MaskRequest, MaskRow
from core.spec.run import JobSpec

MASK_AUDIT = "mask_audit"
"""The kind of task."""


def request_audit(session: Session, project_id: str, training_file: str, spec: JobSpec) -> Task:
    """Write an audit that waits for a worker. NotFound without such a file."""
    file = get_file(session, project_id, training_file, param="training_file")
    payload = MaskRequest(spec=spec, blob_key=file.blob_key)
    return create_task(session, project_id, MASK_AUDIT, subject=training_file, payload=payload)


def require_audit(session: Session, project_id: str, audit_id: str) -> Task:
    """Return the audit; NotFound when this project has no such one."""
    audit = find_task(session, project_id, MASK_AUDIT, audit_id)
    if audit is None:
        raise NotFound(f"No mask audit with id {audit_id!r}.", param="mask_id")
    return audit


def record_job_mask(session: Session, job: Job, rows: Sequence[MaskRow]) -> None:
    """Keep what a job trains on, in place of what an earlier attempt said."""
    session.execute(delete(JobMask).where(JobMask.job_id == job.id))
    session.add(
        JobMask(
            job_id=job.id,
            project_id=job.project_id,
            rows=[row.model_dump(mode="json") for row in rows],
        )
    )


def find_job_mask(session: Session, project_id: str, job_id: str) -> JobMask | None:
    """Return the mask of a job, or None when a worker has not read its files."""
    mask = session.get(JobMask, job_id)
    return mask if mask is not None and mask.project_id == project_id else None
