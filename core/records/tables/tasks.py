"""Durable background work of every kind in `core.tasks.kinds`."""

from typing import Any

from sqlalchemy import Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Leased, rows_where
from core.spec.ids import TaskId


class Task(Leased):
    """A piece of work that survives its worker. It has failed if it has an `error`."""

    __tablename__ = "tasks"
    __table_args__ = (
        Index(None, "project_id", "kind", "subject", "created_at"),
        Index("ix_tasks_waiting", "created_at", "id", **rows_where("finished_at IS NULL")),
        Index("ix_tasks_leased", "lease_expires_at", **rows_where("lease_expires_at IS NOT NULL")),
        Index("ix_tasks_ended", "kind", "finished_at", **rows_where("finished_at IS NOT NULL")),
    )

    noun = "task"
    id_param = "id"

    id: Mapped[TaskId] = mapped_column(primary_key=True)
    kind: Mapped[str]
    subject: Mapped[str]
    """The id of the file or model that the task is about."""
    payload: Mapped[dict[str, Any]]
    """The input of the runner."""
    not_before: Mapped[float | None]
    """The earliest time of the next attempt. By the database's clock."""
    progress: Mapped[dict[str, Any] | None]
    """What the runner has reported so far, for kinds that do."""
    result: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    """The output of the runner."""
    secret: Mapped[str | None] = mapped_column(Text, deferred=True)
    """What `core.sealed` has sealed for the runner; removed when the task ends."""
    error: Mapped[dict[str, Any] | None]
    """The `core.tasks.failure.TaskFailure` of a task that failed."""
