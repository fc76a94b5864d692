"""Who works on which job: claims with a lease and a fencing token.

A claim is a compare-and-swap. Its token is carried by every later write of that worker and
refused once the claim has ended: the job is over, parked, cancelled or rescued. Leases are
measured with the database's clock only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.jobs.state import CLAIMABLE, JobStatus
from core.records import outbox, resume_states
from core.records.database import database_now
from core.records.events import NewEvent, append_events
from core.records.jobs import NO_CLAIM, advance
from core.records.tables import Job
from core.spec.ids import JobId

MAX_ATTEMPTS = 5
"""A job whose worker died this often is at fault itself."""


@dataclass(frozen=True)
class Claim:
    """The right to write to a job, until the lease expires or the token rises."""

    job_id: JobId
    token: int


def claim_next(session: Session, worker_id: str, lease_seconds: float) -> Claim | None:
    """Claim the oldest runnable job that nobody holds; None when there is none.

    Two workers never wait for one another: a row that the other is taking is passed over.
    """
    oldest = (
        select(Job.id)
        .where(
            Job.finished_at.is_(None),  # the partial index `ix_jobs_unfinished`
            Job.status.in_(CLAIMABLE),
            Job.lease_expires_at.is_(None),
        )
        .order_by(Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = session.execute(
        update(Job)
        .where(Job.id == oldest.scalar_subquery())
        .values(
            claim_token=Job.claim_token + 1,
            claimed_by=worker_id,
            lease_expires_at=database_now() + lease_seconds,
            attempts=Job.attempts + 1,
        )
        .returning(Job.id, Job.claim_token)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None:
        return None
    outbox.settle(session, taken.id)
    return Claim(job_id=taken.id, token=taken.claim_token)


def hold(session: Session, claim: Claim, **columns: Any) -> None:
    """Write `columns` under the claim and lock the row for the rest of the transaction.

    Every transaction of a worker begins with this. StaleClaim when the claim is void.
    """
    held = session.execute(
        update(Job)
        .where(Job.id == claim.job_id, Job.claim_token == claim.token)
        .values(columns or {"claim_token": claim.token})
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    ).all()
    if not held:
        raise StaleClaim(f"Claim {claim.token} on {claim.job_id} is void.")


def beat(session: Session, claim: Claim, lease_seconds: float) -> None:
    """Extend the lease; StaleClaim when the job is no longer ours."""
    hold(session, claim, lease_expires_at=database_now() + lease_seconds)


def stands(session: Session, claim: Claim) -> bool:
    """Say whether the job is still ours; reads only."""
    query = select(Job.claim_token).where(Job.id == claim.job_id)
    return session.scalars(query).one_or_none() == claim.token


def is_pause_requested(session: Session, claim: Claim) -> bool:
    """Say whether our job is to be parked; StaleClaim when it is not ours any more. Reads only."""
    query = select(Job.claim_token, Job.pause_requested_at).where(Job.id == claim.job_id)
    job = session.execute(query).one_or_none()
    if job is None or job.claim_token != claim.token:
        raise StaleClaim(f"{claim.job_id} was taken away.")
    return job.pause_requested_at is not None


def claimed_job(session: Session, claim: Claim) -> Job:
    """Hold the claim for the rest of the transaction and return its job."""
    hold(session, claim)
    return session.scalars(select(Job).where(Job.id == claim.job_id)).one()


def release(session: Session, claim: Claim, *, reason: str) -> None:
    """Give an unfinished job back at once (its worker or its owner stops it): no crash."""
    hold(session, claim, attempts=Job.attempts - 1)
    _give_back(session, claim.job_id, reason)


def park(session: Session, claim: Claim, *, message: str) -> None:
    """Pause a job that its owner must look at before it can go on; no crash either."""
    hold(session, claim, attempts=Job.attempts - 1)
    step = resume_states.saved_step(session, claim.job_id)
    advance(session, claim.job_id, JobStatus.PAUSED, message=message, level="error", step=step)


def report_crash(session: Session, claim: Claim, *, reason: str) -> None:
    """The run died under a living worker: the job is given back, or failed at the cap."""
    hold(session, claim)
    attempts = session.scalars(select(Job.attempts).where(Job.id == claim.job_id)).one()
    if attempts < MAX_ATTEMPTS:
        _give_back(session, claim.job_id, reason)
    else:
        _fail(session, claim.job_id, "child_crashed", reason)


def rescue_expired(session: Session, *, worker_id: str | None = None) -> Sequence[JobId]:
    """Give back the jobs of dead workers, or fail those that keep killing workers.

    A worker is dead when its lease has expired, or when the caller knows it: `worker_id`
    names one whose process has been seen to end. Returns the ids of rescued jobs. Several
    callers at once rescue a job once: rows that another has locked are passed over.
    """
    dead = (
        Job.claimed_by == worker_id
        if worker_id is not None
        else Job.lease_expires_at < database_now()
    )
    expired = session.execute(
        select(Job.id, Job.attempts)
        .where(Job.lease_expires_at.is_not(None), dead)
        .with_for_update(skip_locked=True)
    ).all()
    rescued = []
    for job_id, attempts in expired:
        if attempts < MAX_ATTEMPTS:
            _give_back(session, job_id, "The worker was lost.")
            rescued.append(job_id)
            continue
        message = f"The job was started {attempts} times; its worker died again."
        _fail(session, job_id, "worker_lost", message)
    return rescued


def _fail(session: Session, job_id: JobId, code: str, message: str) -> None:
    error = {"code": code, "message": message, "param": None}
    advance(session, job_id, JobStatus.FAILED, message=message, level="error", error=error)


def _give_back(session: Session, job_id: JobId, reason: str) -> None:
    """End the claim on a job: parked when its owner asked for that, else claimable again."""
    status, pause_requested_at = session.execute(
        select(Job.status, Job.pause_requested_at).where(Job.id == job_id)
    ).one()
    step = resume_states.saved_step(session, job_id)
    if pause_requested_at is not None:
        message = f"{reason} The job is paused after step {step}."
        advance(session, job_id, JobStatus.PAUSED, message=message, level="warn", step=step)
        return
    message = f"{reason} The job " + (f"goes on after step {step}." if step else "starts again.")
    if status == JobStatus.RUNNING:
        advance(session, job_id, JobStatus.QUEUED, message=message, level="warn", step=step)
    else:  # one that has not begun keeps its status
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(NO_CLAIM | {"step": step})
            .execution_options(synchronize_session=False)
        )
        append_events(session, job_id, [NewEvent(message, "warn")])
    # Nobody sends this message right after the commit, so housekeeping does at its next round.
    outbox.enqueue(session, job_id, send_after_seconds=0)
