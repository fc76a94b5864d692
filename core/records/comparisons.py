"""Comparisons of models, which are tasks about a file."""

from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records import leases
from core.records.tables import Task
from core.records.tasks import TaskClaim, create_task, find_task
from core.spec.comparison import ComparisonProgress, ComparisonRequest
from core.spec.ids import FileId, ProjectId, TaskId

COMPARISON = "comparison"
"""The kind of task."""


def request_comparison(
    session: Session, project_id: ProjectId, file_id: FileId, request: ComparisonRequest
) -> Task:
    """Create a comparison, which waits for a worker."""
    return create_task(session, project_id, COMPARISON, subject=file_id, payload=request)


def get_comparison(session: Session, project_id: ProjectId, comparison_id: TaskId) -> Task:
    """Return the comparison; NotFound if this project has none with this id."""
    task = find_task(session, project_id, COMPARISON, comparison_id)
    if task is None:
        raise NotFound(f"No comparison with id {comparison_id!r}.", param="comparison_id")
    return task


def stored_answers(session: Session, claim: TaskClaim) -> ComparisonProgress | None:
    """Return the answers of earlier attempts; None if there are none."""
    task = get_comparison(session, claim.project_id, claim.id)
    return None if task.progress is None else ComparisonProgress.model_validate(task.progress)


def store_answers(session: Session, claim: TaskClaim, progress: ComparisonProgress) -> None:
    """Store all answers so far; StaleClaim if the claim has ended."""
    leases.hold(session, claim, progress=progress.model_dump(mode="json"))
