"""Leases and fencing tokens for any table of work.

A claim is a compare-and-swap. Every later write of the worker carries its token, and is rejected
once the claim has ended for any reason. Leases use only the database's clock. Other changes at the
start and end of a claim are in `core.records.claims` for jobs and `core.records.tasks` for tasks.
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
    """The right to write to a row, until the lease expires or the token increases."""

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
    """Claim the oldest unclaimed row that matches `waiting`; return (id, token).

    Workers never wait for each other: rows locked by another claim are skipped.
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
    """Write `columns` under the claim and lock the row until the end of the transaction.

    Every transaction of a worker begins with this. Raises StaleClaim if the claim has ended.
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
        raise StaleClaim(f"Claim {fence.token} on {fence.id} has ended.")


def beat(session: Session, fence: Fence, lease_seconds: float) -> None:
    """Renew the lease; StaleClaim if the claim has ended."""
    hold(session, fence, lease_expires_at=database_now() + lease_seconds)


def is_current(session: Session, fence: Fence) -> bool:
    """Return whether the claim is still valid, without writing."""
    query = select(fence.table.claim_token).where(fence.table.id == fence.id)
    return session.scalars(query).one_or_none() == fence.token


def no_claim(table: type[Leased]) -> dict[str, Any]:
    """Return the columns that end a claim: no holder, and all earlier tokens stale."""
    return {
        "claimed_by": None,
        "lease_expires_at": None,
        "claim_token": table.claim_token + 1,
    }


def find_lost(
    session: Session, table: type[Leased], worker_id: str | None, *conditions: Condition
) -> Sequence[Row[str, int]]:
    """Lock the rows of dead workers that match `conditions`; return (id, attempts) of each.

    A worker is dead if its lease has expired, or if the caller saw its process end and passes its
    `worker_id`. Rows locked by another transaction are skipped, so concurrent callers find
    different rows.
    """
    dead: Condition = (
        table.claimed_by == worker_id
        if worker_id is not None
        else table.lease_expires_at < database_now()
    )
    return session.execute(
        select(table.id, table.attempts)
        .where(table.lease_expires_at.is_not(None), dead, *conditions)
        .with_for_update(skip_locked=True)
    ).all()
