"""Distillations as their owners see them: creation, lists, cancellation, answers.

`core.records.distillation_progress` has the writes of the worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from core.errors import Conflict
from core.jobs.state import FINAL as FINAL_JOB
from core.records.database import database_now
from core.records.files import file_key, is_recorded
from core.records.jobs import cancel_job
from core.records.owned import find_owned, get_owned, owned_by
from core.records.pages import Page, page, until_full
from core.records.tables import Distillation, DistillationRow, Job, Task
from core.records.tasks import create_task, forget_tasks
from core.spec.distillation import DistillationRequest, DistillationStatus
from core.spec.ids import DistillationId, FileId, ProjectId

DISTILLATION = "distillation"
"""The kind of task."""


@dataclass(frozen=True)
class NewDistillation:
    """What the owner asks for."""

    project_id: ProjectId
    id: DistillationId
    request: dict[str, Any]
    user_metadata: dict[str, str] | None
    teacher: str | None
    prompts_file: FileId | None
    labelled_file: FileId | None
    validation_file: FileId | None


def prompts_blob_key(distillation_id: DistillationId) -> str:
    """Return the storage key of prompts that are in no file."""
    return f"distillations/{distillation_id}"


def create_distillation(
    session: Session, new: NewDistillation, request: DistillationRequest
) -> tuple[Distillation, Task]:
    """Create a distillation and its task. The caller wakes a worker after the commit."""
    distillation = Distillation(
        **vars(new),
        status=DistillationStatus.QUEUED,
        training_file=request.training_file,
        total=request.total,
        reasons={},
        usage=[],
    )
    session.add(distillation)
    session.flush()
    task = create_task(
        session, new.project_id, DISTILLATION, subject=distillation.id, payload=request
    )
    return distillation, task


def list_distillations(
    session: Session, project_id: ProjectId, *, after: str | None, limit: int
) -> Page[Distillation]:
    """Return distillations, newest first."""
    return page(session, select(Distillation), Distillation, project_id, after=after, limit=limit)


def job_of_distillation(session: Session, distillation: Distillation) -> Job | None:
    """Return the job; None before it exists."""
    if distillation.job_id is None:
        return None
    return find_owned(session, Job, distillation.project_id, distillation.job_id)


def cancel_distillation(
    session: Session, project_id: ProjectId, distillation_id: DistillationId
) -> Distillation:
    """End a distillation, or its job; the answers so far are kept. Idempotent.

    Conflict if it has ended in another way.
    """
    distillation = _without_task(session, project_id, distillation_id)
    if distillation.finished_at is None:
        distillation.status = DistillationStatus.CANCELLED
        distillation.finished_at = session.scalars(select(database_now())).one()
        session.flush()
        return distillation
    job = job_of_distillation(session, distillation)
    if job is not None and job.status not in FINAL_JOB:
        cancel_job(session, project_id, job.id)
    elif (job or distillation).status != DistillationStatus.CANCELLED:
        raise Conflict(
            f"Distillation {distillation_id} has already ended; nothing needs to be cancelled.",
            param="distillation_id",
            code="invalid_distillation_status",
        )
    return distillation


def delete_distillation(
    session: Session, project_id: ProjectId, distillation_id: DistillationId
) -> Sequence[str]:
    """Delete a distillation with its answers, but not its training file and job.

    One that has not ended stops. Returns the blobs to delete after the commit.
    """
    distillation = _without_task(session, project_id, distillation_id)
    keys = unwritten_blobs(session, distillation)
    if distillation.prompts_file is None:
        keys.append(prompts_blob_key(distillation_id))
    session.delete(distillation)
    session.flush()
    return keys


def unwritten_blobs(session: Session, distillation: Distillation) -> list[str]:
    """Return the blob that a worker may have left which was killed before it recorded the file."""
    if is_recorded(session, distillation.training_file):
        return []
    return [file_key(distillation.training_file)]


def needs_file(session: Session, distillation_id: DistillationId, file_id: FileId) -> bool:
    """Return whether the training file is recorded, or another attempt may record it."""
    is_unfinished = (Distillation.id == distillation_id, Distillation.finished_at.is_(None))
    unfinished = session.scalars(select(Distillation.id).where(*is_unfinished)).first()
    return unfinished is not None or is_recorded(session, file_id)


def _without_task(
    session: Session, project_id: ProjectId, distillation_id: DistillationId
) -> Distillation:
    """Return a distillation, locked, whose task is deleted, so that a worker stops.

    Workers lock the task before the distillation, and so must everyone.
    """
    get_owned(session, Distillation, project_id, distillation_id)
    is_its_task = (Task.kind == DISTILLATION, Task.subject == distillation_id)
    forget_tasks(session, owned_by(Task, project_id), *is_its_task)
    return get_owned(session, Distillation, project_id, distillation_id, lock="write")


def rows_from(
    session: Session,
    project_id: ProjectId,
    distillation_id: DistillationId,
    number: int,
    limit: int,
    *,
    status: str | None = None,
) -> Sequence[DistillationRow]:
    """Return rows in the order of the prompts, beginning with `number`, with their bodies.

    At least one if there is any, and fewer than `limit` if they are large.
    """
    query = select(DistillationRow).where(
        owned_by(DistillationRow, project_id),
        DistillationRow.distillation_id == distillation_id,
        DistillationRow.number >= number,
    )
    if status is not None:
        query = query.where(DistillationRow.status == status)
    found = session.scalars(query.order_by(DistillationRow.number).limit(limit)).all()
    rows = list(until_full(found, lambda row: row.bytes))
    numbers = [row.number for row in rows]
    with_bodies = query.where(DistillationRow.number.in_(numbers))
    with_bodies = with_bodies.options(undefer(DistillationRow.body))
    session.scalars(with_bodies.execution_options(populate_existing=True)).all()
    return rows
