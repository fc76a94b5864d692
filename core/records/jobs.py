"""Creates and lists jobs, and has the only function that changes their status."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.errors import Conflict, StaleClaim
from core.jobs.state import FINAL, JobStatus, sources_of
from core.records import outbox
from core.records.database import database_now
from core.records.events import Level, NewEvent, append_events
from core.records.files import pin_files
from core.records.ids import new_id
from core.records.leases import no_claim
from core.records.models import pin_model
from core.records.owned import get_owned, owned_by
from core.records.pages import Page, page
from core.records.tables import Job, JobMetadata
from core.spec.ids import FileId, JobId, ModelId, ProjectId, SweepId
from core.spec.job import JobSpec
from core.tasks.kinds import JOB, Work


@dataclass(frozen=True)
class NewJob:
    """The fields of a job that has no id yet."""

    project_id: ProjectId
    requested_model: str
    suffix: str | None
    training_file: FileId
    validation_file: FileId | None
    spec: JobSpec
    metadata: dict[str, str] | None
    sweep_id: SweepId | None = None
    pause_at_share: float | None = None


NO_CLAIM: dict[str, Any] = no_claim(Job) | {"estimated_finish": None, "pause_requested_at": None}
"""The columns that end a claim on a job: no holder, stale tokens, no requested pause."""


def create_job(session: Session, new: NewJob) -> Job:
    """Create the job with its metadata, its first events and its wake-up message.

    NotFound if this project lacks one of the files, or the tuned model to train further. They
    cannot be deleted until the job has ended.
    """
    files = {"training_file": new.training_file}
    if new.validation_file is not None:
        files["validation_file"] = new.validation_file
    pin_files(session, new.project_id, files)
    if new.spec.parent is not None:
        pin_model(session, new.project_id, ModelId(new.requested_model), new.spec.parent)
    job = Job(
        id=JobId(new_id("ftjob")),
        project_id=new.project_id,
        status=JobStatus.VALIDATING_FILES,
        requested_model=new.requested_model,
        suffix=new.suffix,
        training_file=new.training_file,
        validation_file=new.validation_file,
        spec=new.spec.model_dump(mode="json"),
        user_metadata=new.metadata,
        sweep_id=new.sweep_id,
        pause_at_share=new.pause_at_share,
    )
    session.add(job)
    session.flush()
    session.add_all(
        JobMetadata(job_id=job.id, key=key, value=value, project_id=job.project_id)
        for key, value in (new.metadata or {}).items()
    )
    append_events(
        session,
        job.id,
        [
            NewEvent(f"Created fine-tuning job: {job.id}"),
            NewEvent(f"Validating files: {', '.join(files.values())}"),
        ],
    )
    outbox.enqueue(session, Work(JOB, job.id))
    session.refresh(job)
    return job


def list_jobs(
    session: Session,
    project_id: ProjectId,
    *,
    after: str | None,
    limit: int,
    metadata: dict[str, str] | None = None,
    without_metadata: bool = False,
) -> Page[Job]:
    """Return jobs, newest first; with `metadata`, only those that have all of these pairs."""
    query = select(Job)
    if without_metadata:
        carriers = select(JobMetadata.job_id).where(owned_by(JobMetadata, project_id))
        query = query.where(Job.id.not_in(carriers))
    for key, value in (metadata or {}).items():
        query = query.where(
            Job.id.in_(
                select(JobMetadata.job_id).where(
                    owned_by(JobMetadata, project_id),
                    JobMetadata.key == key,
                    JobMetadata.value == value,
                )
            )
        )
    return page(session, query, Job, project_id, after=after, limit=limit)


def advance(
    session: Session,
    job_id: JobId,
    to: JobStatus,
    *,
    message: str,
    level: Level = "info",
    token: int | None = None,
    **columns: Any,
) -> None:
    """Change the status of a job by compare-and-swap, and add an event.

    `token` is the caller's fencing token; None for changes that need none (cancel, pause, rescue).
    A claim continues only if its worker changes the status to `queued` (the files are valid) or
    `running`. Every other change ends the claim and so invalidates the token: in a worker's
    transaction it must be the last write. StaleClaim for an old token; Conflict if the life cycle
    does not allow the change.
    """
    values: dict[str, Any] = {"status": to}
    if token is None or to not in (JobStatus.QUEUED, JobStatus.RUNNING):
        values |= NO_CLAIM
    if to in FINAL:
        values |= {"finished_at": database_now()}
    values |= {"paused_at": database_now() if to is JobStatus.PAUSED else None}
    values |= columns
    swap = update(Job).where(Job.id == job_id, Job.status.in_(sources_of(to)))
    if token is not None:
        swap = swap.where(Job.claim_token == token)
    moved = session.execute(
        swap.values(values).returning(Job.id).execution_options(synchronize_session=False)
    ).all()
    if not moved:
        _explain_refusal(session, job_id, to, token)
    append_events(session, job_id, [NewEvent(message, level)])
    if to in FINAL or to is JobStatus.PAUSED:
        outbox.settle(session, Work(JOB, job_id))


def cancel_job(session: Session, project_id: ProjectId, job_id: JobId) -> Job:
    """Cancel the job and end its claim, so the worker's next write is rejected and it stops."""
    job = get_owned(session, Job, project_id, job_id)
    advance(
        session,
        job_id,
        JobStatus.CANCELLED,
        message="The job was cancelled.",
        level="warn",
    )
    session.refresh(job)
    return job


def is_over(session: Session, job_id: JobId) -> bool:
    """Return whether the job has ended, or does not exist."""
    status = session.scalars(select(Job.status).where(Job.id == job_id)).one_or_none()
    return status is None or status in FINAL


def _explain_refusal(session: Session, job_id: JobId, to: JobStatus, token: int | None) -> None:
    status, current_token = session.execute(
        select(Job.status, Job.claim_token).where(Job.id == job_id)
    ).one()
    if token is not None and token != current_token:
        raise StaleClaim(
            f"Claim {token} on {job_id} has ended; the current one is {current_token}."
        )
    message = f"Job {job_id} is {status} and cannot become {to}."
    if to is JobStatus.CANCELLED:
        message = f"Job {job_id} has already ended ({status}); nothing needs to be cancelled."
    raise Conflict(
        message,
        param="fine_tuning_job_id",
        code="invalid_job_status",
    )
