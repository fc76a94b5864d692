"""Leases and fencing tokens over any table of work: who holds a row, and for how long.

A claim is a compare-and-swap. Its token is carried by every later write of that worker and
refused once the claim has ended, whoever ended it. Leases are measured with the database's
clock only. What else a row has to be told when a claim begins or ends is its own module's
matter: `core.records.claims` for jobs, `core.records.tasks` for tasks.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.orm import Session

from core.errors import StaleClaim
from core.records.database import database_now
from core.records.tables import Leased

Condition = ColumnElement[bool]


class Fence(Protocol):
    """The right to write to a row, until the lease expires or the token rises."""

    @property
    def table(self) -> type[Leased]: ...
    @property
    def id(self) -> str: ...
    @property
    def token(self) -> int: ...


def claim_oldest(
    session: Session,
    table: type[Leased],
    *waiting: Condition,
    worker_id: str,
    lease_seconds: float | ColumnElement[float],
) -> Row[str, int] | None:
    """Claim the oldest of the rows that are `waiting` and that nobody holds; return (id, token).

    Two workers never wait for one another: a row that the other is claiming is passed over.
    """
    oldest = (
        select(table.id)
        .where(table.finished_at.is_(None), table.lease_expires_at.is_(None), *waiting)
        .order_by(table.created_at, table.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return session.execute(
        update(table)
        .where(table.id == oldest.scalar_subquery())
        .values(
            claim_token=table.claim_token + 1,
            claimed_by=worker_id,
            lease_expires_at=database_now() + lease_seconds,
            attempts=table.attempts + 1,
        )
        .returning(table.id, table.claim_token)
        .execution_options(synchronize_session=False)
    ).one_or_none()


def hold(session: Session, fence: Fence, **columns: Any) -> None:
    """Write `columns` under the claim and lock the row for the rest of the transaction.

    Every transaction of a worker begins with this. StaleClaim when the claim is void.
    """
    table = fence.table
    held = session.execute(
        update(table)
        .where(table.id == fence.id, table.claim_token == fence.token)
        .values(columns or {"claim_token": fence.token})
        .returning(table.id)
        .execution_options(synchronize_session=False)
    ).all()
    if not held:
        raise StaleClaim(f"Claim {fence.token} on {fence.id} is void.")


def beat(session: Session, fence: Fence, lease_seconds: float) -> None:
    """Extend the lease; StaleClaim when the row is no longer ours."""
    hold(session, fence, lease_expires_at=database_now() + lease_seconds)


def is_current(session: Session, fence: Fence) -> bool:
    """Say whether the row is still ours; reads only."""
    query = select(fence.table.claim_token).where(fence.table.id == fence.id)
    return session.scalars(query).one_or_none() == fence.token


def no_claim(table: type[Leased]) -> dict[str, Any]:
    """The columns that end a claim: nobody holds the row, every token given out is stale."""
    return {
        "claimed_by": None,
        "lease_expires_at": None,
        "claim_token": table.claim_token + 1,
    }


def find_lost(
    session: Session, table: type[Leased], worker_id: str | None
) -> Sequence[Row[str, int]]:
    """Lock the rows whose worker is dead and return (id, attempts) of each.

    A worker is dead when its lease has expired, or when the caller knows it: `worker_id` names
    one whose process has been seen to end. Rows that another transaction has locked are passed
    over, so of several callers at once each finds other rows.
    """
    dead: Condition = (
        table.claimed_by == worker_id
        if worker_id is not None
        else table.lease_expires_at < database_now()
    )
    return session.execute(
        select(table.id, table.attempts)
        .where(table.lease_expires_at.is_not(None), dead)
        .with_for_update(skip_locked=True)
    ).all()
