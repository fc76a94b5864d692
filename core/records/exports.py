"""Exports of tuned models, which are tasks about a model."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session, undefer

from core.errors import NotFound
from core.records import leases
from core.records.owned import find_owned, get_owned, owned_by
from core.records.pages import Page, page
from core.records.tables import Project, Task, TunedModel
from core.records.tasks import TaskClaim, create_task, find_task, forget_tasks
from core.spec.export import ExportProgress, ExportRequest
from core.spec.ids import ModelId, ProjectId, TaskId
from core.spec.parity import ParityReference

EXPORT = "export"
"""The kind of task."""


def request_export(
    session: Session, project_id: ProjectId, request: ExportRequest, sealed_token: str | None
) -> Task:
    """Return the unfinished export with the same request; if there is none, a new one."""
    # Lock the project's row, so that concurrent requests share one export.
    session.get(Project, project_id, with_for_update={"key_share": True})
    of_model = _unfinished(project_id, ModelId(request.model))
    for task in session.scalars(select(Task).where(*of_model)):
        if ExportRequest.model_validate(task.payload) == request:
            return task
    task = create_task(session, project_id, EXPORT, subject=request.model, payload=request)
    task.secret = sealed_token
    session.flush()
    return task


def get_export(session: Session, project_id: ProjectId, export_id: TaskId) -> Task:
    """Return the export; NotFound if this project has none with this id."""
    task = find_task(session, project_id, EXPORT, export_id)
    if task is None:
        raise NotFound(f"No export with id {export_id!r}.", param="export_id")
    return task


def list_exports(
    session: Session, project_id: ProjectId, model_id: ModelId, *, after: str | None, limit: int
) -> Page[Task]:
    """Return the exports of a model, newest first. NotFound if the project has no such model."""
    get_owned(session, TunedModel, project_id, model_id)
    query = select(Task).where(Task.kind == EXPORT, Task.subject == model_id)
    query = query.options(undefer(Task.result))
    return page(session, query, Task, project_id, after=after, limit=limit)


def forget_export(session: Session, project_id: ProjectId, export_id: TaskId) -> Sequence[str]:
    """Delete an export; a running one loses its claim. Return the storage keys that it may have."""
    task = get_export(session, project_id, export_id)
    forget_tasks(session, owned_by(Task, project_id), Task.kind == EXPORT, Task.id == task.id)
    return content_keys(task.id, task.claim_token)


def forget_exports(session: Session, project_id: ProjectId, model_id: ModelId) -> Sequence[str]:
    """Delete all exports of a model; return the storage keys that they may have."""
    of_model = and_(owned_by(Task, project_id), Task.kind == EXPORT, Task.subject == model_id)
    tasks = session.scalars(select(Task).where(of_model)).all()
    keys = [key for task in tasks for key in content_keys(task.id, task.claim_token)]
    forget_tasks(session, of_model)
    return keys


def is_being_exported(session: Session, project_id: ProjectId, model_id: ModelId) -> bool:
    """Return whether an export of the model has not ended."""
    query = select(Task.id).where(*_unfinished(project_id, model_id)).limit(1)
    return session.scalars(query).first() is not None


def content_key(export_id: TaskId, token: int) -> str:
    """Return the storage key of what the attempt with this token writes."""
    return f"exports/{export_id}/{token}.zip"


def content_keys(export_id: TaskId, last_token: int) -> list[str]:
    """Return the keys of all attempts up to `last_token`, of which at most one is in a row."""
    return [content_key(export_id, token) for token in range(1, last_token + 1)]


def exported_model(
    session: Session, claim: TaskClaim
) -> tuple[ParityReference | None, float | None]:
    """Return the rows of the model's job and, for qlora, its quantization gap, if they are known.

    NotFound if the model was deleted.
    """
    request = ExportRequest.model_validate(claim.payload)
    rows = undefer(TunedModel.parity_reference)
    model = get_owned(session, TunedModel, claim.project_id, request.model, load=(rows,))
    reference = None
    if model.parity_reference is not None:
        reference = ParityReference.model_validate(model.parity_reference)
    gap = (model.parity or {}).get("quantization_gap_nats")
    return reference, gap


def stored_progress(session: Session, claim: TaskClaim) -> ExportProgress | None:
    """Return what earlier attempts have stored; None if there was none."""
    task = get_export(session, claim.project_id, claim.id)
    return None if task.progress is None else ExportProgress.model_validate(task.progress)


def store_progress(session: Session, claim: TaskClaim, progress: ExportProgress) -> None:
    """Store the progress; StaleClaim if the claim has ended."""
    leases.hold(session, claim, progress=progress.model_dump(mode="json"))


def sealed_token(session: Session, claim: TaskClaim) -> str | None:
    """Return the sealed token for the hub; None without one."""
    secret = undefer(Task.secret)
    task = find_owned(session, Task, claim.project_id, claim.id, load=(secret,))
    return None if task is None else task.secret


def _unfinished(project_id: ProjectId, model_id: ModelId) -> tuple[ColumnElement[bool], ...]:
    return (
        owned_by(Task, project_id),
        Task.kind == EXPORT,
        Task.subject == model_id,
        Task.finished_at.is_(None),
    )
