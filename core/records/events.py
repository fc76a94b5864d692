"""The events of a job, numbered without gaps. The number is the cursor of SSE."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.jobs.state import FINAL
from core.records.pages import Page, keyset_page
from core.records.tables import Job, JobEvent
from core.spec.ids import JobId

Level = Literal["info", "warn", "error"]


@dataclass(frozen=True)
class NewEvent:
    """An event without a number."""

    message: str
    level: Level = "info"
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] | None = None


def append_events(session: Session, job_id: JobId, events: Sequence[NewEvent]) -> None:
    """Add events to a job. The counter in the job's row is a lock that prevents gaps."""
    if not events:
        return
    last, project_id = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(event_count=Job.event_count + len(events))
        .returning(Job.event_count, Job.project_id)
        .execution_options(synchronize_session=False)
    ).one()
    first = last - len(events) + 1
    session.add_all(
        JobEvent(
            job_id=job_id,
            sequence=first + offset,
            project_id=project_id,
            type=event.type,
            level=event.level,
            message=storable(event.message),
            data=event.data,
        )
        for offset, event in enumerate(events)
    )
    session.flush()


def storable(text: str) -> str:
    """Return `text` without what Postgres rejects: NUL, and lone surrogates."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def list_events(
    session: Session, job_id: JobId, *, before: int | None = None, limit: int = 20
) -> Page[JobEvent]:
    """Return up to `limit` events whose number is below `before`, newest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id)
    after = None if before is None else (before,)
    return keyset_page(session, query, [JobEvent.sequence], after=after, limit=limit)


def positions(session: Session, job_ids: Sequence[JobId]) -> dict[JobId, float]:
    """Return the number of the last event of each job; infinite if no more will follow."""
    rows = session.execute(
        select(Job.id, Job.event_count, Job.status).where(Job.id.in_(job_ids))
    ).all()
    return {id_: math.inf if status in FINAL else count for id_, count, status in rows}


def events_since(
    session: Session, job_id: JobId, sequence: int, limit: int = 1000
) -> Sequence[JobEvent]:
    """Return up to `limit` events whose number is above `sequence`, oldest first."""
    return session.scalars(
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.sequence > sequence)
        .order_by(JobEvent.sequence)
        .limit(limit)
    ).all()
