"""Messages that must reach the broker, kept in the database until their work is claimed.

The row is written in the transaction that makes a job or a task runnable and removed in the one
that claims it. Whoever sends a message (the API right after its commit, housekeeping later)
pushes `send_after` into the future; a lost message is therefore sent again, after pauses that
double, so that work which waits for days does not fill the broker.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, case, delete, insert, select, update
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.tables import OutboxMessage
from core.tasks.kinds import Work

RESEND_AFTER_SECONDS = 15.0
"""The grace of a sender before housekeeping sends the same message again."""

LONGEST_PAUSE_SECONDS = 900.0

_pause_seconds = case(
    {sent_count: RESEND_AFTER_SECONDS * 2**sent_count for sent_count in range(6)},
    value=OutboxMessage.sent_count,
    else_=LONGEST_PAUSE_SECONDS,
)


def enqueue(
    session: Session, work: Work, *, send_after_seconds: float = RESEND_AFTER_SECONDS
) -> None:
    """Ask for a wake-up call for `work`; asking twice is asking once.

    The default leaves the caller the time to send it after its commit.
    """
    settle(session, work)
    send_after = database_now() + send_after_seconds
    session.execute(insert(OutboxMessage).values(kind=work.kind, id=work.id, send_after=send_after))


def due(session: Session, limit: int = 100) -> Sequence[Work]:
    """Work whose message must be sent (again), longest waiting first."""
    rows = session.execute(
        select(OutboxMessage.kind, OutboxMessage.id)
        .where(OutboxMessage.send_after <= database_now())
        .order_by(OutboxMessage.send_after)
        .limit(limit)
    ).all()
    return [Work(kind, id_) for kind, id_ in rows]


def mark_sent(session: Session, work: Work) -> None:
    """Note that the broker took the message, and when to doubt it."""
    session.execute(
        update(OutboxMessage)
        .where(_is_for(work))
        .values(
            send_after=database_now() + _pause_seconds,
            sent_count=OutboxMessage.sent_count + 1,
        )
    )


def settle(session: Session, work: Work) -> None:
    """The work was claimed or is over: nobody needs to be woken for it."""
    session.execute(delete(OutboxMessage).where(_is_for(work)))


def _is_for(work: Work) -> ColumnElement[bool]:
    return and_(OutboxMessage.kind == work.kind, OutboxMessage.id == work.id)
