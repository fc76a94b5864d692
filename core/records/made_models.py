"""The tasks that make models without a job: imports of adapters, and soups."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records import leases
from core.records.models import StoredBundle, set_parity
from core.records.owned import owned_by
from core.records.tables import Task, TunedModel
from core.records.tasks import TaskClaim, create_task, find_task
from core.spec.ids import FileId, ModelId, ProjectId, TaskId
from core.spec.made_model import ImportRequest, MadeModel, MakingProgress, SoupRequest
from core.spec.parity import ParityReference

IMPORT, SOUP = "model_import", "model_soup"
"""The kinds of task."""
_NOUNS: Mapping[str, str] = {IMPORT: "import", SOUP: "soup"}


def request_import(session: Session, project_id: ProjectId, request: ImportRequest) -> Task:
    """Create an import, which waits for a worker."""
    subject = request.files[0].id
    return create_task(session, project_id, IMPORT, subject=subject, payload=request)


def request_soup(session: Session, project_id: ProjectId, request: SoupRequest) -> Task:
    """Create a soup, which waits for a worker."""
    subject = request.models[0].id
    return create_task(session, project_id, SOUP, subject=subject, payload=request)


def get_making(session: Session, project_id: ProjectId, kind: str, task_id: TaskId) -> Task:
    """Return the task; NotFound if this project has none of this kind with this id."""
    task = find_task(session, project_id, kind, task_id)
    if task is None:
        raise NotFound(f"No {_NOUNS[kind]} with id {task_id!r}.", param=f"{_NOUNS[kind]}_id")
    return task


def imports_of(session: Session, project_id: ProjectId, file_id: FileId) -> Sequence[TaskId]:
    """Return the imports of a file that have not ended."""
    unfinished = session.execute(
        select(Task.id, Task.payload).where(
            owned_by(Task, project_id), Task.kind == IMPORT, Task.finished_at.is_(None)
        )
    )
    return [
        task_id
        for task_id, payload in unfinished
        if any(file["id"] == file_id for file in payload["files"])
    ]


def stored_progress(session: Session, claim: TaskClaim) -> MakingProgress | None:
    """Return how far earlier attempts came; None for the first."""
    task = get_making(session, claim.project_id, claim.kind, claim.id)
    return None if task.progress is None else MakingProgress.model_validate(task.progress)


def store_progress(session: Session, claim: TaskClaim, progress: MakingProgress) -> None:
    """Store where the attempt is; StaleClaim if the claim has ended."""
    leases.hold(session, claim, progress=progress.model_dump(mode="json"))


def record_made(
    session: Session,
    claim: TaskClaim,
    made: MadeModel,
    bundle: StoredBundle,
    reference: ParityReference,
) -> None:
    """Record the model, once: later attempts find it in the progress.

    An unchecked model is checked with the `reference` at its first request, whose rows are kept for
    exports. StaleClaim if the claim has ended.
    """
    store_progress(session, claim, MakingProgress(stage="comparing", made=made))
    tuned = made.tuned
    model = TunedModel(
        id=ModelId(made.model),
        project_id=claim.project_id,
        spec=tuned.model_dump(mode="json"),
        base=tuned.base.model_dump(mode="json"),
        bundle_key=bundle.key,
        bundle_sha256=bundle.sha256,
    )
    set_parity(model, made.parity, reference)
    session.add(model)
    session.flush()
