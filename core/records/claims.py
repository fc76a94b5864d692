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
from core.records import outbox
from core.records.database import database_now
from core.records.events import NewEvent, append_events
from core.records.jobs import NO_CLAIM, advance
from core.records.tables import Job

MAX_ATTEMPTS = 5
"""A job whose worker died this often is at fault itself."""


@dataclass(frozen=True)
class Claim:
    """The right to write to a job, until the lease expires or the token rises."""

    job_id: str
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


def claimed_job(session: Session, claim: Claim) -> Job:
    """Hold the claim for the rest of the transaction and return its job."""
    hold(session, claim)
    return session.scalars(select(Job).where(Job.id == claim.job_id)).one()


def release(session: Session, claim: Claim, *, message: str) -> None:
    """Give an unfinished job back at once (the worker stops); it does not count as a crash."""
    hold(session, claim, attempts=Job.attempts - 1)
    _requeue(session, claim.job_id, message)


def report_crash(session: Session, claim: Claim, *, message: str) -> None:
    """The run died under a living worker: back into the queue, or failed at the cap."""
    hold(session, claim)
    attempts = session.scalars(select(Job.attempts).where(Job.id == claim.job_id)).one()
    if attempts < MAX_ATTEMPTS:
        _requeue(session, claim.job_id, f"{message} The job starts again.")
    else:
        _fail(session, claim.job_id, "child_crashed", message)


def rescue_expired(session: Session, *, worker_id: str | None = None) -> Sequence[str]:
    """Put jobs of dead workers back into the queue, or fail those that keep killing workers.

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
            _requeue(session, job_id, "The worker was lost; the job starts again.")
            rescued.append(job_id)
            continue
        message = f"The job was started {attempts} times; its worker died again."
        _fail(session, job_id, "worker_lost", message)
    return rescued


def _fail(session: Session, job_id: str, code: str, message: str) -> None:
    error = {"code": code, "message": message, "param": None}
    advance(session, job_id, JobStatus.FAILED, message=message, level="error", error=error)


def _requeue(session: Session, job_id: str, message: str) -> None:
    """End the claim on a job and make it claimable again. One in validation keeps its status."""
    status = session.scalars(select(Job.status).where(Job.id == job_id)).one()
    if status == JobStatus.RUNNING:
        advance(session, job_id, JobStatus.QUEUED, message=message, level="warn", step=0)
    else:
        session.execute(
            update(Job)
            .where(Job.id == job_id)
            .values(NO_CLAIM)
            .execution_options(synchronize_session=False)
        )
        append_events(session, job_id, [NewEvent(message, "warn")])
    # Nobody sends this message right after the commit, so housekeeping does at its next round.
    outbox.enqueue(session, job_id, send_after_seconds=0)
