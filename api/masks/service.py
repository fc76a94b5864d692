"""The operations of the mask routes."""

from functools import partial

from sqlalchemy.orm import Session

from api.app_state import AppState
from api.auth.caller import Caller
from api.jobs.creation import new_job
from api.jobs.datasets import recheck
from api.jobs.schemas import CreateJob
from api.masks.schemas import MaskObject, audit_object, job_mask_object
from api.models.bases import require_files
from api.repeats import remember
from core.errors import Conflict, NotFound
from core.jobs.state import FINAL
from core.records import masks
from core.records.owned import get_owned
from core.records.tables import Job
from core.spec.ids import JobId, MaskId, TaskId
from core.tasks.kinds import Work


def request(state: AppState, caller: Caller, body: CreateJob) -> MaskObject:
    """Apply the checks of a job's creation, store the audit and wake a worker."""
    rechecked = recheck(state, caller, body)
    hub_folder = state.settings.hub_folder
    with state.database.reading() as session:
        job = new_job(session, state.catalog, caller, body, rechecked, hub_folder)
        require_files(session, state, job.spec.base)
    with state.transaction() as transaction:
        session = transaction.session
        audit = masks.request_audit(session, caller.project, job.training_file, job.spec)
        transaction.after_commit(partial(state.broker.wake, Work(audit.kind, audit.id)))
        return remember(session, caller, audit_object(audit))


def get(session: Session, caller: Caller, mask_id: MaskId) -> MaskObject:
    """Return an audit, or the mask of a job by the job's id."""
    job_id = JobId(mask_id)
    mask = masks.find_job_mask(session, caller.project, job_id)
    if mask is not None:
        return job_mask_object(get_owned(session, Job, caller.project, job_id), mask)
    return audit_object(masks.get_audit(session, caller.project, TaskId(mask_id)))


def of_job(session: Session, caller: Caller, job_id: JobId) -> MaskObject:
    """Return the mask of a job; Conflict until a worker has read its files."""
    job = get_owned(session, Job, caller.project, job_id)
    mask = masks.find_job_mask(session, caller.project, job.id)
    if mask is not None:
        return job_mask_object(job, mask)
    if job.status in FINAL:
        raise NotFound(
            f"Job {job.id} ended as {job.status} before its files were read.",
            param="fine_tuning_job_id",
            code="mask_not_found",
        )
    raise Conflict(
        f"No worker has read the files of job {job.id} yet. Try again in a moment.",
        param="fine_tuning_job_id",
        code="mask_not_ready",
    )
