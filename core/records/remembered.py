"""Answers to requests that made something, kept for clients that repeat their request.

The row is written in the transaction that makes the object, so there is never one without the
other, whatever dies in between.
"""

from typing import Any, cast

from sqlalchemy import CursorResult, delete, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.errors import Conflict
from core.records.database import database_now
from core.records.ids import new_id
from core.records.owned import owned_by
from core.records.tables import RememberedRequest
from core.spec.ids import ProjectId
from core.spec.repeatable import Repeatable

KEPT_SECONDS = 86_400.0
"""How long a key is known; what users of `Idempotency-Key` elsewhere are used to."""

REPEATED_WITHIN_SECONDS = 600.0
"""Far longer than stock clients repeat a request by themselves, which they do without a key."""

KEY_REUSED = "idempotency_key_reused"


class AlreadyAnswered(Exception):
    """Another transaction has answered this request, so this one must not commit."""


def find_answer(session: Session, project: ProjectId, request: Repeatable) -> str | None:
    """Return the answer that the request had before, or None.

    Conflict `idempotency_key_reused` if its key belongs to a request with other content.
    """
    if request.key is None:
        return _answer_of_content(session, project, request) if request.tries else None
    found = session.scalars(
        select(RememberedRequest).where(
            owned_by(RememberedRequest, project),
            RememberedRequest.name == request.key,
            RememberedRequest.created_at > database_now() - KEPT_SECONDS,
        )
    ).one_or_none()
    if found is not None and found.fingerprint != request.fingerprint:
        raise Conflict(
            "This Idempotency-Key belongs to an earlier request with another path or body. Use a "
            "new key for a new request; to repeat the earlier one, send it unchanged.",
            param="Idempotency-Key",
            code=KEY_REUSED,
        )
    return None if found is None else found.answer


def _answer_of_content(session: Session, project: ProjectId, request: Repeatable) -> str | None:
    """Return the answer to the latest request with the same content."""
    return session.scalars(
        select(RememberedRequest.answer)
        .where(
            owned_by(RememberedRequest, project),
            RememberedRequest.fingerprint == request.fingerprint,
            RememberedRequest.created_at > database_now() - REPEATED_WITHIN_SECONDS,
        )
        .order_by(RememberedRequest.created_at.desc())
        .limit(1)
    ).one_or_none()


def remember(session: Session, project: ProjectId, request: Repeatable, answer: str) -> None:
    """Store the answer together with what the transaction makes.

    AlreadyAnswered or Conflict if another transaction was faster with the same request.
    """
    if find_answer(session, project, request) is not None:
        raise AlreadyAnswered
    if request.key is not None:  # one that is no longer known may be used again
        session.execute(
            delete(RememberedRequest).where(
                owned_by(RememberedRequest, project),
                RememberedRequest.name == request.key,
                RememberedRequest.created_at <= database_now() - KEPT_SECONDS,
            )
        )
    try:
        session.execute(
            insert(RememberedRequest).values(
                project_id=project,
                name=new_id("req") if request.key is None else request.key,
                fingerprint=request.fingerprint,
                answer=answer,
                created_at=database_now(),
            )
        )
    except IntegrityError:
        raise AlreadyAnswered from None


def forget_old_requests(session: Session) -> int:
    """Delete the rows that no repetition finds any more; return their number."""
    old = RememberedRequest.created_at < database_now() - KEPT_SECONDS
    return cast(CursorResult[Any], session.execute(delete(RememberedRequest).where(old))).rowcount
