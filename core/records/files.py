"""Rows of uploaded and produced files."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from sqlalchemy import ColumnElement, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.errors import Conflict
from core.records.comparisons import COMPARISON
from core.records.database import database_now
from core.records.ids import new_id
from core.records.made_models import imports_of
from core.records.owned import get_owned, missing, owned_by, similar_id
from core.records.pages import Order, Page, page
from core.records.tables import Batch, Distillation, EvalRun, File, Job, Task
from core.spec.adapter_file import AdapterReport
from core.spec.batch import BatchReport
from core.spec.dataset import DatasetReport
from core.spec.evals import EvalFileReport
from core.spec.ids import FileId, ProjectId

MOST_EXPIRED = 100
"""At once."""

Purpose = Literal["fine-tune", "fine-tune-results", "batch", "batch_output", "evals", "adapter"]


def new_file_key() -> tuple[FileId, str]:
    """Return a new file id and its storage key."""
    file_id = FileId(new_id("file"))
    return file_id, file_key(file_id)


def file_key(file_id: FileId) -> str:
    """Return the storage key of a file."""
    return f"files/{file_id}"


def add_file(
    session: Session,
    *,
    file_id: FileId,
    project_id: ProjectId,
    filename: str,
    purpose: Purpose,
    bytes: int,
    sha256: str,
    blob_key: str,
    report: DatasetReport | BatchReport | EvalFileReport | AdapterReport | None,
    lifetime_seconds: int | None = None,
) -> File:
    """Record a blob that is already in storage; None: it does not expire."""
    created_at = time.time()
    file = File(
        id=file_id,
        project_id=project_id,
        filename=filename,
        purpose=purpose,
        bytes=bytes,
        sha256=sha256,
        blob_key=blob_key,
        report=None if report is None else report.model_dump(mode="json"),
        created_at=created_at,
        expires_at=None if lifetime_seconds is None else created_at + lifetime_seconds,
    )
    session.add(file)
    session.flush()
    return file


def is_recorded(session: Session, file_id: FileId) -> bool:
    """Return whether a file with this id exists in any project."""
    return session.scalars(select(File.id).where(File.id == file_id)).first() is not None


def list_files(
    session: Session,
    project_id: ProjectId,
    *,
    purpose: str | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[File]:
    query = select(File)
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return page(session, query, File, project_id, after=after, limit=limit, order=order)


def pin_files(session: Session, project_id: ProjectId, files: Mapping[str, FileId]) -> None:
    """Prevent the deletion of files, given as {request field: id}, until the transaction ends.

    NotFound, with the field, if this project does not have the file.
    """
    rows = session.execute(
        select(File.id)
        .where(owned_by(File, project_id), File.id.in_(files.values()))
        .order_by(File.id)
        .with_for_update(read=True)
    ).scalars()
    present = set(rows)
    for param, file_id in files.items():
        if file_id not in present:
            hint = similar_id(session, File, project_id, file_id)
            raise missing(File, file_id, param=param, hint=hint)


def expired_files(session: Session) -> Sequence[tuple[ProjectId, FileId]]:
    """Return files whose time is over, without those that unfinished work needs (`user_of`)."""
    is_used_by_job = exists().where(
        or_(Job.training_file == File.id, Job.validation_file == File.id),
        Job.finished_at.is_(None),
    )
    is_used_by_batch = exists().where(Batch.input_file_id == File.id, Batch.finished_at.is_(None))
    is_used_by_run = exists().where(EvalRun.file_id == File.id, EvalRun.finished_at.is_(None))
    is_used_by_comparison = exists().where(
        Task.kind == COMPARISON, Task.subject == File.id, Task.finished_at.is_(None)
    )
    query = select(File.project_id, File.id).where(
        File.expires_at <= database_now(), ~is_used_by_job, ~is_used_by_batch, ~is_used_by_run
    )
    is_used_by_distillation = exists().where(_reads(File.id), Distillation.finished_at.is_(None))
    query = query.where(~is_used_by_comparison, ~is_used_by_distillation)
    rows = session.execute(query.order_by(File.expires_at).limit(MOST_EXPIRED))
    return [(project, file_id) for project, file_id in rows]


def delete_file(session: Session, project_id: ProjectId, file_id: FileId) -> File:
    """Delete the row and return it. The caller deletes the blob after the commit.

    Conflict while work that has not ended needs it.
    """
    file = get_owned(session, File, project_id, file_id, lock="write")
    user = user_of(session, file)
    if user is not None:
        raise Conflict(
            f"File {file_id} is used by {user}, which has not ended. Cancel it first, or wait.",
            param="file_id",
            code="file_in_use",
        )
    session.delete(file)
    session.flush()
    return file


def user_of(session: Session, file: File) -> str | None:
    """Return `job …`, `eval run …` or what else needs the file and has not ended, or None."""
    unfinished = {
        "job": select(Job.id).where(
            owned_by(Job, file.project_id),
            or_(Job.training_file == file.id, Job.validation_file == file.id),
            Job.finished_at.is_(None),
        ),
        "batch": select(Batch.id).where(
            owned_by(Batch, file.project_id),
            Batch.input_file_id == file.id,
            Batch.finished_at.is_(None),
        ),
        "eval run": select(EvalRun.id).where(
            owned_by(EvalRun, file.project_id),
            EvalRun.file_id == file.id,
            EvalRun.finished_at.is_(None),
        ),
        "comparison": select(Task.id).where(
            owned_by(Task, file.project_id),
            Task.kind == COMPARISON,
            Task.subject == file.id,
            Task.finished_at.is_(None),
        ),
        "distillation": select(Distillation.id).where(
            owned_by(Distillation, file.project_id),
            _reads(file.id),
            Distillation.finished_at.is_(None),
        ),
    }
    for task_id in imports_of(session, file.project_id, file.id):
        return f"import {task_id}"
    for noun, query in unfinished.items():
        user = session.scalars(query.limit(1)).first()
        if user is not None:
            return f"{noun} {user}"
    return None


def _reads(file_id: FileId | InstrumentedAttribute[FileId]) -> ColumnElement[bool]:
    """Return the condition that a distillation needs the file."""
    return or_(
        Distillation.prompts_file == file_id,
        Distillation.labelled_file == file_id,
        Distillation.validation_file == file_id,
    )
