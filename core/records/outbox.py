"""Messages that must reach the broker, kept in the database until their job is claimed.

The row is written in the transaction that makes a job runnable and removed in the one that
claims it. Whoever sends a message (the API right after its commit, housekeeping later)
pushes `send_after` into the future; a lost message is therefore sent again, after pauses that
double, so that jobs which wait for days do not fill the broker.
"""

from collections.abc import Sequence

from sqlalchemy import case, delete, insert, select, update
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.tables import OutboxMessage
from core.spec.ids import JobId

RESEND_AFTER_SECONDS = 15.0
"""The grace of a sender before housekeeping sends the same message again."""

LONGEST_PAUSE_SECONDS = 900.0

_pause_seconds = case(
    {sent_count: RESEND_AFTER_SECONDS * 2**sent_count for sent_count in range(6)},
    value=OutboxMessage.sent_count,
    else_=LONGEST_PAUSE_SECONDS,
)


def enqueue(
    session: Session, job_id: JobId, *, send_after_seconds: float = RESEND_AFTER_SECONDS
) -> None:
    """Ask for a wake-up call for `job_id`; asking twice is asking once.

    The default leaves the caller the time to send it after its commit.
    """
    session.execute(delete(OutboxMessage).where(OutboxMessage.job_id == job_id))
    session.execute(
        insert(OutboxMessage).values(job_id=job_id, send_after=database_now() + send_after_seconds)
    )


def due(session: Session, limit: int = 100) -> Sequence[JobId]:
    """Ids of jobs whose message must be sent (again), longest waiting first."""
    return session.scalars(
        select(OutboxMessage.job_id)
        .where(OutboxMessage.send_after <= database_now())
        .order_by(OutboxMessage.send_after)
        .limit(limit)
    ).all()


def mark_sent(session: Session, job_id: JobId) -> None:
    """Note that the broker took the message, and when to doubt it."""
    session.execute(
        update(OutboxMessage)
        .where(OutboxMessage.job_id == job_id)
        .values(
            send_after=database_now() + _pause_seconds,
            sent_count=OutboxMessage.sent_count + 1,
        )
    )


def settle(session: Session, job_id: JobId) -> None:
    """The job was claimed or is over: nobody needs to be woken for it."""
    session.execute(delete(OutboxMessage).where(OutboxMessage.job_id == job_id))
