"""Pending broker messages, stored in the database until their work is claimed.

The row is written in the transaction that makes a job or a task runnable, and deleted in the one
that claims it. Each sender (the API after its commit, later housekeeping) moves `send_after` into
the future. So lost messages are repeated, with delays that double, and work that waits for days
does not fill the broker.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, case, delete, insert, select, update
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.tables import OutboxMessage
from core.tasks.kinds import JOB, KINDS, Work

RESEND_AFTER_SECONDS = 15.0
"""The delay before housekeeping repeats a message."""

LONGEST_PAUSE_SECONDS = 900.0

_pause_seconds = case(
    {sent_count: RESEND_AFTER_SECONDS * 2**sent_count for sent_count in range(6)},
    value=OutboxMessage.sent_count,
    else_=LONGEST_PAUSE_SECONDS,
)


def enqueue(
    session: Session, work: Work, *, send_after_seconds: float = RESEND_AFTER_SECONDS
) -> None:
    """Add a wake-up message for `work`; idempotent.

    The default delay gives the caller time to send it after its commit.
    """
    settle(session, work)
    send_after = database_now() + send_after_seconds
    session.execute(insert(OutboxMessage).values(kind=work.kind, id=work.id, send_after=send_after))


def due(session: Session, limit: int = 100) -> Sequence[Work]:
    """Return the work whose message is due, longest waiting first.

    Kinds that a newer version has added are left to its own processes: their queue is unknown.
    """
    rows = session.execute(
        select(OutboxMessage.kind, OutboxMessage.id)
        .where(OutboxMessage.send_after <= database_now(), OutboxMessage.kind.in_([JOB, *KINDS]))
        .order_by(OutboxMessage.send_after)
        .limit(limit)
    ).all()
    return [Work(kind, id_) for kind, id_ in rows]


def mark_sent(session: Session, work: Work) -> None:
    """Record that the broker accepted the message, and when to repeat it."""
    session.execute(
        update(OutboxMessage)
        .where(_is_for(work))
        .values(
            send_after=database_now() + _pause_seconds,
            sent_count=OutboxMessage.sent_count + 1,
        )
    )


def settle(session: Session, work: Work) -> None:
    """Delete the message of work that was claimed or has ended."""
    session.execute(delete(OutboxMessage).where(_is_for(work)))


def _is_for(work: Work) -> ColumnElement[bool]:
    return and_(OutboxMessage.kind == work.kind, OutboxMessage.id == work.id)
