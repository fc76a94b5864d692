"""The writes of the worker that runs a distillation, each under the claim of its task.

Rows are stored in groups, each with its counts in one transaction. So a prompt has one row or
none, and a row is graded once, whatever happens to the worker. The last transaction records the
training file and creates the job.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json
from sqlalchemy import exists, insert, select, update
from sqlalchemy.orm import Session

from core.records import leases
from core.records.base_downloads import wait_for_download
from core.records.database import database_now
from core.records.distillations import DISTILLATION
from core.records.events import NewEvent, append_events
from core.records.files import add_file
from core.records.jobs import NewJob, create_job
from core.records.model_usage import ModelUsage, added_usage
from core.records.tables import Distillation, DistillationRow, File, Task
from core.records.tasks import TaskClaim
from core.spec.dataset import DatasetReport
from core.spec.distillation import CandidateStatus, DistillationStatus
from core.spec.ids import DistillationId


@dataclass(frozen=True)
class RowResult:
    """A prompt with its answers, before or after they are graded."""

    number: int
    status: CandidateStatus
    reason: str | None
    kept: int
    """Answers that are kept."""
    usage: Sequence[ModelUsage]
    body: dict[str, Any]


@dataclass(frozen=True)
class TrainingFile:
    """The file of kept answers, which is in storage."""

    filename: str
    bytes: int
    sha256: str
    key: str
    report: DatasetReport
    labelled_rows: int


def begin(session: Session, claim: TaskClaim, id_: DistillationId) -> DistillationStatus:
    """Begin or resume a distillation; return its status."""
    distillation = _held(session, claim, id_)
    if distillation.status == DistillationStatus.QUEUED:
        distillation.status = DistillationStatus.ASKING
    return DistillationStatus(distillation.status)


def begin_filtering(session: Session, claim: TaskClaim, id_: DistillationId) -> DistillationStatus:
    """Record that all prompts have rows; return the status."""
    distillation = _held(session, claim, id_)
    if distillation.status == DistillationStatus.ASKING:
        distillation.status = DistillationStatus.FILTERING
    return DistillationStatus(distillation.status)


def stored_numbers(session: Session, id_: DistillationId) -> dict[int, str]:
    """Return the status of each prompt that has a row, by its number."""
    query = select(DistillationRow.number, DistillationRow.status)
    rows = session.execute(query.where(DistillationRow.distillation_id == id_))
    return {number: status for number, status in rows}


def add_answers(
    session: Session, claim: TaskClaim, id_: DistillationId, results: Sequence[RowResult]
) -> None:
    """Store a group of answered prompts; idempotent, because a commit may be repeated.

    An attempt that gets this far is no crash loop, so the earlier attempts no longer count.
    """
    leases.hold(session, claim, attempts=1)
    if _status_of(session, id_, results[0].number) is not None:
        return
    distillation = _locked(session, id_)
    rows = [_columns(each) | {"project_id": claim.project_id} for each in results]
    session.execute(insert(DistillationRow), [{"distillation_id": id_, **row} for row in rows])
    failed = sum(each.status == "failed" for each in results)
    distillation.failed += failed
    distillation.answered += len(results) - failed
    _count(distillation, results)


def set_outcomes(
    session: Session, claim: TaskClaim, id_: DistillationId, results: Sequence[RowResult]
) -> None:
    """Store a group of graded prompts; idempotent, because a commit may be repeated."""
    leases.hold(session, claim, attempts=1)
    if _status_of(session, id_, results[0].number) != "answered":
        return
    distillation = _locked(session, id_)
    rows = [{"distillation_id": id_, **_columns(each)} for each in results]
    session.execute(update(DistillationRow), rows)
    distillation.kept += sum(each.status == "kept" for each in results)
    distillation.dropped += sum(each.status == "dropped" for each in results)
    distillation.rows += sum(each.kept for each in results)
    _count(distillation, results)


def end_with_job(
    session: Session,
    claim: TaskClaim,
    id_: DistillationId,
    file: TrainingFile,
    job_of: Callable[[File], NewJob],
    *,
    must_download: bool,
) -> DistillationStatus:
    """Record the training file and create its job, which housekeeping wakes a worker for.

    Idempotent. Raises the errors of `job_of` and of `create_job`.
    """
    distillation = _held(session, claim, id_)
    if distillation.finished_at is None:
        new = job_of(_record(session, distillation, file))
        job = create_job(session, new)
        told = [NewEvent(f"Created by {id_}, which wrote {distillation.training_file}.")]
        if (reason := new.spec.strategy_reason) is not None:
            told.append(NewEvent(f"The planner chose the strategy {reason}."))
        append_events(session, job.id, told)
        if must_download:
            wait_for_download(session, job)
        distillation.job_id = job.id
        _end(session, distillation, DistillationStatus.TRAINING)
    return DistillationStatus(distillation.status)


def end_without_job(
    session: Session,
    claim: TaskClaim,
    id_: DistillationId,
    error: dict[str, Any],
    file: TrainingFile | None = None,
) -> DistillationStatus:
    """Fail a distillation, with its training file if it has been written. Idempotent."""
    distillation = _held(session, claim, id_)
    if distillation.finished_at is None:
        if file is not None:
            _record(session, distillation, file)
        distillation.error = error
        _end(session, distillation, DistillationStatus.FAILED)
    return DistillationStatus(distillation.status)


def fail_abandoned_distillations(session: Session) -> Sequence[DistillationId]:
    """Fail the distillations whose task has failed for good; return their ids."""
    is_alive = exists().where(
        Task.kind == DISTILLATION, Task.subject == Distillation.id, Task.finished_at.is_(None)
    )
    abandoned = session.scalars(
        select(Distillation).where(Distillation.finished_at.is_(None), ~is_alive).with_for_update()
    ).all()
    for distillation in abandoned:
        task_error = select(Task.error).where(
            Task.kind == DISTILLATION, Task.subject == distillation.id
        )
        error = session.scalars(task_error).first() or {
            "code": "worker_lost",
            "message": "The task of the distillation is gone.",
        }
        distillation.error = {"code": error["code"], "message": error["message"], "param": None}
        _end(session, distillation, DistillationStatus.FAILED)
    return [distillation.id for distillation in abandoned]


def _record(session: Session, distillation: Distillation, file: TrainingFile) -> File:
    distillation.is_written = True
    distillation.labelled_rows = file.labelled_rows
    return add_file(
        session,
        file_id=distillation.training_file,
        project_id=distillation.project_id,
        filename=file.filename,
        purpose="fine-tune",
        bytes=file.bytes,
        sha256=file.sha256,
        blob_key=file.key,
        report=file.report,
    )


def _end(session: Session, distillation: Distillation, status: DistillationStatus) -> None:
    distillation.status = status
    distillation.finished_at = session.scalars(select(database_now())).one()


def _columns(result: RowResult) -> dict[str, Any]:
    return {
        "number": result.number,
        "status": result.status,
        "reason": result.reason,
        "bytes": len(to_json(result.body)),
        "body": result.body,
    }


def _count(distillation: Distillation, results: Sequence[RowResult]) -> None:
    reasons = Counter(distillation.reasons)
    reasons.update(each.reason for each in results if each.reason is not None)
    distillation.reasons = dict(reasons)
    usage = (each for result in results for each in result.usage)
    distillation.usage = added_usage(distillation.usage, usage)


def _status_of(session: Session, id_: DistillationId, number: int) -> str | None:
    which = (DistillationRow.distillation_id == id_, DistillationRow.number == number)
    return session.scalars(select(DistillationRow.status).where(*which)).first()


def _locked(session: Session, id_: DistillationId) -> Distillation:
    return session.scalars(
        select(Distillation).where(Distillation.id == id_).with_for_update()
    ).one()


def _held(session: Session, claim: TaskClaim, id_: DistillationId) -> Distillation:
    """Return the distillation, locked, under the claim; StaleClaim if the claim has ended."""
    leases.hold(session, claim)
    return _locked(session, id_)
