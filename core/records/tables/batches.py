"""Batches, and the parts of their output until they end."""

import time
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned, Table, rows_where
from core.spec.ids import BatchId, FileId, ProjectId


class Batch(Owned):
    """Requests in a file that are answered into files. `core.records.batches` writes `status`.

    A task of the kind `batch`, whose subject is the batch, does the work. `finished_at` is set if
    and only if the status is final.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index("ix_batches_unfinished", "input_file_id", **rows_where("finished_at IS NULL")),
    )

    noun = "batch"
    id_param = "batch_id"

    id: Mapped[BatchId] = mapped_column(primary_key=True)
    status: Mapped[str]
    """A `core.spec.batch.BatchStatus`."""
    endpoint: Mapped[str]
    input_file_id: Mapped[FileId]
    model: Mapped[str | None]
    """The model of all requests; None if they name several."""
    completion_window: Mapped[str]
    user_metadata: Mapped[dict[str, Any] | None]
    output_expires_seconds: Mapped[int | None]
    errors: Mapped[list[dict[str, Any]] | None]
    """`{code, message, param, line}` of a failed batch."""

    in_progress_at: Mapped[float | None]
    finalizing_at: Mapped[float | None]
    cancelling_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    expires_at: Mapped[float]
    """The end of the completion window."""

    total: Mapped[int] = mapped_column(default=0)
    completed: Mapped[int] = mapped_column(default=0)
    """The lines of the output file."""
    failed: Mapped[int] = mapped_column(default=0)
    """The lines of the error file with a response."""
    input_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    output_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    output_file_id: Mapped[FileId | None]
    """Chosen before the file is written, so that a repeated attempt replaces it."""
    error_file_id: Mapped[FileId | None]


class BatchPart(Table):
    """Answered lines of a batch, in storage until housekeeping deletes them after its end.

    The parts of a batch have no line in common.
    """

    __tablename__ = "batch_parts"

    batch_id: Mapped[BatchId] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[ProjectId] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    lines: Mapped[list[int]] = mapped_column(JSON)
    """The numbers of the answered lines of the input file."""
    output_key: Mapped[str | None]
    """The blob with the lines for the output file; None if there are none."""
    error_key: Mapped[str | None]
