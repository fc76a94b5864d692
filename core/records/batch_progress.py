"""The writes of the worker that runs a batch, each under the claim of its task, and their cleanup.

A batch moves from `validating` over `in_progress` and `finalizing` to its end. Answered lines are
stored in parts. A part is stored with its counts in one transaction, so a line is in no part or in
one, whatever happens to the worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session

from core.records import leases
from core.records.batches import BATCH
from core.records.database import database_now
from core.records.files import add_file, new_file_key
from core.records.tables import Batch, BatchPart, Task
from core.records.tasks import TaskClaim
from core.spec.batch import BatchStatus
from core.spec.ids import BatchId, FileId

ENDED_BY_WORKER = {
    BatchStatus.CANCELLING: BatchStatus.CANCELLED,
    BatchStatus.FINALIZING: BatchStatus.COMPLETED,
}


@dataclass
class Tokens:
    """Tokens of answers."""

    input: int = 0
    output: int = 0
    reasoning: int = 0

    def add(self, other: "Tokens") -> None:
        self.input += other.input
        self.output += other.output
        self.reasoning += other.reasoning


@dataclass(frozen=True)
class Part:
    """Answered lines: their numbers, their blobs, and what they add to the counts.

    The worker with the claim numbers the parts, which `hold` protects from any other.
    """

    number: int
    lines: Sequence[int]
    output_key: str | None
    error_key: str | None
    completed: int
    """Lines for the output file; the others are for the error file."""
    tokens: Tokens = field(default_factory=Tokens)


class Stored(Protocol):
    """A file that is in storage."""

    @property
    def key(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class Files:
    """The chosen ids of the two files that end a batch."""

    output: FileId
    error: FileId


def begin_batch(session: Session, claim: TaskClaim, batch_id: BatchId) -> BatchStatus:
    """Begin or resume a batch; return its status."""
    batch = _held(session, claim, batch_id)
    if batch.status == BatchStatus.VALIDATING:
        batch.status = BatchStatus.IN_PROGRESS
        batch.in_progress_at = _now(session)
    return BatchStatus(batch.status)


def should_finish(session: Session, batch_id: BatchId) -> bool:
    """Return whether no more requests may be sent: the batch is cancelled or its window ended."""
    query = select(Batch.status, Batch.expires_at <= database_now()).where(Batch.id == batch_id)
    status, is_late = session.execute(query).one()
    return is_late or status != BatchStatus.IN_PROGRESS


def add_part(session: Session, claim: TaskClaim, batch_id: BatchId, part: Part) -> None:
    """Record a part whose blobs are in storage; idempotent, because a commit may be repeated.

    An attempt that gets this far is no crash loop, so the earlier attempts no longer count.
    """
    leases.hold(session, claim, attempts=1)
    is_same = (BatchPart.batch_id == batch_id, BatchPart.number == part.number)
    if session.scalars(select(BatchPart.number).where(*is_same)).first() is not None:
        return
    session.add(
        BatchPart(
            batch_id=batch_id,
            number=part.number,
            project_id=claim.project_id,
            lines=list(part.lines),
            output_key=part.output_key,
            error_key=part.error_key,
        )
    )
    session.execute(
        update(Batch)
        .where(Batch.id == batch_id)
        .values(
            completed=Batch.completed + part.completed,
            failed=Batch.failed + len(part.lines) - part.completed,
            input_tokens=Batch.input_tokens + part.tokens.input,
            output_tokens=Batch.output_tokens + part.tokens.output,
            reasoning_tokens=Batch.reasoning_tokens + part.tokens.reasoning,
        )
        .execution_options(synchronize_session=False)
    )


def parts_of(session: Session, batch_id: BatchId) -> Sequence[BatchPart]:
    """Return the parts in the order in which they were stored."""
    query = select(BatchPart).where(BatchPart.batch_id == batch_id).order_by(BatchPart.number)
    return session.scalars(query).all()


def begin_finalizing(
    session: Session, claim: TaskClaim, batch_id: BatchId
) -> tuple[BatchStatus, Files]:
    """Stop a batch; return its status, and the ids of its files, which repeated attempts share."""
    batch = _held(session, claim, batch_id)
    if batch.status == BatchStatus.IN_PROGRESS:
        batch.status = BatchStatus.FINALIZING
    batch.finalizing_at = batch.finalizing_at or _now(session)
    output = batch.output_file_id or new_file_key()[0]
    error = batch.error_file_id or new_file_key()[0]
    batch.output_file_id, batch.error_file_id = output, error
    return BatchStatus(batch.status), Files(output, error)


def end_batch(
    session: Session,
    claim: TaskClaim,
    batch_id: BatchId,
    *,
    output: Stored | None,
    error: Stored | None,
    unanswered: int,
) -> BatchStatus:
    """End a batch with the files that are in storage; None for a file without lines. Idempotent.

    It has expired if `unanswered` lines are left and its owner has not cancelled it. They are in
    the error file; the counts have answers only, as at OpenAI.
    """
    batch = _held(session, claim, batch_id)
    if batch.finished_at is not None:
        return BatchStatus(batch.status)
    now = _now(session)
    if batch.status == BatchStatus.FINALIZING and unanswered:
        batch.status = BatchStatus.EXPIRED
    else:
        batch.status = ENDED_BY_WORKER[BatchStatus(batch.status)]
    batch.finished_at = now
    batch.output_file_id = _recorded(session, batch, batch.output_file_id, "output", output)
    batch.error_file_id = _recorded(session, batch, batch.error_file_id, "error", error)
    return BatchStatus(batch.status)


def _recorded(
    session: Session, batch: Batch, file_id: FileId | None, name: str, stored: Stored | None
) -> FileId | None:
    """Record a file of a batch; return its id, or None if there is no file."""
    if stored is None or file_id is None:
        return None
    file = add_file(
        session,
        file_id=file_id,
        project_id=batch.project_id,
        filename=f"{batch.id}_{name}.jsonl",
        purpose="batch_output",
        bytes=stored.bytes,
        sha256=stored.sha256,
        blob_key=stored.key,
        report=None,
        lifetime_seconds=batch.output_expires_seconds,
    )
    return file.id


def left_by_ended_batches(session: Session, limit: int = 1000) -> Sequence[BatchPart]:
    """Return parts of batches that have ended."""
    return session.scalars(
        select(BatchPart)
        .join(Batch, Batch.id == BatchPart.batch_id)
        .where(Batch.finished_at.is_not(None))
        .limit(limit)
    ).all()


def forget_part(session: Session, part: BatchPart) -> None:
    """Delete the row of a part whose blobs are deleted."""
    session.execute(
        delete(BatchPart).where(
            BatchPart.batch_id == part.batch_id, BatchPart.number == part.number
        )
    )


def fail_abandoned(session: Session) -> Sequence[BatchId]:
    """Fail the batches whose task has failed for good; return their ids."""
    is_alive = exists().where(
        Task.kind == BATCH, Task.subject == Batch.id, Task.finished_at.is_(None)
    )
    batches = session.scalars(
        select(Batch).where(Batch.finished_at.is_(None), ~is_alive).with_for_update()
    ).all()
    for batch in batches:
        error = session.scalars(
            select(Task.error).where(Task.kind == BATCH, Task.subject == batch.id)
        ).first() or {"code": "worker_lost", "message": "The task of the batch is gone."}
        batch.status = BatchStatus.FAILED
        batch.finished_at = _now(session)
        batch.output_file_id = batch.error_file_id = None
        batch.errors = [
            {"code": error["code"], "message": error["message"], "param": None, "line": None}
        ]
    return [batch.id for batch in batches]


def _held(session: Session, claim: TaskClaim, batch_id: BatchId) -> Batch:
    """Return the batch, locked, under the claim; StaleClaim if the claim has ended."""
    leases.hold(session, claim)
    return session.scalars(select(Batch).where(Batch.id == batch_id).with_for_update()).one()


def _now(session: Session) -> float:
    return session.scalars(select(database_now())).one()
