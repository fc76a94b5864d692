"""What the mask routes do."""

from functools import partial

from sqlalchemy.orm import Session

from api.jobs.creation import new_job
from api.jobs.datasets import Rechecked
from api.jobs.schemas import CreateJob
from api.masks.schemas import MaskObject, mask_object
from api.parts import Parts, Transaction
from core.errors import Conflict, NotFound
from core.jobs.state import FINAL
from core.records import masks
from core.records.jobs import get_job


def request(
    transaction: Transaction, parts: Parts, project: str, body: CreateJob, rechecked: Rechecked
) -> MaskObject:
    """Refuse what a job would be refused for, write the audit and wake a worker."""
    session = transaction.session
    job = new_job(session, parts.catalog, project, body, rechecked)
    audit_id = masks.request_audit(session, project, job.training_file, job.spec)
    transaction.after_commit(partial(parts.broker.wake, audit_id))
    return mask_object(masks.require_audit(session, project, audit_id))


def get(session: Session, project: str, audit_id: str) -> MaskObject:
    return mask_object(masks.require_audit(session, project, audit_id))


def of_job(session: Session, project: str, job_id: str) -> MaskObject:
    """Return what the job trains on; Conflict until a worker has read its files."""
    job = get_job(session, project, job_id)
    audit = masks.get_audit(session, project, job.id)
    if audit is not None:
        return mask_object(audit)
    if job.status in FINAL:
        raise NotFound(
            f"Job {job.id} ended as {job.status} before its files had been read.",
            param="fine_tuning_job_id",
            code="mask_not_found",
        )
    raise Conflict(
        f"No worker has read the files of job {job.id} yet; ask again in a moment.",
        param="fine_tuning_job_id",
        code="mask_not_ready",
    )
