"""What the objects of resources that are tasks have in common."""

from typing import Literal

from pydantic import BaseModel

from core.records.tables import Task
from core.tasks.failure import TaskFailure

TaskStatus = Literal["queued", "running", "succeeded", "failed"]


class TaskError(BaseModel):
    """Why a task has failed."""

    code: str
    message: str
    param: str | None


def status_of(task: Task) -> TaskStatus:
    if task.finished_at is not None:
        return "succeeded" if task.error is None else "failed"
    return "queued" if task.lease_expires_at is None else "running"


def error_of(task: Task) -> TaskError | None:
    if task.error is None:
        return None
    failure = TaskFailure.model_validate(task.error)
    return TaskError(code=failure.code, message=failure.message, param=failure.param)


def finished_at(task: Task) -> int | None:
    return None if task.finished_at is None else int(task.finished_at)
