"""Exports and made models whose last worker died: what it had completed is kept, the rest deleted.

A task that no worker survives fails, whatever had been stored. Its progress says what that was.
"""

from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.records.exports import EXPORT, content_keys
from core.records.made_models import IMPORT, SOUP
from core.records.tables import Task
from core.spec.base import Spec
from core.spec.export import ExportProgress, ExportRequest, PushResult
from core.spec.ids import TaskId
from core.spec.made_model import MakingProgress


def keep_completed(session: Session) -> Sequence[TaskId]:
    """Let the failed tasks succeed whose result was stored before their worker died."""
    kept = []
    for task in _failed(session):
        if (result := _completed(task)) is not None:
            values = {"result": result.model_dump(mode="json"), "error": None}
            session.execute(update(Task).where(Task.id == task.id).values(values))
            kept.append(task.id)
    return kept


def left_by_failed(session: Session) -> Mapping[TaskId, Sequence[str]]:
    """Return the storage keys that failed tasks may have written, and that no row names."""
    return {task.id: list(_keys(task)) for task in _failed(session) if _completed(task) is None}


def forget_left(session: Session, task_id: TaskId) -> None:
    """Note that the blobs of a failed task are deleted."""
    session.execute(update(Task).where(Task.id == task_id).values(progress=None))


def _failed(session: Session) -> Sequence[Task]:
    """Return failed tasks with progress; without it, nothing was stored, or all is deleted."""
    return session.scalars(
        select(Task).where(
            Task.kind.in_((EXPORT, IMPORT, SOUP)),
            Task.finished_at.is_not(None),
            Task.error.is_not(None),
            Task.progress.is_not(None),
        )
    ).all()


def _completed(task: Task) -> Spec | None:
    if task.kind != EXPORT:
        return MakingProgress.model_validate(task.progress).made
    built = ExportProgress.model_validate(task.progress).built
    target = ExportRequest.model_validate(task.payload).options.push_to
    if built is None or target is None:
        return built
    reason = "The worker died at each attempt to push it. Request it again, or push its content."
    push = PushResult(status="failed", repository=target.repository, reason=reason)
    return built.model_copy(update={"push": push})


def _keys(task: Task) -> Iterator[str]:
    if task.kind == EXPORT:
        yield from content_keys(task.id, task.claim_token)
    elif (key := MakingProgress.model_validate(task.progress).bundle_key) is not None:
        yield key
