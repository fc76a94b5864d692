"""Runs of evals as their owners see them: creation, lists, cancellation, results.

`core.records.eval_progress` has the writes of the worker.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from core.errors import Conflict
from core.records.owned import Lock, find_owned, get_owned, missing, owned_by, similar_id
from core.records.pages import Order, Page, page, until_full, within_bytes
from core.records.tables import Eval, EvalRun, EvalRunItem, Task
from core.records.tasks import create_task, forget_tasks
from core.spec.evals import EvalRunRequest, EvalRunStatus, ItemStatus
from core.spec.ids import EvalId, EvalItemId, EvalRunId, FileId, ProjectId

EVAL_RUN = "eval_run"
"""The kind of task."""


@dataclass(frozen=True)
class NewEvalRun:
    """What the owner asks for; without a name, the id is the name."""

    project_id: ProjectId
    eval_id: EvalId
    id: EvalRunId
    name: str | None
    model: str | None
    user_metadata: dict[str, str] | None
    data_source: dict[str, Any]
    file_id: FileId | None
    total: int
    fields: list[str]


def run_blob_key(run_id: EvalRunId) -> str:
    """Return the storage key of the items of a run that are in no file."""
    return f"evals/{run_id}"


def create_run(session: Session, new: NewEvalRun, request: EvalRunRequest) -> tuple[EvalRun, Task]:
    """Create a run and its task. The caller wakes a worker after the commit."""
    get_owned(
        session, Eval, new.project_id, new.eval_id, lock="read"
    )  # it is not deleted meanwhile
    run = EvalRun(
        **vars(new) | {"name": new.name or new.id},
        created_at=time.time(),
        status=EvalRunStatus.QUEUED,
        blob_key=request.blob_key,
        criteria_counts=[{"passed": 0, "failed": 0} for _ in request.criteria],
        usage=[],
    )
    session.add(run)
    session.flush()
    return run, create_task(session, new.project_id, EVAL_RUN, subject=run.id, payload=request)


def get_run(
    session: Session,
    project_id: ProjectId,
    eval_id: EvalId,
    run_id: EvalRunId,
    *,
    is_locked: bool = False,
) -> EvalRun:
    """Return a run with its data source; NotFound if the eval has no such run."""
    get_owned(session, Eval, project_id, eval_id)
    load = (undefer(EvalRun.data_source), undefer(EvalRun.fields))
    lock: Lock | None = "write" if is_locked else None
    run = find_owned(session, EvalRun, project_id, run_id, lock=lock, load=load)
    if run is None or run.eval_id != eval_id:
        raise missing(EvalRun, run_id, hint=similar_id(session, EvalRun, project_id, run_id))
    return run


def list_runs(
    session: Session,
    project_id: ProjectId,
    eval_id: EvalId,
    *,
    status: str | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[EvalRun]:
    """Return runs without their data sources, which `with_data_sources` reads."""
    get_owned(session, Eval, project_id, eval_id)
    query = select(EvalRun).where(EvalRun.eval_id == eval_id)
    if status is not None:
        query = query.where(EvalRun.status == status)
    return page(session, query, EvalRun, project_id, after=after, limit=limit, order=order)


def cancel_run(
    session: Session, project_id: ProjectId, eval_id: EvalId, run_id: EvalRunId
) -> EvalRun:
    """End a run, which keeps its results so far. Its worker stops soon. Idempotent.

    Conflict if it has ended in another way.
    """
    run = get_run(session, project_id, eval_id, run_id)
    if run.finished_at is None:
        forget_run_tasks(session, project_id, [run_id])
        run = get_run(session, project_id, eval_id, run_id, is_locked=True)
    if run.finished_at is None:
        run.status = EvalRunStatus.CANCELED
        run.finished_at = time.time()
        session.flush()
    elif run.status != EvalRunStatus.CANCELED:
        raise Conflict(f"Run {run_id} is {run.status} and cannot be canceled.", param="run_id")
    return run


def delete_run(
    session: Session, project_id: ProjectId, eval_id: EvalId, run_id: EvalRunId
) -> str | None:
    """Delete a run with its results; return the blob to delete after the commit, if any."""
    get_run(session, project_id, eval_id, run_id)
    forget_run_tasks(session, project_id, [run_id])
    run = get_run(session, project_id, eval_id, run_id, is_locked=True)
    session.delete(run)
    session.flush()
    return run.blob_key if run.file_id is None else None


def forget_run_tasks(session: Session, project_id: ProjectId, ids: Iterable[EvalRunId]) -> None:
    """Delete the tasks of runs. Workers lock the task before the run, and so must everyone."""
    forget_tasks(session, owned_by(Task, project_id), Task.kind == EVAL_RUN, Task.subject.in_(ids))


def list_items(
    session: Session,
    project_id: ProjectId,
    run_id: EvalRunId,
    *,
    status: ItemStatus | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[EvalRunItem]:
    """Return results in the order in which they were stored, fewer than `limit` of large ones."""
    query = select(EvalRunItem).where(EvalRunItem.run_id == run_id)
    if status is not None:
        query = query.where(EvalRunItem.status == status)
    found = page(session, query, EvalRunItem, project_id, after=after, limit=limit, order=order)
    shown = within_bytes(found, lambda item: item.bytes)
    _load_bodies(session, shown.rows)
    return shown


def _load_bodies(session: Session, items: Sequence[EvalRunItem]) -> None:
    """Read the bodies of items of this session at once."""
    ids = [item.id for item in items]
    query = select(EvalRunItem).where(EvalRunItem.id.in_(ids)).options(undefer(EvalRunItem.body))
    session.scalars(query.execution_options(populate_existing=True)).all()


def get_item(
    session: Session, project_id: ProjectId, run_id: EvalRunId, item_id: EvalItemId
) -> EvalRunItem:
    load = (undefer(EvalRunItem.body),)
    item = find_owned(session, EvalRunItem, project_id, item_id, load=load)
    if item is None or item.run_id != run_id:
        raise missing(EvalRunItem, item_id)
    return item


def items_from(
    session: Session, project_id: ProjectId, run_id: EvalRunId, number: int, limit: int
) -> Sequence[EvalRunItem]:
    """Return results in the order of the source, beginning with the item `number`.

    At least one if there is any, and fewer than `limit` if they are large.
    """
    found = session.scalars(
        select(EvalRunItem)
        .where(
            owned_by(EvalRunItem, project_id),
            EvalRunItem.run_id == run_id,
            EvalRunItem.number >= number,
        )
        .order_by(EvalRunItem.number)
        .limit(limit)
    ).all()
    rows = list(until_full(found, lambda item: item.bytes))
    _load_bodies(session, rows)
    return rows
