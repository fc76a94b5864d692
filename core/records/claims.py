"""Claims on jobs: how they begin, and how they end.

A claim ends when its job ends or is paused, cancelled, released or rescued. `core.records.leases`
has the lease and the fencing token of a claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.jobs.state import CLAIMABLE, JobStatus
from core.records import leases, outbox, resume_states, trials
from core.records.events import NewEvent, append_events
from core.records.jobs import NO_CLAIM, advance
from core.records.tables import Job
from core.records.worker_bases import lacks_no_files
from core.spec.ids import JobId
from core.spec.trial import TrialResult
from core.tasks.kinds import JOB, Work

MAX_ATTEMPTS = 5
"""A job whose worker died this often is the likely cause, and fails."""


@dataclass(frozen=True)
class Claim:
    """The right to write to a job, until the lease expires or the token increases."""

    table: ClassVar[type[Job]] = Job

    job_id: JobId
    token: int

    @property
    def id(self) -> str:
        return self.job_id


def claim_next(session: Session, worker_id: str, lease_seconds: float) -> Claim | None:
    """Claim the oldest runnable job without a claim; None if there is none.

    A job whose base the worker does not have, and which may be downloading, is skipped.
    """
    claimed = leases.claim_oldest(
        session,
        Job,
        Job.status.in_(CLAIMABLE),
        lacks_no_files(worker_id),
        worker_id=worker_id,
        lease_seconds=lease_seconds,
    )
    if claimed is None:
        return None
    job_id, token = JobId(claimed[0]), claimed[1]
    outbox.settle(session, Work(JOB, job_id))
    return Claim(job_id, token)


def is_pause_requested(session: Session, claim: Claim) -> bool:
    """Return whether a pause is requested, without writing; StaleClaim if the claim has ended."""
    query = select(Job.claim_token, Job.pause_requested_at).where(Job.id == claim.job_id)
    job = session.execute(query).one_or_none()
    if job is None or job.claim_token != claim.token:
        raise StaleClaim(f"{claim.job_id} was cancelled or given to another worker.")
    return job.pause_requested_at is not None


def claimed_job(session: Session, claim: Claim) -> Job:
    """Lock the claim for the rest of the transaction and return its job."""
    leases.hold(session, claim)
    return session.scalars(select(Job).where(Job.id == claim.job_id)).one()


def release(session: Session, claim: Claim, *, reason: str) -> None:
    """End the claim because the worker or the owner stops the run. The attempt does not count."""
    leases.hold(session, claim, attempts=Job.attempts - 1)
    _end_claim(session, claim.job_id, reason)


def park(session: Session, claim: Claim, *, message: str) -> None:
    """Pause a job until its owner has fixed the reason. The attempt does not count."""
    leases.hold(session, claim, attempts=Job.attempts - 1)
    step = resume_states.saved_step(session, claim.job_id)
    advance(session, claim.job_id, JobStatus.PAUSED, message=message, level="error", step=step)


def stop_at_rung(session: Session, claim: Claim, result: TrialResult) -> None:
    """Pause a trial at its rung and record its result there. The attempt does not count.

    A pause that was requested meanwhile is kept, and takes effect when the trial would continue.
    """
    leases.hold(session, claim, attempts=Job.attempts - 1)
    requested = session.scalars(select(Job.pause_requested_at).where(Job.id == claim.job_id)).one()
    trials.record_result(session, claim.job_id, result)
    message = f"The trial has reached step {result.step} and waits for the others of its sweep."
    advance(
        session,
        claim.job_id,
        JobStatus.PAUSED,
        message=message,
        step=result.step,
        pause_requested_at=requested,
    )


def report_crash(session: Session, claim: Claim, *, reason: str) -> None:
    """Record that the run died under a living worker: requeue the job, or fail it at the cap."""
    leases.hold(session, claim)
    attempts = session.scalars(select(Job.attempts).where(Job.id == claim.job_id)).one()
    if attempts < MAX_ATTEMPTS:
        _end_claim(session, claim.job_id, reason)
    else:
        _fail(session, claim.job_id, "child_crashed", reason)


def rescue_expired(session: Session, *, worker_id: str | None = None) -> Sequence[JobId]:
    """Queue the jobs of dead workers again, or fail those that have reached the cap of attempts.

    `leases.find_lost` finds them. Returns the ids of rescued jobs. Concurrent callers rescue a job
    only once.
    """
    rescued = []
    for lost_id, attempts in leases.find_lost(session, Job, worker_id):
        job_id = JobId(lost_id)
        if attempts < MAX_ATTEMPTS:
            _end_claim(session, job_id, "The worker was lost.")
            rescued.append(job_id)
            continue
        message = f"The job was started {attempts} times; its worker died again."
        _fail(session, job_id, "worker_lost", message)
    return rescued


def _fail(session: Session, job_id: JobId, code: str, message: str) -> None:
    error = {"code": code, "message": message, "param": None}
    advance(session, job_id, JobStatus.FAILED, message=message, level="error", error=error)


def _end_claim(session: Session, job_id: JobId, reason: str) -> None:
    """Pause the job if its owner has requested that; otherwise make it claimable again."""
    status, pause_requested_at = session.execute(
        select(Job.status, Job.pause_requested_at).where(Job.id == job_id)
    ).one()
    step = resume_states.saved_step(session, job_id)
    if pause_requested_at is not None:
        message = f"{reason} The job is paused after step {step}."
        advance(session, job_id, JobStatus.PAUSED, message=message, level="warn", step=step)
        return
    then = f"resume from step {step}" if step else "start again"
    message = f"{reason} The job will {then}."
    if status == JobStatus.RUNNING:
        advance(session, job_id, JobStatus.QUEUED, message=message, level="warn", step=step)
    else:  # a job that is not running keeps its status
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(NO_CLAIM | {"step": step})
            .execution_options(synchronize_session=False)
        )
        append_events(session, job_id, [NewEvent(message, "warn")])
    # No caller sends this message after the commit; housekeeping sends it in its next round.
    outbox.enqueue(session, Work(JOB, job_id), send_after_seconds=0)
