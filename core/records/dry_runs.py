"""Dry runs of jobs that do not exist yet; they are tasks on the device of a worker."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from core.errors import NotFound
from core.records.jobs import NewJob
from core.records.owned import get_owned, owned_by
from core.records.tables import File, Task
from core.records.tasks import create_task, find_task
from core.spec.dry_run import CountedRows, DryRunRequest
from core.spec.ids import FileId, ProjectId, TaskId
from core.spec.job import JobSpec

DRY_RUN = "dry_run"
"""The kind of task."""

COMPARED_RUNS = 20
"""The newest results of a subject that are looked at."""


def request_dry_run(session: Session, new: NewJob, estimated: CountedRows) -> Task:
    """Create a dry run of the job, whose rows were `estimated`. NotFound without its files."""

    def key_of(file_id: FileId, param: str) -> str:
        return get_owned(session, File, new.project_id, file_id, param=param).blob_key

    validation = new.validation_file
    payload = DryRunRequest(
        spec=new.spec,
        train_key=key_of(new.training_file, "training_file"),
        validation_key=key_of(validation, "validation_file") if validation else None,
        estimated=estimated,
    )
    subject = subject_of(new.spec)
    return create_task(session, new.project_id, DRY_RUN, subject=subject, payload=payload)


def get_dry_run(session: Session, project_id: ProjectId, run_id: TaskId) -> Task:
    """Return the dry run with its result; NotFound if this project has none with this id."""
    run = find_task(session, project_id, DRY_RUN, run_id)
    if run is None:
        raise NotFound(f"No estimate with id {run_id!r}.", param="estimate_id")
    return run


def measured_runs(session: Session, project_id: ProjectId, spec: JobSpec) -> Sequence[Task]:
    """Return the newest dry runs with a result of the same base and strategy, newest first."""
    return session.scalars(
        select(Task)
        .where(
            owned_by(Task, project_id),
            Task.kind == DRY_RUN,
            Task.subject == subject_of(spec),
            Task.result.is_not(None),
        )
        .order_by(Task.created_at.desc(), Task.id)
        .limit(COMPARED_RUNS)
        .options(undefer(Task.result))
    ).all()


def subject_of(spec: JobSpec) -> str:
    """Return what the figures of a dry run are about."""
    return f"{spec.base.id}:{spec.strategy.type}"
