"""Distillations, and their prompts with the answers of the teacher."""

from typing import Any

from sqlalchemy import ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned, Table, rows_where
from core.spec.ids import DistillationId, FileId, JobId, ProjectId


class Distillation(Owned):
    """Prompts that a teacher answers, and the job that trains on the answers.

    A task of the kind `distillation`, whose subject is this row, does the work.
    `core.records.distillations` and `distillation_progress` write `status`. `finished_at` is set
    if and only if the status is final; the job may run longer.
    """

    __tablename__ = "distillations"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index("ix_distillations_unfinished", "project_id", **rows_where("finished_at IS NULL")),
    )

    noun = "distillation"
    id_param = "distillation_id"

    id: Mapped[DistillationId] = mapped_column(primary_key=True)
    status: Mapped[str]
    """A `core.spec.distillation.DistillationStatus`."""
    request: Mapped[dict[str, Any]]
    """As it was requested, without the prompts themselves."""
    user_metadata: Mapped[dict[str, Any] | None]
    teacher: Mapped[str | None]
    """The resolved id of the model that answers; None if the prompts have answers."""
    prompts_file: Mapped[FileId | None]
    """None: the prompts are in a blob of the distillation."""
    labelled_file: Mapped[FileId | None]
    validation_file: Mapped[FileId | None]
    training_file: Mapped[FileId]
    """The id that the file of kept answers has, or will have once it is written."""
    is_written: Mapped[bool] = mapped_column(default=False)
    """Whether the training file was written. Its owner may have deleted it since."""
    job_id: Mapped[JobId | None]
    error: Mapped[dict[str, Any] | None]
    """`{code, message, param}` of a failed distillation."""
    finished_at: Mapped[float | None]

    total: Mapped[int]
    """Prompts."""
    answered: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    kept: Mapped[int] = mapped_column(default=0)
    dropped: Mapped[int] = mapped_column(default=0)
    rows: Mapped[int] = mapped_column(default=0)
    """Kept answers, which are rows of the training file; a prompt may have several."""
    labelled_rows: Mapped[int | None]
    """Of the training file; None until it is written."""
    reasons: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """How many prompts are failed or dropped for each reason, by its code."""
    usage: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """Tokens of each model: a `core.records.model_usage.ModelUsage`."""


class DistillationRow(Table):
    """One prompt with all its answers."""

    __tablename__ = "distillation_rows"
    __table_args__ = (Index(None, "distillation_id", "status", "number"),)

    distillation_id: Mapped[DistillationId] = mapped_column(
        ForeignKey("distillations.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """The position of the prompt in its source, from 0."""
    project_id: Mapped[ProjectId] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str]
    """A `core.spec.distillation.CandidateStatus`."""
    reason: Mapped[str | None] = mapped_column(Text)
    """The code of the reason why it is failed or dropped."""
    bytes: Mapped[int]
    """Of `body`, as JSON."""
    body: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    """A `core.distillation.candidates.Answered`."""
