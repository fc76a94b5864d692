"""Tasks: durable background work of any kind, from the request to its result or failure.

A task waits, is claimed under a lease, and ends with a result or an error. If its worker dies,
another worker tries again; after the last attempt of its kind the task fails.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import ColumnElement, and_, case, delete, or_, select, update
from sqlalchemy.orm import Session, undefer

from core.records import leases, outbox
from core.records.database import database_now
from core.records.ids import new_task_id
from core.records.owned import find_owned
from core.records.tables import OutboxMessage, Task
from core.spec.base import Spec
from core.spec.ids import ProjectId, TaskId
from core.tasks.failure import TaskFailure
from core.tasks.kinds import KINDS, Work


@dataclass(frozen=True)
class TaskClaim:
    """The right to end a task, with the payload for its runner."""

    table: ClassVar[type[Task]] = Task

    id: TaskId
    token: int
    kind: str
    project_id: ProjectId
    payload: dict[str, Any]

    @property
    def work(self) -> Work:
        return Work(self.kind, self.id)


def create_task(
    session: Session, project_id: ProjectId, kind: str, *, subject: str, payload: Spec
) -> Task:
    """Create a task and its wake-up message; the caller wakes the broker after the commit."""
    task = Task(
        id=new_task_id(kind),
        project_id=project_id,
        kind=kind,
        subject=subject,
        payload=payload.model_dump(mode="json"),
        result=None,
    )
    session.add(task)
    session.flush()
    outbox.enqueue(session, Work(kind, task.id))
    return task


def find_task(session: Session, project_id: ProjectId, kind: str, task_id: TaskId) -> Task | None:
    """Return a task of this kind with its result; None if this project does not have it."""
    task = find_owned(session, Task, project_id, task_id, load=(undefer(Task.result),))
    return task if task is not None and task.kind == kind else None


def claim_next(session: Session, worker_id: str, kinds: Collection[str]) -> TaskClaim | None:
    """Claim the oldest task of these kinds that is due and has no claim; None if there is none."""
    if not kinds:
        return None
    is_due = or_(Task.not_before.is_(None), Task.not_before <= database_now())
    lease_seconds = case({kind: KINDS[kind].lease_seconds for kind in kinds}, value=Task.kind)
    claimed = leases.claim_oldest(
        session,
        Task,
        Task.kind.in_(kinds),
        is_due,
        worker_id=worker_id,
        lease_seconds=lease_seconds,
    )
    if claimed is None:
        return None
    task_id, token = TaskId(claimed[0]), claimed[1]
    task = session.scalars(select(Task).where(Task.id == task_id)).one()
    claim = TaskClaim(task_id, token, task.kind, task.project_id, task.payload)
    outbox.settle(session, claim.work)
    return claim


def succeed(session: Session, claim: TaskClaim, result: Spec) -> None:
    """End the task with its result; StaleClaim if the claim has ended."""
    leases.hold(session, claim)
    _end(session, claim.work, result=result.model_dump(mode="json"))


def fail(session: Session, claim: TaskClaim, failure: TaskFailure) -> None:
    """End the task with an error that another attempt would get too."""
    leases.hold(session, claim)
    _fail(session, claim.work, failure)


def release(session: Session, claim: TaskClaim) -> None:
    """Queue the task again because its worker stops. The attempt does not count."""
    leases.hold(session, claim, attempts=Task.attempts - 1)
    _queue_again(session, claim.work, pause_seconds=0)


def retry(session: Session, claim: TaskClaim, failure: TaskFailure) -> None:
    """Queue the task again after a pause; after its last attempt, end it with `failure`."""
    leases.hold(session, claim)
    attempts = session.scalars(select(Task.attempts).where(Task.id == claim.id)).one()
    kind = KINDS[claim.kind]
    if attempts < kind.max_attempts:
        _queue_again(session, claim.work, pause_seconds=kind.retry_seconds * 2 ** (attempts - 1))
    else:
        _fail(session, claim.work, failure)


def rescue_expired(session: Session, *, worker_id: str | None = None) -> Sequence[Work]:
    """Queue the tasks of dead workers again, or fail those without attempts left.

    `leases.find_lost` finds them. Returns the tasks that wait again. Kinds that a newer version has
    added are left to its own processes.
    """
    rescued = []
    for task_id, attempts in leases.find_lost(session, Task, worker_id, Task.kind.in_(KINDS)):
        work = Work(session.scalars(select(Task.kind).where(Task.id == task_id)).one(), task_id)
        if attempts < KINDS[work.kind].max_attempts:
            _queue_again(session, work, pause_seconds=0)
            rescued.append(work)
        else:
            message = f"The task was started {attempts} times; its worker died each time."
            _fail(session, work, TaskFailure(code="worker_lost", message=message))
    return rescued


def held_token(session: Session, task_id: TaskId) -> int | None:
    """Return the token of the current claim; None without a claim, or without such a task."""
    query = select(Task.claim_token).where(Task.id == task_id, Task.lease_expires_at.is_not(None))
    return session.scalars(query).one_or_none()


def forget_tasks(session: Session, *which: ColumnElement[bool]) -> None:
    """Delete tasks with their wake-up messages. A running one loses its claim."""
    forgotten = session.execute(
        delete(Task).where(*which).returning(Task.id).execution_options(synchronize_session=False)
    ).scalars()
    ids = list(forgotten)
    if ids:
        session.execute(
            delete(OutboxMessage).where(OutboxMessage.kind.in_(KINDS), OutboxMessage.id.in_(ids))
        )


def forget_old_tasks(session: Session) -> None:
    """Delete the tasks that ended longer ago than tasks of their kind are kept."""
    now = session.scalars(select(database_now())).one()  # a constant, so that an index is used
    for name, kind in KINDS.items():
        if kind.kept_seconds is not None:
            forget_tasks(session, Task.kind == name, Task.finished_at < now - kind.kept_seconds)


def _end(session: Session, work: Work, **columns: Any) -> None:
    _write(session, work, finished_at=database_now(), secret=None, **columns)
    outbox.settle(session, work)


def _fail(session: Session, work: Work, failure: TaskFailure) -> None:
    _end(session, work, error=failure.model_dump(mode="json"))


def _queue_again(session: Session, work: Work, *, pause_seconds: float) -> None:
    _write(session, work, not_before=database_now() + pause_seconds)
    outbox.enqueue(session, work, send_after_seconds=pause_seconds)


def _write(session: Session, work: Work, **columns: Any) -> None:
    """Write columns and end the claim."""
    session.execute(
        update(Task)
        .where(and_(Task.id == work.id, Task.kind == work.kind))
        .values(leases.no_claim(Task) | columns)
        .execution_options(synchronize_session=False)
    )
