"""What the mask routes do."""

from functools import partial

from sqlalchemy.orm import Session

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.jobs.creation import new_job
from api.jobs.datasets import Rechecked
from api.jobs.schemas import CreateJob
from api.masks.schemas import MaskObject, mask_object
from core.errors import Conflict, NotFound
from core.jobs.state import FINAL
from core.records import masks
from core.records.owned import find_owned, get_owned
from core.records.tables import Job, MaskAudit
from core.spec.ids import JobId, MaskId


def request(
    transaction: Transaction, state: AppState, caller: Caller, body: CreateJob, rechecked: Rechecked
) -> MaskObject:
    """Refuse what a job would be refused for, write the audit and wake a worker."""
    session = transaction.session
    job = new_job(session, state.catalog, caller, body, rechecked)
    audit_id = masks.request_audit(session, caller.project, job.training_file, job.spec)
    transaction.after_commit(partial(state.broker.wake, audit_id))
    return mask_object(get_owned(session, MaskAudit, caller.project, audit_id))


def get(session: Session, caller: Caller, audit_id: MaskId) -> MaskObject:
    return mask_object(get_owned(session, MaskAudit, caller.project, audit_id))


def of_job(session: Session, caller: Caller, job_id: JobId) -> MaskObject:
    """Return what the job trains on; Conflict until a worker has read its files."""
    job = get_owned(session, Job, caller.project, job_id)
    audit = find_owned(session, MaskAudit, caller.project, masks.mask_id_of(job.id))
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
