"""Pauses and resumes a job at the request of its owner.

A job without a claim is paused at once. With a claim, the request is stored in its row: the
worker's lease sees it, and the end of the claim then pauses the job (`core.records.claims`).
"""

from sqlalchemy import update
from sqlalchemy.orm import Session

from core.errors import Conflict
from core.jobs.state import FINAL, JobStatus
from core.records import outbox
from core.records.database import database_now
from core.records.events import NewEvent, append_events
from core.records.jobs import advance
from core.records.owned import get_owned
from core.records.tables import Job
from core.records.trials import find_trial, has_reached_rung
from core.spec.ids import JobId, ProjectId
from core.tasks.kinds import JOB, Work


def pause_job(session: Session, project_id: ProjectId, job_id: JobId) -> Job:
    """Pause the job, or request it if the job is claimed; Conflict if there is nothing to pause."""
    job = get_owned(session, Job, project_id, job_id, lock="write")
    if job.status in FINAL:
        raise _conflict(f"Job {job_id} has already ended ({job.status}) and cannot be paused.")
    if job.paused_at is not None or job.pause_requested_at is not None:
        raise _conflict(f"Job {job_id} is already paused or about to pause.")
    if job.lease_expires_at is None:
        advance(session, job_id, JobStatus.PAUSED, message="The job is paused.")
    else:
        _set_request(session, job_id, database_now())
        message = "A pause was requested; the run stops once its state is saved."
        append_events(session, job_id, [NewEvent(message)])
    session.refresh(job)
    return job


def resume_job(session: Session, project_id: ProjectId, job_id: JobId) -> Job:
    """Queue a paused job, or withdraw the request for a pause; otherwise Conflict."""
    job = get_owned(session, Job, project_id, job_id, lock="write")
    if job.status == JobStatus.PAUSED:
        _refuse_at_rung(session, job)
        advance(session, job_id, JobStatus.QUEUED, message="The job was resumed and is queued.")
        outbox.enqueue(session, Work(JOB, job_id))
    elif job.pause_requested_at is not None:
        _set_request(session, job_id, None)
        append_events(session, job_id, [NewEvent("The request for a pause was withdrawn.")])
    else:
        raise _conflict(f"Job {job_id} is {job.status} and not paused; there is nothing to resume.")
    session.refresh(job)
    return job


def withdraw_request(session: Session, job_id: JobId) -> None:
    """Let a trial that waits at its rung continue without a pause."""
    _set_request(session, job_id, None)


def _refuse_at_rung(session: Session, job: Job) -> None:
    """Refuse to resume a trial that has reached its rung: it has nothing to train."""
    trial = None if job.sweep_id is None else find_trial(session, job.id)
    if trial is not None and has_reached_rung(job, trial):
        raise _conflict(
            f"Job {job.id} is trial {trial.number} of {job.sweep_id} and waits for the other "
            "trials. It continues, or ends, when they have reached the same share of their steps."
        )


def _set_request(session: Session, job_id: JobId, value: object) -> None:
    session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(pause_requested_at=value)
        .execution_options(synchronize_session=False)
    )


def _conflict(message: str) -> Conflict:
    return Conflict(message, param="fine_tuning_job_id", code="invalid_job_status")
