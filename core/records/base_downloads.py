"""Downloads of bases from the Hugging Face hub, which are tasks, and the jobs that wait for them.

A job whose base no worker has is not claimed. Housekeeping decides what happens to it: its base is
downloaded, or the job fails. A download serves all projects, so it is found by its base.
"""

from collections.abc import Sequence

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from core.jobs.state import CLAIMABLE, JobStatus
from core.records import leases, outbox
from core.records.database import database_now
from core.records.events import NewEvent, append_events
from core.records.jobs import advance
from core.records.tables import Job, JobEvent, Project, Task, Worker
from core.records.tasks import TaskClaim, create_task
from core.records.worker_bases import found_bases, uses
from core.spec.base_files import BaseSource, BaseState, DownloadProgress, NamedSource
from core.spec.base_model import BaseModelSpec
from core.spec.ids import ProjectId
from core.tasks.failure import TaskFailure
from core.tasks.kinds import JOB, Queue, Work

BASE_DOWNLOAD = "base_download"
"""The kind of task."""

SETTLING_SECONDS = 60.0
"""How long workers may take to find the files of a finished download."""


def request_download(session: Session, project_id: ProjectId, base: BaseModelSpec) -> Task:
    """Return the download of the base that waits or runs; if there is none, a new one."""
    # Lock the project's row, so that concurrent requests share one download.
    session.get(Project, project_id, with_for_update={"key_share": True})
    newest = newest_download(session, base)
    if newest is not None and newest.finished_at is None:
        return newest
    payload = NamedSource.of(base)
    return create_task(
        session, project_id, BASE_DOWNLOAD, subject=subject_of(base), payload=payload
    )


def newest_download(session: Session, base: BaseModelSpec) -> Task | None:
    """Return the download of the base that was requested last, in any project."""
    return session.scalars(
        select(Task)
        .where(Task.kind == BASE_DOWNLOAD, Task.subject == subject_of(base))
        .order_by(Task.created_at.desc(), Task.id)
        .limit(1)
    ).first()


def wait_for_download(session: Session, job: Job) -> Task:
    """Request the download of the job's base, and tell the job; return the download."""
    base = BaseModelSpec.model_validate(job.spec["base"])
    download = request_download(session, job.project_id, base)
    append_events(session, job.id, [NewEvent(_waiting(base.id))])
    return download


def record_progress(
    session: Session, claim: TaskClaim, progress: DownloadProgress, *, tell: bool = False
) -> None:
    """Store the progress of a download, and `tell` the waiting jobs; StaleClaim if it has ended."""
    leases.hold(session, claim, progress=progress.model_dump(mode="json"))
    if tell:
        base = NamedSource.model_validate(claim.payload)
        message = _downloading(base.id) + f"{progress.percent} % of {_size(progress.total_bytes)}."
        for job in _unclaimed(session, base.files):
            append_events(session, job.id, [NewEvent(message)])


def end_waiting(session: Session, claim: TaskClaim) -> None:
    """Tell the jobs on the base that its download is complete, and wake workers for them.

    A worker may have found the files, and claimed a job that was told of the download, before it
    ends. Such a job is told too.
    """
    base = NamedSource.model_validate(claim.payload)
    # lock the jobs before the task: the order of all transactions
    jobs = session.scalars(_unfinished_on(base.files).with_for_update()).all()
    leases.hold(session, claim)
    for job in jobs:
        is_waiting = job.status in CLAIMABLE and job.lease_expires_at is None
        if is_waiting:
            outbox.enqueue(session, Work(JOB, job.id), send_after_seconds=0)
        told = _told_last(session, job, base.id)
        if told != _downloaded(base.id) and (is_waiting or told is not None):
            append_events(session, job.id, [NewEvent(_downloaded(base.id))])


def settle_waiting_jobs(session: Session) -> None:
    """Decide about jobs whose base no device worker has: download it, or fail the job.

    Nothing is decided while no device worker is alive.
    """
    anywhere = found_bases(session)
    for files, found in found_bases(session, Worker.queue == Queue.DEVICE).items():
        if found.state != "present":
            for job in _unclaimed(session, files):
                _settle(session, job, anywhere.get(files, found).state)


def subject_of(base: BaseModelSpec) -> str:
    return f"{base.source}@{base.revision}" if base.revision else base.source


def _settle(session: Session, job: Job, state: BaseState) -> None:
    base = BaseModelSpec.model_validate(job.spec["base"])
    download = newest_download(session, base)
    if download is not None and download.finished_at is None:
        return
    if download is None or (download.finished_at or 0) < job.created_at:
        if state == "missing":
            _fail(session, job, "base_missing", f"No worker has the files of {base.id}.")
        else:
            wait_for_download(session, job)
    elif download.error is not None:
        failure = TaskFailure.model_validate(download.error)
        _fail(session, job, failure.code, failure.message)
    elif _has_settled(session, download):
        message = (
            f"{base.id} was downloaded, but no worker that trains has its files. Let all workers "
            "and engines share one HF_HOME, or download it on each machine."
        )
        _fail(session, job, "base_missing", message)


def _unclaimed(session: Session, files: BaseSource) -> Sequence[Job]:
    """Lock the jobs on this base that wait for a worker. Locked ones, perhaps claimed now, are
    skipped."""
    return session.scalars(
        _unfinished_on(files)
        .where(Job.status.in_(CLAIMABLE), Job.lease_expires_at.is_(None))
        .with_for_update(skip_locked=True)
    ).all()


def _unfinished_on(files: BaseSource) -> Select[Job]:
    """The jobs on a base that have not ended, by the partial index `ix_jobs_unfinished`."""
    return (
        select(Job)
        .where(Job.finished_at.is_(None), uses(files.source, files.revision))
        .order_by(Job.created_at, Job.id)
    )


def _told_last(session: Session, job: Job, name: str) -> str | None:
    """Return what the job was told last about the download of its base, which is called `name`."""
    told = select(JobEvent.message).where(
        JobEvent.job_id == job.id,
        JobEvent.type == "message",
        or_(
            JobEvent.message == _waiting(job.spec["base"]["id"]),
            JobEvent.message.startswith(_downloading(name), autoescape=True),
            JobEvent.message == _downloaded(name),
        ),
    )
    return session.scalars(told.order_by(JobEvent.sequence.desc()).limit(1)).first()


def _waiting(name: str) -> str:
    return f"Waiting for the download of {name}."


def _downloading(name: str) -> str:
    return f"Downloading {name}: "


def _downloaded(name: str) -> str:
    return f"{name} is downloaded."


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _has_settled(session: Session, download: Task) -> bool:
    now = session.scalars(select(database_now())).one()
    return (download.finished_at or now) < now - SETTLING_SECONDS


def _fail(session: Session, job: Job, code: str, message: str) -> None:
    error = {"code": code, "message": message, "param": "model"}
    advance(session, job.id, JobStatus.FAILED, message=message, level="error", error=error)
