"""Batches as their owners see them: creation, lists, cancellation.

`core.records.batch_progress` has the writes of the worker.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import Conflict
from core.records.ids import new_batch_id
from core.records.owned import get_owned, owned_by
from core.records.pages import Page, page
from core.records.tables import Batch, Task
from core.records.tasks import create_task, forget_tasks
from core.spec.batch import BatchModel, BatchRequest, BatchStatus, RefusedModel
from core.spec.ids import BatchId, FileId, ProjectId

BATCH = "batch"
"""The kind of task."""


@dataclass(frozen=True)
class NewBatch:
    """What the owner asks for."""

    project_id: ProjectId
    endpoint: str
    input_file_id: FileId
    completion_window: str
    window_seconds: float
    total: int
    model: str | None
    user_metadata: dict[str, str] | None
    output_expires_seconds: int | None


def create_batch(
    session: Session, new: NewBatch, blob_key: str, models: dict[str, BatchModel | RefusedModel]
) -> tuple[Batch, Task]:
    """Create a batch and its task. The caller wakes a worker after the commit."""
    batch = _added(session, new, status=BatchStatus.VALIDATING)
    request = BatchRequest(
        batch_id=batch.id, endpoint=new.endpoint, blob_key=blob_key, models=models
    )
    return batch, create_task(session, new.project_id, BATCH, subject=batch.id, payload=request)


def create_failed_batch(session: Session, new: NewBatch, errors: Sequence[dict[str, Any]]) -> Batch:
    """Create a batch that has failed because of its input file."""
    return _added(
        session,
        new,
        status=BatchStatus.FAILED,
        errors=list(errors),
        finished_at=time.time(),
    )


def _added(session: Session, new: NewBatch, **columns: Any) -> Batch:
    now = time.time()
    fields = {key: value for key, value in vars(new).items() if key != "window_seconds"}
    batch = Batch(
        id=new_batch_id(),
        created_at=now,
        expires_at=now + new.window_seconds,
        **fields,
        **columns,
    )
    session.add(batch)
    session.flush()
    return batch


def list_batches(
    session: Session, project_id: ProjectId, *, after: str | None, limit: int
) -> Page[Batch]:
    return page(session, select(Batch), Batch, project_id, after=after, limit=limit)


def cancel_batch(session: Session, project_id: ProjectId, batch_id: BatchId) -> Batch:
    """Cancel a batch; one that no worker has begun ends at once. Idempotent, as at OpenAI.

    Conflict once its files are being written, or it has ended in another way.
    """
    get_owned(session, Batch, project_id, batch_id)
    is_its_task = (owned_by(Task, project_id), Task.kind == BATCH, Task.subject == batch_id)
    # Workers lock the task first, too; the other order could be a deadlock.
    session.execute(select(Task.id).where(*is_its_task).with_for_update())
    batch = get_owned(session, Batch, project_id, batch_id, lock="write")
    now = time.time()
    match batch.status:
        case BatchStatus.VALIDATING:
            batch.status = BatchStatus.CANCELLED
            batch.cancelling_at = batch.finished_at = now
            forget_tasks(session, *is_its_task)
        case BatchStatus.IN_PROGRESS:
            batch.status = BatchStatus.CANCELLING
            batch.cancelling_at = now
        case BatchStatus.CANCELLING | BatchStatus.CANCELLED:
            pass
        case _:
            raise Conflict(
                f"Batch {batch_id} is {batch.status} and cannot be cancelled.", param="batch_id"
            )
    session.flush()
    return batch
