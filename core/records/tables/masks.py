"""Mask audits."""

import time
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table, rows_where


class MaskAudit(Table):
    """What a run trains on, token by token: of a job (the same id), or asked for without one."""

    __tablename__ = "mask_audits"
    __table_args__ = (
        Index("ix_mask_audits_waiting", "created_at", "id", **rows_where("finished_at IS NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)
    training_file: Mapped[str]
    spec: Mapped[dict[str, Any] | None]
    """The `core.spec.run.JobSpec` to look with; None for that of a job."""
    blob_key: Mapped[str | None]
    """Of the training file, when there is no job."""
    taken_at: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    finished_at: Mapped[float | None]
    rows: Mapped[list[dict[str, Any]] | None]
    """`core.spec.mask.MaskRow`s."""
    error: Mapped[dict[str, Any] | None]
    """`{code, message, param}` of one that failed."""
