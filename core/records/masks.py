"""Mask audits: what a job trains on, and the same asked for before there is a job.

An audit that was asked for waits for a worker, which takes it by compare-and-swap. One that a
worker never finished can be taken again; after a few times it is given up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from core.records.database import database_now
from core.records.ids import new_id
from core.records.owned import get_owned
from core.records.tables import File, Job, MaskAudit
from core.spec.ids import FileId, JobId, MaskId, ProjectId
from core.spec.mask import MaskRow
from core.spec.run import JobSpec

MAX_ATTEMPTS = 3
TAKEN_FOR_SECONDS = 120.0
"""After this long without a result, the worker that took an audit is held for dead."""

KEPT_SECONDS = 86_400.0
"""How long an audit without a job can be read."""


@dataclass(frozen=True)
class WaitingAudit:
    """An audit that this worker has taken."""

    id: MaskId
    spec: JobSpec
    blob_key: str


def request_audit(
    session: Session, project_id: ProjectId, training_file: FileId, spec: JobSpec
) -> MaskId:
    """Write an audit that waits for a worker; return its id. NotFound without such a file."""
    file = get_owned(session, File, project_id, training_file, param="training_file")
    audit = MaskAudit(
        id=MaskId(new_id("mask")),
        project_id=project_id,
        training_file=training_file,
        spec=spec.model_dump(mode="json"),
        blob_key=file.blob_key,
    )
    session.add(audit)
    session.flush()
    return audit.id


def take_waiting(session: Session) -> WaitingAudit | None:
    """Take the oldest audit that nobody works on; None when there is none."""
    oldest = (
        select(MaskAudit.id)
        .where(MaskAudit.finished_at.is_(None), _is_free(), MaskAudit.attempts < MAX_ATTEMPTS)
        .order_by(MaskAudit.created_at, MaskAudit.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    taken = session.execute(
        update(MaskAudit)
        .where(MaskAudit.id == oldest.scalar_subquery())
        .values(taken_at=database_now(), attempts=MaskAudit.attempts + 1)
        .returning(MaskAudit.id, MaskAudit.spec, MaskAudit.blob_key)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None:
        return None
    return WaitingAudit(taken.id, JobSpec.model_validate(taken.spec), taken.blob_key)


def anyone_waits(session: Session) -> bool:
    """Say whether a worker should be woken."""
    waiting = select(MaskAudit.id).where(
        MaskAudit.finished_at.is_(None), _is_free(), MaskAudit.attempts < MAX_ATTEMPTS
    )
    return session.execute(waiting.limit(1)).first() is not None


def finish(
    session: Session,
    *,
    audit_id: MaskId,
    rows: Sequence[MaskRow] = (),
    error: dict[str, Any] | None = None,
) -> None:
    """Write the result, or why there is none. Done twice, the same is written twice."""
    session.execute(
        update(MaskAudit)
        .where(MaskAudit.id == audit_id)
        .values(finished_at=database_now(), rows=_as_json(rows), error=error)
        .execution_options(synchronize_session=False)
    )


def give_up(session: Session) -> None:
    """End the audits whose workers died too often, and forget old ones that belong to no job."""
    error = {
        "code": "worker_lost",
        "message": "The worker was lost each time that it looked at the file.",
        "param": None,
    }
    session.execute(
        update(MaskAudit)
        .where(MaskAudit.finished_at.is_(None), _is_free(), MaskAudit.attempts >= MAX_ATTEMPTS)
        .values(finished_at=database_now(), error=error)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        delete(MaskAudit).where(
            MaskAudit.spec.is_not(None), MaskAudit.created_at < database_now() - KEPT_SECONDS
        )
    )


def record_job_mask(session: Session, job: Job, rows: Sequence[MaskRow]) -> None:
    """Keep what a job trains on, in place of what an earlier attempt said."""
    audit_id = mask_id_of(job.id)
    session.execute(delete(MaskAudit).where(MaskAudit.id == audit_id))
    session.add(
        MaskAudit(
            id=audit_id,
            project_id=job.project_id,
            training_file=job.training_file,
            finished_at=job.created_at,
            rows=_as_json(rows),
        )
    )


def mask_id_of(job_id: JobId) -> MaskId:
    """The audit of a job has the job's id."""
    return MaskId(job_id)


def _is_free() -> Any:
    return or_(
        MaskAudit.taken_at.is_(None), MaskAudit.taken_at < database_now() - TAKEN_FOR_SECONDS
    )


def _as_json(rows: Sequence[MaskRow]) -> list[dict[str, Any]]:
    return [row.model_dump(mode="json") for row in rows]
